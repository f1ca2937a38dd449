"""Texts: joining, cutting, searching, and values out of JSON."""

from __future__ import annotations

import json
import string as letters

from comfy_api.latest import ComfyExtension, io

# Python's own engine cannot be stopped, and keeps the whole server waiting meanwhile.
LONGEST_SEARCH_SECONDS = 10.0


def _text(name="string", **more):
    return io.String.Input(name, multiline=True, **more)


def _schema(node_id, title, inputs, output, description, aliases):
    return io.Schema(
        node_id, title, "text", inputs=inputs, outputs=[output], description=description,
        search_aliases=aliases,
    )  # fmt: skip


class StringFormat(io.ComfyNode):
    """A text with values in it."""

    @classmethod
    def define_schema(cls):
        names = list(letters.ascii_lowercase)
        many = io.Autogrow.TemplateNames(io.AnyType.Input("value"), names=names, min=0)
        tooltip = "Names of values stand in braces: {a}, or {b:.2f} for two places after the point."
        return _schema(
            "StringFormat",
            "Format Text",
            [
                io.Autogrow.Input("values", many),
                io.String.Input("f_string", default="{a}", multiline=True, tooltip=tooltip),
            ],
            io.String.Output(),
            "Puts values into a text, where their names stand in braces.",
            ["string", "format"],
        )

    @classmethod
    def execute(cls, f_string, values=None):
        values = values or {}
        try:
            return io.NodeOutput(f_string.format(**values))
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"The text cannot be filled in ({type(error).__name__}: {error}). It may name the linked "
                f"values: {', '.join(values) or 'there are none'}; write other braces twice: {{{{ }}}}."
            ) from error


class StringConcatenate(io.ComfyNode):
    """Two texts in a row."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "StringConcatenate",
            "Concatenate Text",
            [_text("string_a"), _text("string_b"), io.String.Input("delimiter", default="")],
            io.String.Output(),
            "Joins two texts, with the delimiter between them.",
            [
                "concatenate", "text concat", "join text", "merge text", "combine strings", "string concat",
                "append text", "combine text",
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, string_a, string_b, delimiter):
        return io.NodeOutput(string_a + delimiter + string_b)


class StringSubstring(io.ComfyNode):
    """A part of a text."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "StringSubstring",
            "Substring",
            [_text(), io.Int.Input("start"), io.Int.Input("end")],
            io.String.Output(),
            "The characters from start on, up to end; negative numbers count from the end of the text.",
            ["substring", "extract text", "text portion"],
        )

    @classmethod
    def execute(cls, string, start, end):
        return io.NodeOutput(string[start:end])


class StringLength(io.ComfyNode):
    """How long a text is."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "StringLength",
            "Text Length",
            [_text()],
            io.Int.Output(display_name="length"),
            "Number of characters.",
            ["character count", "text size", "string length"],
        )

    @classmethod
    def execute(cls, string):
        return io.NodeOutput(len(string))


CASES = {
    "UPPERCASE": str.upper,
    "lowercase": str.lower,
    "Capitalize": str.capitalize,
    "Title Case": str.title,
}


class CaseConverter(io.ComfyNode):
    """Capital and small letters."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "CaseConverter",
            "Convert Text Case",
            [_text(), io.Combo.Input("mode", options=list(CASES))],
            io.String.Output(),
            "Changes capital and small letters.",
            ["case converter", "text case", "uppercase", "lowercase", "capitalize"],
        )

    @classmethod
    def execute(cls, string, mode):
        return io.NodeOutput(CASES[mode](string))


ENDS = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}


class StringTrim(io.ComfyNode):
    """A text without blanks around it."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "StringTrim",
            "Trim Text",
            [_text(), io.Combo.Input("mode", options=list(ENDS))],
            io.String.Output(),
            "Removes blanks and line ends at the beginning, the end, or both.",
            ["trim", "clean whitespace", "remove whitespace", "remove spaces", "strip"],
        )

    @classmethod
    def execute(cls, string, mode):
        return io.NodeOutput(ENDS[mode](string))


class StringReplace(io.ComfyNode):
    """Another text in place of one."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "StringReplace",
            "Replace Text",
            [_text(), _text("find"), _text("replace")],
            io.String.Output(),
            "Puts a text wherever another one stands.",
            ["replace", "find and replace", "substitute", "swap text"],
        )

    @classmethod
    def execute(cls, string, find, replace):
        return io.NodeOutput(string.replace(find, replace))


def _sensitivity():
    tooltip = "Are capital and small letters different?"
    return io.Boolean.Input("case_sensitive", default=True, advanced=True, tooltip=tooltip)


def _folded(case_sensitive, *texts):
    return texts if case_sensitive else tuple(text.lower() for text in texts)


class StringContains(io.ComfyNode):
    """Does a text stand in another?"""

    @classmethod
    def define_schema(cls):
        return _schema(
            "StringContains",
            "Contains Text",
            [_text(), _text("substring"), _sensitivity()],
            io.Boolean.Output(display_name="contains"),
            "True if the second text stands somewhere in the first.",
            ["contains", "text includes", "string includes"],
        )

    @classmethod
    def execute(cls, string, substring, case_sensitive):
        whole, part = _folded(case_sensitive, string, substring)
        return io.NodeOutput(part in whole)


COMPARISONS = {"Starts With": str.startswith, "Ends With": str.endswith, "Equal": str.__eq__}


class StringCompare(io.ComfyNode):
    """Two texts beside each other."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "StringCompare",
            "Compare Text",
            [
                _text("string_a"),
                _text("string_b"),
                io.Combo.Input("mode", options=list(COMPARISONS)),
                _sensitivity(),
            ],
            io.Boolean.Output(),
            "True if the first text starts with, ends with or equals the second.",
            ["compare", "text match", "string equals", "starts with", "ends with"],
        )

    @classmethod
    def execute(cls, string_a, string_b, mode, case_sensitive):
        return io.NodeOutput(COMPARISONS[mode](*_folded(case_sensitive, string_a, string_b)))


def _switches(optional=False):
    texts = {
        "case_insensitive": "Are capital and small letters the same?",
        "multiline": "Do ^ and $ stand for the ends of each line?",
        "dotall": "Does a dot stand for a line end too?",
    }
    return [
        io.Boolean.Input(
            name, default=name == "case_insensitive", advanced=True, optional=optional, tooltip=tooltip
        )
        for name, tooltip in texts.items()
    ]


def _search(action, pattern, *arguments, case_insensitive, multiline, dotall, **more):
    """`regex.<action>` within a time. ValueError for what is no pattern, and for one that takes too long."""
    import regex

    flags = case_insensitive * regex.IGNORECASE | multiline * regex.MULTILINE | dotall * regex.DOTALL
    try:
        call = getattr(regex.compile(pattern, flags), action)
        found = call(*arguments, timeout=LONGEST_SEARCH_SECONDS, **more)
        return list(found) if action == "finditer" else found
    except (regex.error, IndexError) as error:
        raise ValueError(f"{pattern!r} is no regular expression that can be used: {error}.") from error
    except TimeoutError as error:
        raise ValueError(
            f"{pattern!r} takes longer than {LONGEST_SEARCH_SECONDS:g} s on this text. "
            "Avoid repetitions inside of repetitions, such as (a+)+."
        ) from error


class RegexMatch(io.ComfyNode):
    """Does a pattern fit?"""

    @classmethod
    def define_schema(cls):
        return _schema(
            "RegexMatch",
            "Match Text",
            [_text(), _text("regex_pattern"), *_switches()],
            io.Boolean.Output(display_name="matches"),
            "True if a regular expression fits somewhere in the text.",
            ["regex match", "regex", "pattern match", "text contains", "string match"],
        )

    @classmethod
    def execute(cls, string, regex_pattern, **switches):
        return io.NodeOutput(_search("search", regex_pattern, string, **switches) is not None)


def _group(match, index):
    """A group of a match as a text, None if the pattern has no such group."""
    return (match.group(index) or "") if match is not None and match.re.groups >= index else None


def _first_match(string, pattern, index, switches):
    match = _search("search", pattern, string, **switches)
    return [] if match is None else [match.group()]


def _all_matches(string, pattern, index, switches):
    found = _search("findall", pattern, string, **switches)
    return [one[0] if isinstance(one, tuple) else one for one in found]


def _first_group(string, pattern, index, switches):
    return [_group(_search("search", pattern, string, **switches), index) or ""]


def _all_groups(string, pattern, index, switches):
    matches = _search("finditer", pattern, string, **switches)
    found = [_group(match, index) for match in matches if match.re.groups]
    return [text for text in found if text is not None]


EXTRACTIONS = {
    "First Match": _first_match,
    "All Matches": _all_matches,
    "First Group": _first_group,
    "All Groups": _all_groups,
}


class RegexExtract(io.ComfyNode):
    """What a pattern finds."""

    @classmethod
    def define_schema(cls):
        group = "Which pair of parentheses, from 1; 0 is the whole match."
        return _schema(
            "RegexExtract",
            "Extract Text",
            [
                _text(),
                _text("regex_pattern"),
                io.Combo.Input("mode", options=list(EXTRACTIONS)),
                *_switches(),
                io.Int.Input("group_index", default=1, min=0, max=100, advanced=True, tooltip=group),
            ],
            io.String.Output(),
            "What a regular expression finds in a text, one per line; empty if it finds nothing.",
            ["regex extract", "regex", "pattern extract", "text parser", "parse text"],
        )

    @classmethod
    def execute(cls, string, regex_pattern, mode, group_index=1, **switches):
        return io.NodeOutput("\n".join(EXTRACTIONS[mode](string, regex_pattern, group_index, switches)))


class RegexReplace(io.ComfyNode):
    """Another text where a pattern fits."""

    @classmethod
    def define_schema(cls):
        count = "How many are replaced at most; 0 for all."
        return _schema(
            "RegexReplace",
            "Replace Text (Regex)",
            [
                _text(),
                _text("regex_pattern"),
                _text("replace", tooltip=r"\1 stands for what the first pair of parentheses found."),
                *_switches(optional=True),
                io.Int.Input("count", default=0, min=0, max=100, advanced=True, optional=True, tooltip=count),
            ],
            io.String.Output(),
            "Puts a text wherever a regular expression fits.",
            ["regex replace", "regex", "pattern replace", "substitution"],
        )

    @classmethod
    def execute(
        cls, string, regex_pattern, replace, case_insensitive=True, multiline=False, dotall=False, count=0
    ):
        switches = {"case_insensitive": case_insensitive, "multiline": multiline, "dotall": dotall}
        return io.NodeOutput(_search("sub", regex_pattern, replace, string, count=count, **switches))


class JsonExtractString(io.ComfyNode):
    """A value of a JSON object."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "JsonExtractString",
            "Extract Text from JSON",
            [_text("json_string"), io.String.Input("key")],
            io.String.Output(),
            "The value of a key in a JSON object as a text; empty if there is none or the text is no JSON.",
            ["json", "extract json", "parse json", "json value", "read json"],
        )

    @classmethod
    def execute(cls, json_string, key):
        try:
            value = json.loads(json_string)
        except (ValueError, RecursionError):
            return io.NodeOutput("")
        found = value.get(key) if isinstance(value, dict) else None
        return io.NodeOutput("" if found is None else str(found))


def _indent():
    return io.Int.Input("indent", default=2, min=0, max=8, tooltip="Blanks per level; 0 for one line.")


def _as_json(value, indent):
    try:
        return io.NodeOutput(json.dumps(value, ensure_ascii=False, indent=indent or None))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The value cannot be written as JSON: {error}. Link texts, numbers, lists."
        ) from error


class ConvertDictionaryToString(io.ComfyNode):
    """A dictionary as JSON."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "ConvertDictionaryToString",
            "Convert Dictionary to String",
            [io.Dict.Input("dictionary"), _indent()],
            io.String.Output(),
            "Writes a dictionary as JSON.",
            ["json", "dict to json", "stringify", "serialize", "dict to string"],
        )

    @classmethod
    def execute(cls, dictionary, indent=2):
        return _as_json(dictionary, indent)


class ConvertArrayToString(io.ComfyNode):
    """A list as JSON."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "ConvertArrayToString",
            "Convert Array to String",
            [io.Array.Input("array"), _indent()],
            io.String.Output(),
            "Writes a list as JSON.",
            ["json", "list to json", "stringify", "serialize", "list to string", "array to json"],
        )

    @classmethod
    def execute(cls, array, indent=2):
        return _as_json(array, indent)


class StringExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            StringFormat, StringConcatenate, StringSubstring, StringLength, CaseConverter, StringTrim,
            StringReplace, StringContains, StringCompare, RegexMatch, RegexExtract, RegexReplace,
            JsonExtractString, ConvertDictionaryToString, ConvertArrayToString,
        ]  # fmt: skip


def comfy_entrypoint():
    return StringExtension()

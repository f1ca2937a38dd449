"""Nodes of numbers, texts and choices: their interface, and what they give for given values."""

import asyncio
import importlib
import inspect
import json
import math
import re
import time

import pytest

import folder_paths
from comfy_extras import (
    nodes_json_prompt,
    nodes_logic,
    nodes_math,
    nodes_number_convert,
    nodes_preview_any,
    nodes_string,
    nodes_text,
    nodes_toolkit,
)
from tests.comfy_execution.rig import Rig, make, node, nodes

A_TEXT, REGEX = "string", "string regex_pattern"
SWITCHES = "case_insensitive multiline dotall"


def classes_of(topic):
    """Node classes of a topic by their names in prompts."""
    module = importlib.import_module(f"comfy_extras.nodes_{topic}")
    if hasattr(module, "NODE_CLASS_MAPPINGS"):
        return module.NODE_CLASS_MAPPINGS
    extension = module.comfy_entrypoint()
    extension = asyncio.run(extension) if inspect.isawaitable(extension) else extension
    return {one.GET_SCHEMA().node_id: one for one in asyncio.run(extension.get_node_list())}


def names_and_types(node_class):
    declared = node_class.INPUT_TYPES()
    names = [*declared["required"], *declared.get("optional", ())]
    return " ".join(names), " ".join(node_class.RETURN_TYPES)


@pytest.mark.parametrize(("topic", "name", "inputs", "outputs"), [
    ("primitive", "PrimitiveString", "value", "STRING"),
    ("primitive", "PrimitiveStringMultiline", "value", "STRING"),
    ("primitive", "PrimitiveInt", "value", "INT"),
    ("primitive", "PrimitiveFloat", "value", "FLOAT"),
    ("primitive", "PrimitiveBoolean", "value", "BOOLEAN"),
    ("seed", "SeedNode", "seed", "INT"),
    ("nop", "wanBlockSwap", "model", "MODEL"),
    ("logic", "ComfySwitchNode", "switch on_false on_true", "COMFY_MATCHTYPE_V3"),
    ("logic", "CustomCombo", "choice", "STRING INT"),
    ("logic", "ComfyNotNode", "value", "BOOLEAN"),
    ("logic", "ComfyAndNode", "values", "BOOLEAN"),
    ("logic", "ComfyOrNode", "values", "BOOLEAN"),
    ("math", "ComfyMathExpression", "expression values", "FLOAT INT BOOLEAN"),
    ("number_convert", "ComfyNumberConvert", "value", "FLOAT INT"),
    ("toolkit", "CreateList", "inputs", "COMFY_MATCHTYPE_V3"),
    ("toolkit", "GetItemFromList", "list index", "*"),
    ("loop", "StartLoop", "mode cache_iterations parent_iteration initial_iteration_value",
     "INT BOOLEAN BOOLEAN COMFY_MATCHTYPE_V3 COMFY_MATCHTYPE_V3"),
    ("loop", "EndLoop", "accumulate output_value next_iteration_value terminations", "COMFY_MATCHTYPE_V3"),
    ("preview_any", "PreviewAny", "source", "STRING"),
    ("text", "SaveText", "text filename_prefix format", "STRING"),
    ("json_prompt", "BuildJsonPromptIdeogram", "element high_level_description background style aesthetics "
     "lighting medium color_palette", "DICT"),
    ("string", "StringFormat", "values f_string", "STRING"),
    ("string", "StringConcatenate", "string_a string_b delimiter", "STRING"),
    ("string", "StringSubstring", "string start end", "STRING"),
    ("string", "StringLength", A_TEXT, "INT"),
    ("string", "CaseConverter", "string mode", "STRING"),
    ("string", "StringTrim", "string mode", "STRING"),
    ("string", "StringReplace", "string find replace", "STRING"),
    ("string", "StringContains", "string substring case_sensitive", "BOOLEAN"),
    ("string", "StringCompare", "string_a string_b mode case_sensitive", "BOOLEAN"),
    ("string", "RegexMatch", f"{REGEX} {SWITCHES}", "BOOLEAN"),
    ("string", "RegexExtract", f"{REGEX} mode {SWITCHES} group_index", "STRING"),
    ("string", "RegexReplace", f"{REGEX} replace {SWITCHES} count", "STRING"),
    ("string", "JsonExtractString", "json_string key", "STRING"),
    ("string", "ConvertDictionaryToString", "dictionary indent", "STRING"),
    ("string", "ConvertArrayToString", "array indent", "STRING"),
])  # fmt: skip
def test_inputs_and_outputs_are_those_of_workflows(topic, name, inputs, outputs):
    assert names_and_types(classes_of(topic)[name]) == (inputs, outputs)


@pytest.fixture
def rig():
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    rig = Rig()
    for topic in ("logic", "toolkit", "primitive"):
        rig.add(**classes_of(topic))
    yield rig
    nodes.NODE_CLASS_MAPPINGS.clear()
    nodes.NODE_CLASS_MAPPINGS.update(before)


@pytest.mark.parametrize(("switch", "ran"), [(True, 1), (False, 2)])
def test_a_switch_runs_only_the_side_that_it_gives(rig, switch, ran):
    prompt = {
        "1": node("Number", value=1),
        "2": node("Number", value=2),
        "choose": node("PrimitiveBoolean", value=switch),
        "switch": node("ComfySwitchNode", switch=["choose", 0], on_true=["1", 0], on_false=["2", 0]),
        "show": node("Show", value=["switch", 0]),
    }
    assert rig.run(prompt).outputs["show"] == {"text": [ran]}
    assert [call for call in rig.calls if call[0] == "Number"] == [("Number", ran)]


def test_a_list_is_made_and_its_items_are_found(rig):
    prompt = {
        "1": node("Number", value=7),
        "2": node("Range", value=2),
        "list": node("CreateList", **{"inputs.input0": ["1", 0], "inputs.input1": ["2", 0]}),
        "all": node("Show", value=["list", 0]),
        "last": node("GetItemFromList", list=["list", 0], index=-1),
        "one": node("Show", value=["last", 0]),
    }
    assert rig.run(prompt).outputs == {"all": {"text": [7, 0, 1]}, "one": {"text": [1]}}


def test_an_item_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="no item 2 in a list of 2"):
        nodes_toolkit.GetItemFromList.execute([1, 2], [2])


@pytest.mark.parametrize(("class_type", "values", "expected"), [
    ("ComfyAndNode", [1, "x", True], True), ("ComfyAndNode", [1, 0], False),
    ("ComfyOrNode", [0, "", 3], True), ("ComfyOrNode", [0, ""], False),
])  # fmt: skip
def test_truths_are_joined(rig, class_type, values, expected):
    rig.add(Any=make(lambda self, value: (value,), {"value": ("*", {})}, returns=("*",)))
    prompt = {f"v{number}": node("Any", value=value) for number, value in enumerate(values)}
    links = {f"values.value{number}": [f"v{number}", 0] for number in range(len(values))}
    result = rig.run({**prompt, "join": node(class_type, **links), "show": node("Show", value=["join", 0])})
    assert result.outputs["show"] == {"text": [expected]}


def test_the_entries_of_a_custom_combo_come_with_the_prompt(rig):
    chosen = node("CustomCombo", choice="blue", index=1, option1="red", option2="blue")
    shown = {"s": node("Show", value=["c", 0]), "i": node("Show", value=["c", 1])}
    assert rig.run({"c": chosen, **shown}).outputs == {"s": {"text": ["blue"]}, "i": {"text": [1]}}


def test_not_is_true_for_what_is_empty():
    assert [nodes_logic.NotNode.execute(value)[0] for value in (0, "", [], 1, "x")] == [True] * 3 + [
        False
    ] * 2


VALUES = {"a": 7, "b": 2.5, "c": True}


@pytest.mark.parametrize("expression", [
    "a + b", "a // 2 - -b", "a % 4 ** 2", "(a if b > 2 else 0) * 3", "a > 3 and c", "not c or a == 7",
    "max(a, b, 10) / min(a, b)", "round(b * 1.111, 2)", "abs(-a)", "a << 3", "a >> 1", "2 ** -3",
    "ceil(b) + floor(b) * 10", "int(b) + float(a)", "pow(a, 2)", "a ** b",
])  # fmt: skip
def test_formulas_have_the_value_that_python_gives(expression):
    names = {"ceil": math.ceil, "floor": math.floor}
    expected = eval(expression, names, dict(VALUES))
    result = nodes_math.MathExpressionNode.execute(expression, VALUES).result
    assert result == (pytest.approx(float(expected)), int(expected), bool(expected))
    assert [type(value) for value in result] == [float, int, bool]


@pytest.mark.parametrize(("expression", "expected"), [
    ("sum(values)", 10.5), ("sum(a, b)", 9.5), ("values[1] * 2", 5.0),
    ("sqrt(16) + log2(8) + log10(100)", 9.0),
    ("sin(0) + cos(0) + tan(0) + log(1)", 1.0),
])  # fmt: skip
def test_formulas_know_all_values_and_functions(expression, expected):
    assert nodes_math.MathExpressionNode.execute(expression, VALUES)[0] == pytest.approx(expected)


HOSTILE = {
    "9 ** 9 ** 9": "beyond 4000",
    "pow(9, 5000)": "beyond 4000",
    "(9 ** 4000) ** 4000": "bits",
    "10 ** 4000 * 10 ** 4000": "bits",
    "1 << 10 ** 9": "bits",
    "round(5, -1000000000)": "beyond 4000",
    "'%999999999d' % 1": "only numbers",
    "'a' * 999999999": "only numbers",
    "f'{a}'": "only numbers",
    "().__class__": "only numbers",
    "(lambda: 1)()": "only numbers",
    "[x for x in values]": "",
    "__import__('os')": "only numbers",
    "open(a)": "open",
    "exec(a)": "exec",
    "unknown + 1": "unknown",
    "a +": "cannot be read",
    "a; b": "cannot be read",
    "1" + "+1" * 4990: "",
    "(" * 500 + "1" + ")" * 500: "",
    "1 " * 6000: "characters",
    "9" * 6000: "",
    "1 / 0": "division",
    "sqrt(-1)": "",
    "1e308 * 10": "inf",
    "values": "not a number",
    "(-8) ** 0.5": "not a number",
}


@pytest.mark.parametrize("expression", HOSTILE, ids=[text[:24] for text in HOSTILE])
def test_hostile_formulas_are_refused_at_once(expression):
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"cannot be computed: .*It may use \+ -") as caught:
        nodes_math.MathExpressionNode.execute(expression, VALUES)
    assert HOSTILE[expression] in str(caught.value) and len(str(caught.value)) < 1000
    assert time.monotonic() - begin < 1.0


def test_an_empty_formula_is_refused():
    with pytest.raises(ValueError, match="expression is empty"):
        nodes_math.MathExpressionNode.execute("  ", VALUES)


BIG = 2**60 + 1


@pytest.mark.parametrize(("value", "expected"), [
    (3, (3.0, 3)), (-2.9, (-2.9, -2)), (True, (1.0, 1)), (" 12 ", (12.0, 12)), ("-1.5e1", (-15.0, -15)),
    (str(BIG), (float(BIG), BIG)),
])  # fmt: skip
def test_numbers_are_made_of_other_values(value, expected):
    result = nodes_number_convert.NumberConvertNode.execute(value).result
    assert result == expected and [type(one) for one in result] == [float, int]


@pytest.mark.parametrize(("value", "message"), [
    ("", "no number"), ("a dog", "no number"), ("nan", "finite"), (math.inf, "finite"),
    ("1" + "0" * 400, "finite"),
])  # fmt: skip
def test_what_is_no_number_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        nodes_number_convert.NumberConvertNode.execute(value)


def test_other_things_than_numbers_and_texts_are_no_number():
    with pytest.raises(TypeError, match="A list cannot be made a number"):
        nodes_number_convert.NumberConvertNode.execute([1])


def given(name, *values, **more):
    return getattr(nodes_string, name).execute(*values, **more)[0]


@pytest.mark.parametrize(("name", "values", "expected"), [
    ("StringFormat", ("{a} is {b:.1f}", {"a": "x", "b": 1.25}), "x is 1.2"),
    ("StringConcatenate", ("a", "b", ", "), "a, b"),
    ("StringSubstring", ("abcdef", 1, -1), "bcde"),
    ("StringLength", ("äöü",), 3),
    ("CaseConverter", ("aB cD", "UPPERCASE"), "AB CD"),
    ("CaseConverter", ("aB cD", "lowercase"), "ab cd"),
    ("CaseConverter", ("aB cD", "Capitalize"), "Ab cd"),
    ("CaseConverter", ("aB cD", "Title Case"), "Ab Cd"),
    ("StringTrim", (" \n a ", "Both"), "a"),
    ("StringTrim", ("  a ", "Left"), "a "),
    ("StringTrim", (" a  ", "Right"), " a"),
    ("StringReplace", ("a.a", "a", "$1"), "$1.$1"),
    ("StringContains", ("Hello", "ELL", True), False),
    ("StringContains", ("Hello", "ELL", False), True),
    ("StringCompare", ("Hello", "he", "Starts With", False), True),
    ("StringCompare", ("Hello", "he", "Starts With", True), False),
    ("StringCompare", ("Hello", "LO", "Ends With", False), True),
    ("StringCompare", ("Hello", "hello", "Equal", True), False),
    ("StringCompare", ("Hello", "hello", "Equal", False), True),
    ("JsonExtractString", ('{"a": 1.5, "b": null}', "a"), "1.5"),
    ("JsonExtractString", ('{"a": 1.5, "b": null}', "b"), ""),
    ("JsonExtractString", ("no json", "a"), ""),
    ("JsonExtractString", ("[1]", "a"), ""),
    ("ConvertDictionaryToString", ({"ä": [1]}, 0), '{"ä": [1]}'),
    ("ConvertArrayToString", ([1, "x"], 2), '[\n  1,\n  "x"\n]'),
])  # fmt: skip
def test_texts_are_changed(name, values, expected):
    assert given(name, *values) == expected


@pytest.mark.parametrize("name", ["ConvertDictionaryToString", "ConvertArrayToString"])
def test_what_json_has_no_form_for_is_refused(name):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        given(name, {"x": object()}, 2)


@pytest.mark.parametrize("template", ["{z}", "{a", "{a:.2q}", "{}", "{a.b}"])
def test_a_template_that_cannot_be_filled_in_says_what_it_may_name(template):
    with pytest.raises(ValueError, match=r"cannot be filled in.*linked values: a"):
        given("StringFormat", template, {"a": 1})


SWITCHED_OFF = {"case_insensitive": False, "multiline": False, "dotall": False}
PATTERNS = [
    (r"(\w+) (\w+)", "one two\nthree four", {}), (r"^t", "one\ntwo", {"multiline": True}),
    (r"^t", "one\ntwo", {}),
    (r"e.t", "one\ntwo", {"dotall": True}), (r"e.t", "one\ntwo", {}),
    ("ONE", "one", {"case_insensitive": True}),
    ("ONE", "one", {}), (r"(a)?(b)", "b ab", {}), (r"x*", "axb", {}), (r"\d{2,3}?", "12345", {}),
    ("q", "abc", {}),
]  # fmt: skip
NAMES = {"case_insensitive": re.I, "multiline": re.M, "dotall": re.S}


@pytest.mark.parametrize(("pattern", "text", "switches"), PATTERNS)
def test_patterns_find_what_pythons_own_find(pattern, text, switches):
    chosen = {**SWITCHED_OFF, **switches}
    own = re.compile(pattern, sum(NAMES[name] for name, is_on in chosen.items() if is_on))
    first = own.search(text)
    assert given("RegexMatch", text, pattern, **chosen) is (first is not None)
    assert given("RegexReplace", text, pattern, r"<\g<0>>", **chosen) == own.sub(r"<\g<0>>", text)
    assert given("RegexReplace", text, pattern, "-", count=1, **chosen) == own.sub("-", text, count=1)

    def extract(mode, group=1):
        return given("RegexExtract", text, pattern, mode, group_index=group, **chosen)

    assert extract("First Match") == (first.group() if first else "")
    lines = [one[0] if isinstance(one, tuple) else one for one in own.findall(text)]
    assert extract("All Matches") == "\n".join(lines)
    has_second = own.groups >= 2
    assert extract("First Group", 2) == (first.group(2) if first and has_second else "")
    assert extract("All Groups", 2) == "\n".join(m.group(2) for m in own.finditer(text) if has_second)


@pytest.mark.parametrize("name", ["RegexMatch", "RegexExtract", "RegexReplace"])
def test_a_pattern_that_cannot_be_read_is_an_error(name):
    more = {"RegexMatch": (), "RegexExtract": ("First Match",), "RegexReplace": ("x",)}[name]
    with pytest.raises(ValueError, match=r"'\(' is no regular expression that can be used"):
        given(name, "text", "(", *more, **SWITCHED_OFF)


@pytest.mark.parametrize("mode", ["First Match", "All Groups"])
def test_a_pattern_that_takes_for_ever_is_stopped(mode, monkeypatch):
    monkeypatch.setattr(nodes_string, "LONGEST_SEARCH_SECONDS", 0.2)
    with pytest.raises(ValueError, match="takes longer than 0.2 s"):
        given("RegexExtract", "a" * 40 + "!", r"((a|a)+)+$", mode, **SWITCHED_OFF)


@pytest.mark.parametrize(("value", "text"), [
    ("plain", "plain"), (1.5, "1.5"), (True, "True"), (None, "None"),
    ({"ä": [1]}, '{\n    "ä": [\n        1\n    ]\n}'),
    ({1, }, "{1}"),
])  # fmt: skip
def test_any_value_is_shown_as_a_text(value, text):
    assert nodes_preview_any.PreviewAny().main(value) == {"ui": {"text": (text,)}, "result": (text,)}


def saved_text(text, format):
    output = nodes_text.SaveTextNode.execute(text, "notes/n", format)
    (file,) = output.ui["files"]
    assert output.result == (text,) and file["subfolder"] == "notes" and file["type"] == "output"
    with open(f"{folder_paths.get_output_directory()}/notes/{file['filename']}", encoding="utf-8") as opened:
        return file["filename"], opened.read()


def test_texts_are_saved_one_file_each(monkeypatch, tmp_path):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    assert saved_text("ä\n", "txt") == ("n_00001.txt", "ä\n")
    assert saved_text("b", "md") == ("n_00002.md", "b")
    assert saved_text('{"a":[1]}', "json") == ("n_00003.json", json.dumps({"a": [1]}, indent=2))
    assert saved_text("no json", "json") == ("n_00004.json", "no json")


def test_an_unknown_format_of_texts_is_refused():
    with pytest.raises(ValueError, match="not saved as 'exe'. Choose one of: txt, csv"):
        nodes_text.SaveTextNode.execute("x", "x", "exe")


@pytest.mark.parametrize(("style", "described"), [
    ({"style": "none"}, None),
    ({"style": "photo", "photo": "50 mm"}, {
        "aesthetics": "calm", "lighting": "soft",
        "photo": "50 mm", "medium": "film", "color_palette": ["#00FF00"]}),
    ({"style": "art_style", "art_style": "flat"}, {
        "aesthetics": "calm", "lighting": "soft",
        "medium": "film", "art_style": "flat", "color_palette": ["#00FF00"]}),
])  # fmt: skip
def test_a_caption_is_built_in_the_order_of_its_keys(style, described):
    build = nodes_json_prompt.BuildJsonPromptIdeogram.execute
    caption = build([{"type": "obj"}], style, "a house", "sky", "calm", "soft", "film", ["#00ff00", ""])[0]
    expected = {"high_level_description": "a house"}
    expected |= {} if described is None else {"style_description": described}
    expected["compositional_deconstruction"] = {"background": "sky", "elements": [{"type": "obj"}]}
    assert json.dumps(caption) == json.dumps(expected)
    assert "high_level_description" not in build(None, style)[0]

"""Nodes that change texts, one by one. `nodes_dataset` registers them."""

from __future__ import annotations

from comfy_api.latest import io


def _texts():
    return io.String.Output(display_name="texts", is_output_list=None)


class TextToLowercaseNode(io.ComfyNode):
    """Small letters."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextToLowercase",
            display_name="Convert Text to Lowercase (DEPRECATED)",
            category="text",
            description="Makes texts of small letters.",
            search_aliases=["lowercase"],
            inputs=[
                io.String.Input("texts"),
            ],
            outputs=[_texts()],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts):
        return io.NodeOutput(texts.lower())


class TextToUppercaseNode(io.ComfyNode):
    """Capital letters."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextToUppercase",
            display_name="Convert Text to Uppercase (DEPRECATED)",
            category="text",
            description="Makes texts of capital letters.",
            search_aliases=["uppercase"],
            inputs=[
                io.String.Input("texts"),
            ],
            outputs=[_texts()],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts):
        return io.NodeOutput(texts.upper())


class TruncateTextNode(io.ComfyNode):
    """The beginning of texts."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TruncateText",
            display_name="Truncate Text",
            category="text",
            description="Cuts texts that are too long.",
            search_aliases=["truncate", "cut", "shorten"],
            inputs=[
                io.String.Input("texts"),
                io.Int.Input("max_length", default=77, min=1, max=10000),
            ],
            outputs=[_texts()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts, max_length):
        return io.NodeOutput(texts[:max_length])


class AddTextPrefixNode(io.ComfyNode):
    """Something before texts."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AddTextPrefix",
            display_name="Add Text Prefix (DEPRECATED)",
            category="text",
            description="Puts something before texts.",
            inputs=[
                io.String.Input("texts"),
                io.String.Input("prefix", default=""),
            ],
            outputs=[_texts()],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts, prefix):
        return io.NodeOutput(prefix + texts)


class AddTextSuffixNode(io.ComfyNode):
    """Something after texts."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AddTextSuffix",
            display_name="Add Text Suffix (DEPRECATED)",
            category="text",
            description="Puts something after texts.",
            inputs=[
                io.String.Input("texts"),
                io.String.Input("suffix", default=""),
            ],
            outputs=[_texts()],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts, suffix):
        return io.NodeOutput(texts + suffix)


class ReplaceTextNode(io.ComfyNode):
    """Other words."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ReplaceText",
            display_name="Replace Text (DEPRECATED)",
            category="text",
            description="Replaces words in texts.",
            inputs=[
                io.String.Input("texts"),
                io.String.Input("find", default=""),
                io.String.Input("replace", default=""),
            ],
            outputs=[_texts()],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts, find, replace):
        return io.NodeOutput(texts.replace(find, replace))


class StripWhitespaceNode(io.ComfyNode):
    """Nothing around texts."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StripWhitespace",
            display_name="Strip Whitespace (DEPRECATED)",
            category="text",
            description="Takes spaces and new lines off at both ends.",
            inputs=[
                io.String.Input("texts"),
            ],
            outputs=[_texts()],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts):
        return io.NodeOutput(texts.strip())


class MergeTextListsNode(io.ComfyNode):
    """Lists as one."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MergeTextLists",
            display_name="Merge Text Lists (DEPRECATED)",
            category="text",
            description="Gives all texts that come in as one list.",
            inputs=[
                io.String.Input("texts"),
            ],
            outputs=[_texts()],
            is_input_list=True,
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, texts):
        return io.NodeOutput(texts)

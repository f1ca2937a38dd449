"""Single values that are written in the graph."""

from __future__ import annotations

import sys

from comfy_api.latest import ComfyExtension, io


class _Value(io.ComfyNode):
    """Hands on what is written in it."""

    @classmethod
    def execute(cls, value):
        return io.NodeOutput(value)


def _schema(node_id, title, kind, value, **more):
    return io.Schema(node_id, title, "utilities/primitive", inputs=[value], outputs=[kind.Output()], **more)


class String(_Value):
    """A line of text."""

    @classmethod
    def define_schema(cls):
        aliases = ["text", "string", "text box", "prompt"]
        return _schema("PrimitiveString", "Text", io.String, io.String.Input("value"), search_aliases=aliases)


class StringMultiline(_Value):
    """A text of several lines."""

    @classmethod
    def define_schema(cls):
        return _schema(
            "PrimitiveStringMultiline",
            "Text (Multiline)",
            io.String,
            io.String.Input("value", multiline=True),
            search_aliases=["text", "string", "text multiline", "string multiline", "text box", "prompt"],
            essentials_category="Basics",
        )


class Int(_Value):
    """A whole number."""

    @classmethod
    def define_schema(cls):
        value = io.Int.Input(
            "value",
            min=-sys.maxsize,
            max=sys.maxsize,
            control_after_generate=io.ControlAfterGenerate.fixed,
        )
        return _schema("PrimitiveInt", "Int", io.Int, value)


class Float(_Value):
    """A number."""

    @classmethod
    def define_schema(cls):
        value = io.Float.Input("value", min=-sys.maxsize, max=sys.maxsize, step=0.1)
        return _schema("PrimitiveFloat", "Float", io.Float, value)


class Boolean(_Value):
    """Yes or no."""

    @classmethod
    def define_schema(cls):
        return _schema("PrimitiveBoolean", "Boolean", io.Boolean, io.Boolean.Input("value"))


class PrimitivesExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [String, StringMultiline, Int, Float, Boolean]


def comfy_entrypoint():
    return PrimitivesExtension()

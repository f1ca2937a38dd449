"""Numbers out of texts and switches."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io


def _number(value):
    """The int or float that a value stands for."""
    if isinstance(value, (bool, int, float)):
        return int(value) if isinstance(value, bool) else value
    if not isinstance(value, str):
        raise TypeError(f"A {type(value).__name__} cannot be made a number. Link a number, text or boolean.")
    text = value.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"The text {value[:100]!r} is no number. Write one such as 12, -0.5 or 1e3.")


class NumberConvertNode(io.ComfyNode):
    """A value as both kinds of number."""

    @classmethod
    def define_schema(cls):
        kinds = [io.Int, io.Float, io.String, io.Boolean]
        return io.Schema(
            node_id="ComfyNumberConvert",
            display_name="Convert Number",
            category="utilities",
            description="Makes a number of a text or boolean. Whole numbers lose what follows the point.",
            search_aliases=[
                "int to float", "float to int", "number convert", "int2float", "float2int", "cast",
                "parse number", "string to number", "bool to int",
            ],
            inputs=[io.MultiType.Input("value", kinds, display_name="value")],
            outputs=[io.Float.Output(display_name="FLOAT"), io.Int.Output(display_name="INT")],
        )  # fmt: skip

    @classmethod
    def execute(cls, value):
        number = _number(value)
        try:
            as_float = float(number)
        except OverflowError:
            as_float = math.inf
        if not math.isfinite(as_float):
            raise ValueError(f"{str(value)[:100]!r} is no finite number. Give one that a float can hold.")
        return io.NodeOutput(as_float, int(number))


class NumberConvertExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [NumberConvertNode]


def comfy_entrypoint():
    return NumberConvertExtension()

"""Colours as values."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class ColorToRGBInt(io.ComfyNode):
    """A colour as a number and as a text."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ColorToRGBInt",
            display_name="Color Picker",
            category="utilities",
            description="A colour as red * 65536 + green * 256 + blue, as #rrggbb, and its opacity.",
            inputs=[
                io.Color.Input("color", default="#ffffff"),
            ],
            outputs=[
                io.Int.Output(display_name="rgb_int"),
                io.Color.Output(display_name="hex"),
                io.Float.Output(display_name="alpha"),
            ],
        )

    @classmethod
    def execute(cls, color):
        import re

        found = re.fullmatch(r"(#([0-9a-fA-F]{6}))([0-9a-fA-F]{2})?", color)
        if found is None:
            raise ValueError(
                f"{color!r} is no colour. Write it as #rrggbb, or as #rrggbbaa with its opacity."
            )
        text, digits, alpha = found.groups()
        return io.NodeOutput(int(digits, 16), text, 1.0 if alpha is None else int(alpha, 16) / 255)


class ColorExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [ColorToRGBInt]


def comfy_entrypoint():
    return ColorExtension()

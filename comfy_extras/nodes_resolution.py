"""Sizes of pictures from proportions and areas."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io

ASPECT_RATIOS = {
    "1:1 (Square)": (1, 1),
    "2:3 (Portrait Photo)": (2, 3),
    "3:2 (Photo)": (3, 2),
    "3:4 (Portrait Standard)": (3, 4),
    "4:3 (Standard)": (4, 3),
    "9:16 (Portrait Widescreen)": (9, 16),
    "16:9 (Widescreen)": (16, 9),
    "21:9 (Ultrawide)": (21, 9),
}


class ResolutionSelector(io.ComfyNode):
    """Width and height."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ResolutionSelector",
            display_name="Resolution Selector",
            category="utilities",
            description="Width and height of a picture with these proportions and this area.",
            inputs=[
                io.Combo.Input(
                    "aspect_ratio",
                    options=list(ASPECT_RATIOS),
                    default="1:1 (Square)",
                    tooltip="Width to height.",
                ),
                io.Float.Input(
                    "megapixels", default=1.0, min=0.1, max=16.0, step=0.1, tooltip="Of 1024 x 1024 pixels."
                ),
                io.Int.Input(
                    "multiple",
                    default=8,
                    min=8,
                    max=128,
                    step=4,
                    advanced=True,
                    tooltip="Width and height are rounded to multiples of this.",
                ),
            ],
            outputs=[io.Int.Output(display_name="width"), io.Int.Output(display_name="height")],
        )

    @classmethod
    def execute(cls, aspect_ratio, megapixels, multiple):
        sides = ASPECT_RATIOS[aspect_ratio]
        scale = math.sqrt(megapixels * 1024 * 1024 / math.prod(sides))
        return io.NodeOutput(*(round(side * scale / multiple) * multiple for side in sides))


class ResolutionExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [ResolutionSelector]


def comfy_entrypoint():
    return ResolutionExtension()

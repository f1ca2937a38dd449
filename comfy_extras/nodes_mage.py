"""Mage-Flow: pictures edited by an instruction."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, sides_out

TextEncodeMageFlowEdit = absent_node(
    "TextEncodeMageFlowEdit",
    "Mage",
    category="model/conditioning/mage",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.String.Input("negative_prompt", multiline=True, dynamic_prompts=True, advanced=True),
        io.Autogrow.Input(
            "images",
            io.Autogrow.TemplateNames(
                io.Image.Input("image"),
                names=[
                    "image_1",
                    "image_2",
                    "image_3",
                    "image_4",
                    "image_5",
                    "image_6",
                    "image_7",
                    "image_8",
                    "image_9",
                    "image_10",
                    "image_11",
                    "image_12",
                    "image_13",
                    "image_14",
                    "image_15",
                    "image_16",
                ],
                min=0,
            ),
        ),
        io.Int.Input("width", default=0, min=0, max=8192, step=16),
        io.Int.Input("height", default=0, min=0, max=8192, step=16),
        batch_size(),
        io.Vae.Input("vae", optional=True),
    ],
    outputs=lambda: sides_out(),
)


class MageExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeMageFlowEdit]


def comfy_entrypoint():
    return MageExtension()

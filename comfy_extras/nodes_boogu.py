"""Boogu: pictures edited by an instruction."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import sides_out

TextEncodeBooguEdit = absent_node(
    "TextEncodeBooguEdit",
    "Boogu",
    category="model/conditioning/boogu",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.String.Input("negative_prompt", multiline=True, dynamic_prompts=True, advanced=True),
        io.Vae.Input("vae"),
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
    ],
    outputs=lambda: sides_out(latent=False),
)


class BooguExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeBooguEdit]


def comfy_entrypoint():
    return BooguExtension()

"""Ming-Image: pictures edited by an instruction."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

TextEncodeMingImageEdit = absent_node(
    "TextEncodeMingImageEdit",
    "Ming-Image",
    display_name="Text Encode (Ming-Image Edit)",
    category="model/conditioning/ming",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
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
                ],
                min=0,
            ),
            optional=True,
        ),
        io.Vae.Input("vae", optional=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


class MingExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeMingImageEdit]


def comfy_entrypoint():
    return MingExtension()

"""FIBO 2: prompts with pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, frame_size, sides_out

TextEncodeFibo2 = absent_node(
    "TextEncodeFibo2",
    "FIBO 2",
    display_name="Text Encode (FIBO 2)",
    category="model/conditioning/fibo",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
        io.String.Input("negative_prompt", default="", multiline=True, dynamic_prompts=True),
        *frame_size(0, 0, low=0),
        batch_size(),
        io.Autogrow.Input(
            "images",
            io.Autogrow.TemplateNames(
                io.Image.Input("image"), names=["image_1", "image_2", "image_3", "image_4"], min=0
            ),
            optional=True,
        ),
        io.Vae.Input("vae", optional=True),
    ],
    outputs=lambda: sides_out(),
)


class Fibo2Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeFibo2]


def comfy_entrypoint():
    return Fibo2Extension()

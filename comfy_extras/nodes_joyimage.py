"""JoyImage: pictures edited by an instruction."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

TextEncodeJoyImageEdit = absent_node(
    "TextEncodeJoyImageEdit",
    "JoyImage",
    category="model/conditioning/joyimage",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.Vae.Input("vae", optional=True),
        io.Autogrow.Input(
            "images",
            io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=0, max=6),
            optional=True,
        ),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


class JoyimageExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeJoyImageEdit]


def comfy_entrypoint():
    return JoyimageExtension()

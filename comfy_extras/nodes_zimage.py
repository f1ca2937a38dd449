"""Z-Image Omni: prompts with pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

TextEncodeZImageOmni = absent_node(
    "TextEncodeZImageOmni",
    "Z-Image Omni",
    category="model/conditioning/z-image",
    is_experimental=True,
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.Boolean.Input("auto_resize_images", default=True, advanced=True),
        io.ClipVision.Input("image_encoder", optional=True),
        io.Vae.Input("vae", optional=True),
        io.Image.Input("image1", optional=True),
        io.Image.Input("image2", optional=True),
        io.Image.Input("image3", optional=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


class ZimageExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeZImageOmni]


def comfy_entrypoint():
    return ZimageExtension()

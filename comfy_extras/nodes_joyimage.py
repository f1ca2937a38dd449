"""JoyImage: pictures edited by an instruction."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import encoded, sized

# Sides of the pictures that JoyImage was taught, in 64 pixels: {height: the smallest and the largest width}.
_WIDTHS = {
    8: (28, 32), 9: (25, 28), 10: (23, 25), 11: (21, 23), 12: (19, 21), 13: (18, 19), 14: (17, 18),
    15: (16, 17), 16: (15, 16), 17: (14, 15), 18: (13, 14), 19: (12, 13), 20: (12, 12), 21: (11, 12),
    22: (11, 11), 23: (10, 11), 24: (10, 10), 25: (9, 10), 26: (9, 9), 27: (9, 9), 28: (8, 9), 29: (8, 8),
    30: (8, 8), 31: (8, 8), 32: (8, 8),
}  # fmt: skip
SIZES = [(64 * high, 64 * wide) for high, (low, most) in _WIDTHS.items() for wide in range(low, most + 1)]
"""(height, width) in pixels."""


def _in_known_size(image):
    if len(image) != 1:
        raise ValueError(
            f"TextEncodeJoyImageEdit takes single pictures, but was given a batch of {len(image)}."
        )
    shape = image.shape[1] / image.shape[2]
    height, width = min(SIZES, key=lambda size: abs(size[0] / size[1] - shape))
    return sized(image, width, height)[..., :3]


class TextEncodeJoyImageEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeJoyImageEdit",
            category="model/conditioning/joyimage",
            description="Encodes an instruction with the pictures that it is about.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.Vae.Input("vae", optional=True),
                io.Autogrow.Input(
                    "images",
                    io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=0, max=6),
                    optional=True,
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, prompt, vae=None, images=None):
        pictures = [_in_known_size(image) for image in (images or {}).values()]
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt, images=pictures))
        if vae is not None and pictures:
            latents = {"reference_latents": [encoded(vae, picture) for picture in pictures]}
            conditioning = node_helpers.conditioning_set_values(conditioning, latents, append=True)
        return io.NodeOutput(conditioning)


class JoyimageExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeJoyImageEdit]


def comfy_entrypoint():
    return JoyimageExtension()

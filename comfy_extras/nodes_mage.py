"""Mage-Flow: pictures edited by an instruction."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import both, encoded, numbered, sized, zeros
from comfy_extras.video_inputs import batch_size, sides_out

LONGEST_SEEN = 384
"""Pictures are at most so long, in pixels, for the language model."""


def _seen(image):
    height, width = image.shape[1:3]
    if max(height, width) <= LONGEST_SEEN:
        return image
    scale = LONGEST_SEEN / max(height, width)
    sides = (max(1, round(side * scale)) for side in (width, height))
    return sized(image, *sides, method="bicubic", crop="disabled")


def _fitted(image, width, height):
    if tuple(image.shape[1:3]) == (height, width):
        return image
    return sized(image, width, height, method="bicubic", crop="disabled")


class TextEncodeMageFlowEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeMageFlowEdit",
            category="model/conditioning/mage",
            description=(
                "Encodes an instruction with the pictures that it is about; they take the size of the "
                "result, which is that of the first one if width and height are 0."
            ),
            inputs=[
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
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls, clip, prompt, negative_prompt="", vae=None, images=None, width=0, height=0, batch_size=1
    ):
        pictures = numbered(images)
        high, wide = pictures[0].shape[1:3] if pictures else (1024, 1024)
        height, width = (max(16, side // 16 * 16) for side in (height or high, width or wide))
        seen = [_seen(picture) for picture in pictures]
        positive, negative = (
            clip.encode_from_tokens_scheduled(clip.tokenize(text, images=seen))
            for text in (prompt, negative_prompt or " ")
        )
        if vae is not None and pictures:
            latents = [encoded(vae, _fitted(picture, width, height)) for picture in pictures]
            positive, negative = both(positive, negative, {"reference_latents": latents}, append=True)
        samples = zeros(batch_size, 128, height // 16, width // 16)
        return io.NodeOutput(positive, negative, {"samples": samples})


class MageExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeMageFlowEdit]


def comfy_entrypoint():
    return MageExtension()

"""Z-Image Omni: prompts with pictures."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import with_area


def _texts_around(count):
    """The pieces of text around so many pictures."""
    between = ["<|vision_end|><|vision_start|>"] * (count - 1)
    return ["<|im_start|>user\n<|vision_start|>", *between, "<|vision_end|><|im_end|>"] if count else []


_AFTER_PICTURES = "<|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n<|vision_start|>"


class TextEncodeZImageOmni(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeZImageOmni",
            category="model/conditioning/z-image",
            description="Encodes a prompt with up to three pictures, for Z-Image Omni.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.Boolean.Input("auto_resize_images", default=True, advanced=True),
                io.ClipVision.Input("image_encoder", optional=True),
                io.Vae.Input("vae", optional=True),
                io.Image.Input("image1", optional=True),
                io.Image.Input("image2", optional=True),
                io.Image.Input("image3", optional=True),
            ],
            outputs=[io.Conditioning.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls,
        clip,
        prompt,
        image_encoder=None,
        auto_resize_images=True,
        vae=None,
        image1=None,
        image2=None,
        image3=None,
    ):
        pictures = [image for image in (image1, image2, image3) if image is not None]
        tokens = clip.tokenize(prompt, llama_template=_AFTER_PICTURES if pictures else None)
        conditioning = clip.encode_from_tokens_scheduled(tokens)
        values = {}
        if vae is not None and pictures:
            area = [
                with_area(one, 1024 * 1024, multiple=8) if auto_resize_images else one for one in pictures
            ]
            values["reference_latents"] = [vae.encode(picture) for picture in area]
        if image_encoder is not None and pictures:
            values["clip_vision_outputs"] = [image_encoder.encode_image(picture) for picture in pictures]
        if pictures:
            around = (clip.tokenize(text, llama_template="{}") for text in _texts_around(len(pictures)))
            values["reference_latents_text_embeds"] = [
                clip.encode_from_tokens_scheduled(one)[0][0] for one in around
            ]
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, values, append=True))


class ZimageExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeZImageOmni]


def comfy_entrypoint():
    return ZimageExtension()

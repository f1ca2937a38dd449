"""Qwen-Image: prompts with pictures, and latents of several layers."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_conditioning import encoded, with_area, zeros
from comfy_extras.video_inputs import batch_size, frame_size, sides_out

# The words around a prompt that Qwen-Image-Edit was taught.
_EDIT_TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a "
    "new image that meets the user's requirements while maintaining consistency with the original input "
    "where appropriate.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_PICTURE = "Picture {}: <|vision_start|><|image_pad|><|vision_end|>"


def _with_references(conditioning, latents):
    if not latents:
        return conditioning
    return node_helpers.conditioning_set_values(conditioning, {"reference_latents": latents}, append=True)


class TextEncodeQwenImageEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeQwenImageEdit",
            category="model/conditioning/qwen image",
            description="Encodes an instruction with the picture that it is about, for Qwen-Image-Edit.",
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.Vae.Input("vae", optional=True),
                io.Image.Input("image", optional=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, prompt, vae=None, image=None):
        pictures = [] if image is None else [with_area(image, 1024 * 1024)[..., :3]]
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(prompt, images=pictures))
        latents = [] if vae is None else [encoded(vae, picture) for picture in pictures]
        return io.NodeOutput(_with_references(conditioning, latents))


class TextEncodeQwenImageEditPlus(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextEncodeQwenImageEditPlus",
            category="model/conditioning/qwen image",
            description=(
                "Encodes an instruction with up to three pictures, for Qwen-Image-Edit 2509 and later."
            ),
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("prompt", multiline=True, dynamic_prompts=True),
                io.Vae.Input("vae", optional=True),
                io.Image.Input("image1", optional=True),
                io.Image.Input("image2", optional=True),
                io.Image.Input("image3", optional=True),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, clip, prompt, vae=None, image1=None, image2=None, image3=None):
        given = {
            number: image for number, image in enumerate((image1, image2, image3), 1) if image is not None
        }
        seen = [with_area(image, 384 * 384) for image in given.values()]
        text = "".join(_PICTURE.format(number) for number in given) + prompt
        tokens = clip.tokenize(text, images=seen, llama_template=_EDIT_TEMPLATE)
        conditioning = clip.encode_from_tokens_scheduled(tokens)
        pictures = (
            [] if vae is None else [with_area(image, 1024 * 1024, multiple=8) for image in given.values()]
        )
        return io.NodeOutput(_with_references(conditioning, [encoded(vae, picture) for picture in pictures]))


class EmptyQwenImageLayeredLatentImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyQwenImageLayeredLatentImage",
            display_name="Empty Qwen Image Layered Latent",
            category="model/latent/qwen",
            description="An empty latent for Qwen-Image-Layered: the picture and its layers.",
            inputs=[
                *frame_size(640, 640),
                io.Int.Input("layers", default=3, min=0, max=MAX_RESOLUTION, step=1),
                batch_size(),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, layers, batch_size=1):
        return io.NodeOutput({"samples": zeros(batch_size, 16, layers + 1, height // 8, width // 8)})


QwenImage21Cache = absent_node(
    "QwenImage21Cache",
    "Qwen-Image",
    display_name="Qwen-Image 2.1 Cache",
    category="model/patch/qwen",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Combo.Input("device", options=["auto", "gpu", "cpu"], default="auto"),
        io.Combo.Input("dtype", options=["default", "fp8"], default="default"),
    ],
    outputs=lambda: [io.Model.Output()],
)


TextEncodeQwenImage21 = absent_node(
    "TextEncodeQwenImage21",
    "Qwen-Image",
    display_name="Text Encode (Qwen-Image 2.1)",
    category="model/conditioning/qwen",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
        io.String.Input("negative_prompt", default="", multiline=True, dynamic_prompts=True),
        io.Int.Input("resolution", default=1024, min=0, max=MAX_RESOLUTION, step=8),
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
                ],
                min=0,
            ),
            optional=True,
        ),
        io.Vae.Input("vae", optional=True),
    ],
    outputs=lambda: sides_out(),
)


class QwenExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            TextEncodeQwenImageEdit,
            TextEncodeQwenImageEditPlus,
            EmptyQwenImageLayeredLatentImage,
            QwenImage21Cache,
            TextEncodeQwenImage21,
        ]


def comfy_entrypoint():
    return QwenExtension()

"""Qwen-Image: prompts with pictures, and latents of several layers."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import batch_size, frame_size, sides_out

TextEncodeQwenImageEdit = absent_node(
    "TextEncodeQwenImageEdit",
    "Qwen-Image",
    category="model/conditioning/qwen image",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.Vae.Input("vae", optional=True),
        io.Image.Input("image", optional=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


TextEncodeQwenImageEditPlus = absent_node(
    "TextEncodeQwenImageEditPlus",
    "Qwen-Image",
    category="model/conditioning/qwen image",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.Vae.Input("vae", optional=True),
        io.Image.Input("image1", optional=True),
        io.Image.Input("image2", optional=True),
        io.Image.Input("image3", optional=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


EmptyQwenImageLayeredLatentImage = absent_node(
    "EmptyQwenImageLayeredLatentImage",
    "Qwen-Image",
    display_name="Empty Qwen Image Layered Latent",
    category="model/latent/qwen",
    inputs=lambda: [
        *frame_size(640, 640),
        io.Int.Input("layers", default=3, min=0, max=MAX_RESOLUTION, step=1),
        batch_size(),
    ],
    outputs=lambda: [io.Latent.Output()],
)


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

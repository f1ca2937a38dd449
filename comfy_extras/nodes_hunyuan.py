"""Hunyuan: text encoding, empty latents, and videos that begin with a picture."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, frame_size, guided, sides_out, video_size

CLIPTextEncodeHunyuanDiT = absent_node(
    "CLIPTextEncodeHunyuanDiT",
    "Hunyuan",
    display_name="CLIP Text Encode (Hunyuan Image)",
    category="model/conditioning/hunyuan image",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("bert", multiline=True, dynamic_prompts=True),
        io.String.Input("mt5xl", multiline=True, dynamic_prompts=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


TextEncodeHunyuanVideo_ImageToVideo = absent_node(
    "TextEncodeHunyuanVideo_ImageToVideo",
    "Hunyuan",
    category="model/conditioning/hunyuan video",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.ClipVisionOutput.Input("clip_vision_output"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        io.Int.Input("image_interleave", default=2, min=1, max=512, advanced=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


EmptyHunyuanLatentVideo = absent_node(
    "EmptyHunyuanLatentVideo",
    "Hunyuan",
    display_name="Empty HunyuanVideo 1.0 Latent",
    category="model/latent/hunyuan video",
    inputs=lambda: video_size(848, 480, 25),
    outputs=lambda: [io.Latent.Output()],
)


EmptyHunyuanVideo15Latent = absent_node(
    "EmptyHunyuanVideo15Latent",
    "Hunyuan",
    display_name="Empty HunyuanVideo 1.5 Latent",
    category="model/latent/hunyuan video",
    inputs=lambda: video_size(848, 480, 25),
    outputs=lambda: [io.Latent.Output()],
)


HunyuanVideo15ImageToVideo = absent_node(
    "HunyuanVideo15ImageToVideo",
    "Hunyuan",
    category="model/conditioning/hunyuan video",
    inputs=lambda: [
        *guided(),
        *video_size(848, 480, 33),
        io.Image.Input("start_image", optional=True),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
    ],
    outputs=lambda: sides_out(),
)


HunyuanVideo15SuperResolution = absent_node(
    "HunyuanVideo15SuperResolution",
    "Hunyuan",
    display_name="Hunyuan Video 1.5 Super Resolution",
    category="model/conditioning/hunyuan video",
    inputs=lambda: [
        *guided(vae=False),
        io.Latent.Input("latent"),
        io.Float.Input("noise_augmentation", default=0.7, min=0.0, max=1.0, step=0.01, advanced=True),
        io.Vae.Input("vae", optional=True),
        io.Image.Input("start_image", optional=True),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
    ],
    outputs=lambda: sides_out(),
)


HunyuanVideo15LatentUpscaleWithModel = absent_node(
    "HunyuanVideo15LatentUpscaleWithModel",
    "Hunyuan",
    display_name="Hunyuan Video 15 Latent Upscale With Model",
    category="model/latent/hunyhuan video",
    inputs=lambda: [
        io.LatentUpscaleModel.Input("model"),
        io.Latent.Input("samples"),
        io.Combo.Input(
            "upscale_method",
            options=["nearest-exact", "bilinear", "area", "bicubic", "bislerp"],
            default="bilinear",
        ),
        *frame_size(1280, 720, low=0, step=8),
        io.Combo.Input("crop", options=["disabled", "center"]),
    ],
    outputs=lambda: [io.Latent.Output()],
)


LatentUpscaleModelLoader = absent_node(
    "LatentUpscaleModelLoader",
    "HunyuanVideo 1.5 and LTX-Video latent upscaling",
    display_name="Load Latent Upscale Model",
    category="model/loaders",
    description="Loads a network that makes latents larger.",
    inputs=lambda: [
        io.Combo.Input("model_name", options=folder_paths.get_filename_list("latent_upscale_models"))
    ],
    outputs=lambda: [io.LatentUpscaleModel.Output()],
)


HunyuanImageToVideo = absent_node(
    "HunyuanImageToVideo",
    "Hunyuan",
    category="model/conditioning/hunyuan video",
    inputs=lambda: [
        io.Conditioning.Input("positive"),
        io.Vae.Input("vae"),
        *video_size(848, 480, 53),
        io.Combo.Input("guidance_type", options=["v1 (concat)", "v2 (replace)", "custom"], advanced=True),
        io.Image.Input("start_image", optional=True),
    ],
    outputs=lambda: [
        io.Conditioning.Output(display_name="positive"),
        io.Latent.Output(display_name="latent"),
    ],
)


EmptyHunyuanImageLatent = absent_node(
    "EmptyHunyuanImageLatent",
    "Hunyuan",
    category="model/latent/hunyuan image",
    inputs=lambda: [*frame_size(2048, 2048, low=64, step=32), batch_size()],
    outputs=lambda: [io.Latent.Output()],
)


HunyuanRefinerLatent = absent_node(
    "HunyuanRefinerLatent",
    "Hunyuan",
    display_name="Hunyuan Latent Refiner",
    category="model/conditioning/hunyuan video",
    inputs=lambda: [
        *guided(vae=False),
        io.Latent.Input("latent"),
        io.Float.Input("noise_augmentation", default=0.1, min=0.0, max=1.0, step=0.01, advanced=True),
    ],
    outputs=lambda: sides_out(),
)


class HunyuanExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            CLIPTextEncodeHunyuanDiT,
            TextEncodeHunyuanVideo_ImageToVideo,
            EmptyHunyuanLatentVideo,
            EmptyHunyuanVideo15Latent,
            HunyuanVideo15ImageToVideo,
            HunyuanVideo15SuperResolution,
            HunyuanVideo15LatentUpscaleWithModel,
            LatentUpscaleModelLoader,
            HunyuanImageToVideo,
            EmptyHunyuanImageLatent,
            HunyuanRefinerLatent,
        ]


def comfy_entrypoint():
    return HunyuanExtension()

"""Stable Cascade: latents of its stages."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, frame_size

StableCascade_EmptyLatentImage = absent_node(
    "StableCascade_EmptyLatentImage",
    "Stable Cascade",
    category="model/latent/stable cascade",
    inputs=lambda: [
        *frame_size(1024, 1024, low=256, step=8),
        io.Int.Input("compression", default=42, min=4, max=128, step=1, advanced=True),
        batch_size(),
    ],
    outputs=lambda: [io.Latent.Output(display_name="stage_c"), io.Latent.Output(display_name="stage_b")],
)


StableCascade_StageB_Conditioning = absent_node(
    "StableCascade_StageB_Conditioning",
    "Stable Cascade",
    category="model/conditioning/stable cascade",
    inputs=lambda: [io.Conditioning.Input("conditioning"), io.Latent.Input("stage_c")],
    outputs=lambda: [io.Conditioning.Output()],
)


StableCascade_StageC_VAEEncode = absent_node(
    "StableCascade_StageC_VAEEncode",
    "Stable Cascade",
    category="model/latent/stable cascade",
    inputs=lambda: [
        io.Image.Input("image"),
        io.Vae.Input("vae"),
        io.Int.Input("compression", default=42, min=4, max=128, step=1, advanced=True),
    ],
    outputs=lambda: [io.Latent.Output(display_name="stage_c"), io.Latent.Output(display_name="stage_b")],
)


StableCascade_SuperResolutionControlnet = absent_node(
    "StableCascade_SuperResolutionControlnet",
    "Stable Cascade",
    category="experimental/stable cascade",
    is_experimental=True,
    inputs=lambda: [io.Image.Input("image"), io.Vae.Input("vae")],
    outputs=lambda: [
        io.Image.Output(display_name="controlnet_input"),
        io.Latent.Output(display_name="stage_c"),
        io.Latent.Output(display_name="stage_b"),
    ],
)


class StableCascadeExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            StableCascade_EmptyLatentImage,
            StableCascade_StageB_Conditioning,
            StableCascade_StageC_VAEEncode,
            StableCascade_SuperResolutionControlnet,
        ]


def comfy_entrypoint():
    return StableCascadeExtension()

"""Stable Cascade: latents of its stages."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import encoded, sized
from comfy_extras.video_inputs import batch_size, frame_size


def _empty(count, channels, height, width):
    import torch

    return {"samples": torch.zeros(count, channels, height, width)}


class StableCascade_EmptyLatentImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StableCascade_EmptyLatentImage",
            category="model/latent/stable cascade",
            description="Empty latents for both stages of Stable Cascade.",
            inputs=[
                *frame_size(1024, 1024, low=256, step=8),
                io.Int.Input("compression", default=42, min=4, max=128, step=1, advanced=True),
                batch_size(),
            ],
            outputs=[io.Latent.Output(display_name="stage_c"), io.Latent.Output(display_name="stage_b")],
        )

    @classmethod
    def execute(cls, width, height, compression, batch_size=1):
        stage_c = _empty(batch_size, 16, height // compression, width // compression)
        return io.NodeOutput(stage_c, _empty(batch_size, 4, height // 4, width // 4))


class StableCascade_StageB_Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StableCascade_StageB_Conditioning",
            category="model/conditioning/stable cascade",
            description="Gives stage B the latent of stage C.",
            inputs=[io.Conditioning.Input("conditioning"), io.Latent.Input("stage_c")],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, conditioning, stage_c):
        prior = {"stable_cascade_prior": stage_c["samples"]}
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, prior))


class StableCascade_StageC_VAEEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StableCascade_StageC_VAEEncode",
            category="model/latent/stable cascade",
            description="A picture as latent of stage C, and an empty latent for stage B.",
            inputs=[
                io.Image.Input("image"),
                io.Vae.Input("vae"),
                io.Int.Input("compression", default=42, min=4, max=128, step=1, advanced=True),
            ],
            outputs=[io.Latent.Output(display_name="stage_c"), io.Latent.Output(display_name="stage_b")],
        )

    @classmethod
    def execute(cls, image, vae, compression):
        height, width = image.shape[1:3]
        size = (side // compression * vae.downscale_ratio for side in (width, height))
        latent = encoded(vae, sized(image, *size, method="bicubic"))
        return io.NodeOutput({"samples": latent}, _empty(len(latent), 4, height // 8 * 2, width // 8 * 2))


class StableCascade_SuperResolutionControlnet(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StableCascade_SuperResolutionControlnet",
            category="experimental/stable cascade",
            description="A picture for the ControlNet that enlarges, with empty latents.",
            inputs=[io.Image.Input("image"), io.Vae.Input("vae")],
            outputs=[
                io.Image.Output(display_name="controlnet_input"),
                io.Latent.Output(display_name="stage_c"),
                io.Latent.Output(display_name="stage_b"),
            ],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, image, vae):
        count, height, width = image.shape[:3]
        control = encoded(vae, image).movedim(1, -1)
        stage_c = _empty(count, 16, height // 16, width // 16)
        return io.NodeOutput(control, stage_c, _empty(count, 4, height // 2, width // 2))


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

"""Conditioning of Stable Diffusion's 4x upscaler."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.nodes_controlnet import sides, sides_out

SCALE = 4  # of the model: from the small picture, which latents are as large as, to the result


class SD_4XUpscale_Conditioning(io.ComfyNode):  # noqa: N801 - a name that workflows use
    """The small picture, and how much noise it is given."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SD_4XUpscale_Conditioning",
            category="model/conditioning/stable diffusion upscaler",
            description="Lets the 4x upscaler see the small picture.",
            inputs=[
                io.Image.Input("images"),
                *sides(),
                io.Float.Input("scale_ratio", default=4.0, min=0.0, max=10.0, step=0.01),
                io.Float.Input(
                    "noise_augmentation", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True,
                    tooltip="Noise on the small picture; more lets the model invent more.",
                ),
            ],
            outputs=[*sides_out(), io.Latent.Output(display_name="latent")],
        )  # fmt: skip

    @classmethod
    def execute(cls, images, positive, negative, scale_ratio, noise_augmentation):
        import torch

        import comfy.utils

        height, width = (max(1, round(side * scale_ratio)) // SCALE for side in images.shape[1:3])
        centred = images.movedim(-1, 1) * 2.0 - 1.0
        small = comfy.utils.common_upscale(centred, width, height, "bilinear", "center")
        values = {"concat_image": small, "noise_augmentation": noise_augmentation}
        told = [node_helpers.conditioning_set_values(side, values) for side in (positive, negative)]
        return io.NodeOutput(*told, {"samples": torch.zeros(images.shape[0], 4, height, width)})

    encode = execute


class SDUpscaleExtension(ComfyExtension):
    async def get_node_list(self):
        return [SD_4XUpscale_Conditioning]


async def comfy_entrypoint():
    return SDUpscaleExtension()

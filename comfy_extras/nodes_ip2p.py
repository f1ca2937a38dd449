"""Pictures changed by instructions: InstructPix2Pix (arXiv:2211.09800)."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import PIXELS_PER_LATENT
from comfy_extras.nodes_controlnet import sides, sides_out


class InstructPixToPixConditioning(io.ComfyNode):
    """The picture as channels beside the noise."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="InstructPixToPixConditioning",
            category="model/conditioning/instructpix2pix",
            description="Lets models that change pictures by instructions see the picture.",
            inputs=[*sides(), io.Vae.Input("vae"), io.Image.Input("pixels")],
            outputs=[*sides_out(), io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, positive, negative, pixels, vae):
        import torch

        for axis in (1, 2):  # the middle, in whole latent pixels
            over = pixels.shape[axis] % PIXELS_PER_LATENT
            pixels = pixels.narrow(axis, over // 2, pixels.shape[axis] - over)
        seen = vae.encode(pixels)
        told = [
            node_helpers.conditioning_set_values(side, {"concat_latent_image": seen})
            for side in (positive, negative)
        ]
        return io.NodeOutput(*told, {"samples": torch.zeros_like(seen)})

    encode = execute


class InstructPix2PixExtension(ComfyExtension):
    async def get_node_list(self):
        return [InstructPixToPixConditioning]


async def comfy_entrypoint():
    return InstructPix2PixExtension()

"""Latents of LTX-Video made larger."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

LTXVLatentUpsampler = absent_node(
    "LTXVLatentUpsampler",
    "LTX-Video latent upsampler",
    category="model/latent/ltxv",
    is_experimental=True,
    inputs=lambda: [
        io.Latent.Input("samples"),
        io.LatentUpscaleModel.Input("upscale_model"),
        io.Vae.Input("vae"),
    ],
    outputs=lambda: [io.Latent.Output()],
)


class LtUpsamplerExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LTXVLatentUpsampler]


def comfy_entrypoint():
    return LtUpsamplerExtension()

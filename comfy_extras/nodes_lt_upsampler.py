"""Latents of LTX-Video made larger."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class LTXVLatentUpsampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVLatentUpsampler",
            category="model/latent/ltxv",
            description="Makes a latent twice as large with a network.",
            inputs=[
                io.Latent.Input("samples"),
                io.LatentUpscaleModel.Input("upscale_model"),
                io.Vae.Input("vae"),
            ],
            outputs=[io.Latent.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, samples, upscale_model, vae):
        import math

        import comfy.model_management

        latent = samples["samples"]
        comfy.model_management.load_models_gpu(
            [upscale_model], memory_required=math.prod(latent.shape) * 3000.0
        )
        statistics = vae.first_stage_model.per_channel_statistics
        inside = latent.to(device=upscale_model.load_device, dtype=upscale_model.model_dtype())
        larger = statistics.normalize(upscale_model.model(statistics.un_normalize(inside)))
        larger = larger.to(device=comfy.model_management.intermediate_device(), dtype=latent.dtype)
        return io.NodeOutput(
            {**{name: value for name, value in samples.items() if name != "noise_mask"}, "samples": larger}
        )

    upsample_latent = execute  # the name that node packs call


class LtUpsamplerExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LTXVLatentUpsampler]


def comfy_entrypoint():
    return LtUpsamplerExtension()

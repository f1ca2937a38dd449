"""PiD: pictures decoded by diffusion in pixels."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io


class PiDConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PiDConditioning",
            display_name="PiD Conditioning",
            category="model/conditioning",
            description="Gives the latent that PiD decodes or enlarges, and how much noise is in it.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Latent.Input("latent"),
                io.Combo.Input("latent_format", options=["flux", "sd3", "sdxl", "qwenimage"], default="flux"),
                io.Float.Input("degrade_sigma", default=0.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, positive, latent, latent_format, degrade_sigma):
        import torch

        import comfy.latent_formats
        from comfy_extras.video_conditioning import WAN21_MEAN, WAN21_STD

        samples = latent["samples"]
        if latent_format == "flux" and samples.shape[1] == 128:
            inside = samples  # Flux.2: as it is
        elif latent_format == "flux":
            inside = comfy.latent_formats.Flux().process_in(samples)
        elif latent_format == "sd3":
            inside = (samples - 0.0609) * 1.5305
        elif latent_format == "sdxl":
            inside = comfy.latent_formats.SDXL().process_in(samples)
        else:
            axes = (1, -1, *[1] * (samples.ndim - 2))
            mean, deviation = (samples.new_tensor(one).view(axes) for one in (WAN21_MEAN, WAN21_STD))
            inside = (samples - mean) / deviation
        if inside.ndim == 5:
            inside = inside[:, :, 0]
        values = {"lq_latent": inside, "degrade_sigma": torch.tensor([float(degrade_sigma)])}
        return io.NodeOutput(node_helpers.conditioning_set_values(positive, values))


class PidExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [PiDConditioning]


def comfy_entrypoint():
    return PidExtension()

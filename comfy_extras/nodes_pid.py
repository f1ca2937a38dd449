"""PiD: pictures decoded by diffusion in pixels."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

PiDConditioning = absent_node(
    "PiDConditioning",
    "PiD",
    display_name="PiD Conditioning",
    category="model/conditioning",
    inputs=lambda: [
        io.Conditioning.Input("positive"),
        io.Latent.Input("latent"),
        io.Combo.Input("latent_format", options=["flux", "sd3", "sdxl", "qwenimage"], default="flux"),
        io.Float.Input("degrade_sigma", default=0.0, min=0.0, max=1.0, step=0.01),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


class PidExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [PiDConditioning]


def comfy_entrypoint():
    return PidExtension()

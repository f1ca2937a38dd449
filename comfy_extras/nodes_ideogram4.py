"""The noise levels of Ideogram 4: times that are logit-normal, shifted by the size of the picture."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io

# Between these logarithms of the ratio of signal to noise the times are kept.
LOG_SNR_MIN, LOG_SNR_MAX = -15.0, 18.0
# The size, in pixels, at which nothing is shifted.
PIXELS = 512 * 512


def ideogram4_sigmas(num_steps: int, width: int, height: int, mu: float, std: float):
    """`num_steps` + 1 falling noise levels: quantiles of a logistic of a normal; the last one is 0."""
    import torch

    mean = mu + 0.5 * math.log(width * height / PIXELS)
    quantiles = torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64)
    sigmas = torch.special.expit(mean + std * torch.special.ndtri(quantiles))
    least, most = (1 / (1 + math.exp(0.5 * bound)) for bound in (LOG_SNR_MAX, LOG_SNR_MIN))
    sigmas = sigmas.clamp(1.0 - most, 1.0 - least)
    sigmas[-1] = 0.0
    return sigmas.float()


class Ideogram4Scheduler(io.ComfyNode):
    """See `ideogram4_sigmas`."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Ideogram4Scheduler",
            display_name="Ideogram 4 Scheduler",
            category="model/sampling/schedulers",
            description="The noise levels that Ideogram 4 was made for.",
            inputs=[
                io.Int.Input("steps", default=20, min=1, max=200),
                io.Int.Input("width", default=1024, min=256, max=8192, step=16),
                io.Int.Input("height", default=1024, min=256, max=8192, step=16),
                io.Float.Input(
                    "mu", default=0.0, min=-10.0, max=10.0, step=0.05, tooltip="More gives more noisy steps."
                ),
                io.Float.Input(
                    "std", default=1.75, min=0.1, max=5.0, step=0.05, tooltip="How widely levels are spread."
                ),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, steps, width, height, mu, std):
        return io.NodeOutput(ideogram4_sigmas(steps, width, height, mu, std))

    get_sigmas = execute


class Ideogram4Extension(ComfyExtension):
    async def get_node_list(self):
        return [Ideogram4Scheduler]


async def comfy_entrypoint():
    return Ideogram4Extension()

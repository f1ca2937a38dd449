"""The noise levels of GITS: few steps along the straightest parts of the path (arXiv:2405.11326)."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.nodes_align_your_steps import loglinear_interp


def __getattr__(name):
    """The table under the name that packs know; it is read when it is named."""
    if name == "NOISE_LEVELS":
        from comfy_extras import gits_levels

        return {strength: gits_levels.levels_of(strength) for strength in gits_levels.strengths()}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def last_steps(levels, steps: int, denoise: float):
    """SIGMAS of the last share `denoise` of a schedule; the last level becomes 0."""
    import torch

    if denoise <= 0.0:
        return torch.FloatTensor([])
    count = steps if denoise >= 1.0 else round(steps * denoise)
    sigmas = torch.tensor([float(level) for level in levels][-(count + 1) :], dtype=torch.float32)
    sigmas[-1] = 0
    return sigmas


class GITSScheduler(io.ComfyNode):
    """Levels from a table, for SD1 and models with its schedule."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GITSScheduler",
            category="model/sampling/schedulers",
            description="Noise levels for few steps with models that have SD1's schedule.",
            inputs=[
                io.Float.Input(
                    "coeff", default=1.2, min=0.8, max=1.5, step=0.05, advanced=True,
                    tooltip="How much curved parts of the path count when steps are chosen.",
                ),
                io.Int.Input("steps", default=10, min=2, max=1000),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Sigmas.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, coeff, steps, denoise):
        from comfy_extras import gits_levels

        table = gits_levels.levels_of(coeff)
        levels = table[steps - 2] if steps - 2 < len(table) else loglinear_interp(table[-1], steps + 1)
        return io.NodeOutput(last_steps(levels, steps, denoise))

    get_sigmas = execute


class GITSSchedulerExtension(ComfyExtension):
    async def get_node_list(self):
        return [GITSScheduler]


async def comfy_entrypoint():
    return GITSSchedulerExtension()

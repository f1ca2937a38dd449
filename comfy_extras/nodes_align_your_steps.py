"""Noise levels that were optimised for a model."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input, int_input

# For ten steps (Sabour et al. 2024, published with the paper).
NOISE_LEVELS = {
    "SD1": [14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
            0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582],
    "SDXL": [14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
             0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582],
    "SVD": [700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002],
}  # fmt: skip


def loglinear_interp(t_steps, num_steps):
    """`num_steps` numbers through those of a falling list, even in the logarithm, as an array."""
    import numpy as np

    levels = np.array(t_steps)
    places = np.linspace(0, len(levels) - 1, num_steps)
    return np.exp(np.interp(places, np.arange(len(levels)), np.log(levels)))


class AlignYourStepsScheduler:
    DESCRIPTION = "Noise levels for few steps: for ten as published, for others between them."
    RETURN_TYPES = ("SIGMAS",)
    FUNCTION = "get_sigmas"
    CATEGORY = "sampling/custom_sampling/schedulers"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model_type": (list(NOISE_LEVELS),),
                "steps": int_input(10, 1, 10000),
                "denoise": float_input(1.0, 0.0, 1.0),
            }
        }

    def get_sigmas(self, model_type, steps, denoise):
        import numpy as np
        import torch

        if denoise <= 0.0:
            return (torch.FloatTensor([]),)
        levels = np.array(NOISE_LEVELS[model_type])
        if steps + 1 != len(levels):  # between two published ones
            levels = loglinear_interp(levels, steps + 1)
        levels = levels[-(round(steps * denoise) + 1) :].copy()
        levels[-1] = 0
        return (torch.FloatTensor(levels.tolist()),)


NODE_CLASS_MAPPINGS = {"AlignYourStepsScheduler": AlignYourStepsScheduler}

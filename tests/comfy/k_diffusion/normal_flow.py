"""Normal data, whose best denoiser and whose probability flow are known, for models of both kinds."""

import math

import torch

import comfy.model_sampling

MEAN, SPREAD = 0.7, 0.5


class _Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    pass


class NormalData:
    """A denoiser E[x0 | x] of variance-exploding noise, or of a flow: x = (1 - sigma) x0 + sigma noise."""

    def __init__(self, is_flow=False):
        self.is_flow = is_flow
        self.inner_model = self  # where samplers look for the schedule
        self.model_sampling = _Flow() if is_flow else None
        self.asked = []  # the noise level of every evaluation

    def __call__(self, x, sigma, **extra):
        self.asked.append(float(sigma[0]))
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        signal = self._signal(sigma)
        gain = signal * SPREAD**2 / (signal**2 * SPREAD**2 + sigma**2)
        return MEAN + gain * (x - signal * MEAN)

    def _signal(self, sigma):
        return 1 - sigma if self.is_flow else 1.0

    def _deviation(self, sigma):
        return math.sqrt(self._signal(sigma) ** 2 * SPREAD**2 + sigma**2)

    def start(self, sigma, shape=(2, 4, 8, 8)):
        """A noisy latent at this level."""
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return self._signal(float(sigma)) * MEAN + self._deviation(float(sigma)) * noise

    def end(self, x, sigma_from, sigma_to):
        """The exact end of the probability flow that starts at x."""
        sigma_from, sigma_to = float(sigma_from), float(sigma_to)
        ratio = self._deviation(sigma_to) / self._deviation(sigma_from)
        return self._signal(sigma_to) * MEAN + (x - self._signal(sigma_from) * MEAN) * ratio

    def levels(self, steps):
        """Noise levels from near the top to well above zero."""
        ends = (0.95, 0.1) if self.is_flow else (10.0, 0.3)
        return torch.logspace(*(math.log10(end) for end in ends), steps + 1, dtype=torch.float64)


def measured_order(error, steps):
    """The power of the step length with which `error(steps)` falls."""
    return math.log2(error(steps) / error(2 * steps))

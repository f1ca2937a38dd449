"""Normal data: the best denoiser, the probability flow and every marginal are known in closed form."""

import math

import torch

import comfy.model_sampling

MEAN, SPREAD = 0.7, 0.5


def denoiser(x, sigma, **extra):
    """E[x0 | x] where x is x0 + sigma noise."""
    variance = sigma.reshape(-1, 1, 1, 1) ** 2
    return (SPREAD**2 * x + variance * MEAN) / (SPREAD**2 + variance)


class FlowModel:
    """E[x0 | x] where x is (1 - sigma) x0 + sigma noise, with a schedule as a sampler finds it.

    `noise_scale` is the deviation of that noise.
    """

    def __init__(self, noise_scale=1.0):
        class Schedule(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
            pass

        self.inner_model = self
        self.model_sampling = Schedule()
        self.model_sampling.noise_scale = noise_scale

    def __call__(self, x, sigma, **extra):
        sigma = sigma.reshape(-1, 1, 1, 1)
        signal = 1 - sigma
        variance = (signal * SPREAD) ** 2 + (sigma * self.model_sampling.noise_scale) ** 2
        return MEAN + signal * SPREAD**2 / variance * (x - signal * MEAN)


def marginal(model, sigma):
    """(mean, variance) of the noisy data at a level."""
    signal, noise = 1.0, float(sigma)
    if isinstance(model, FlowModel):
        signal, noise = 1 - float(sigma), float(sigma) * model.model_sampling.noise_scale
    return signal * MEAN, (signal * SPREAD) ** 2 + noise**2


def flow(model, x, sigma, sigma_next):
    """Where the probability flow that is at x arrives: each sample keeps its number of deviations."""
    (mean, variance), (mean_next, variance_next) = marginal(model, sigma), marginal(model, sigma_next)
    return mean_next + (x - mean) * math.sqrt(variance_next / variance)


def draw(model, sigma, shape=(2, 4, 8, 8)):
    """Noisy data at a level, with a fixed seed, in double precision."""
    mean, variance = marginal(model, sigma)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return mean + math.sqrt(variance) * noise


def moments(sample, model, sigmas):
    """(mean, variance) of what `sample(model, x, sigmas, noise_sampler=...)` makes of the data's first level.

    Without error of sampling: all is linear, so each row of a batch is given one source of chance - the start
    or one draw - at the size of one, and the first row none.
    """
    rows = 4 * len(sigmas) + 2
    x = torch.zeros((rows, 1, 1, 1), dtype=torch.float64)
    mean, variance = marginal(model, sigmas[0])
    x += mean
    x[1] += math.sqrt(variance)
    impulses = iter(torch.eye(rows, dtype=torch.float64)[2:])
    out = sample(
        model, x, sigmas, noise_sampler=lambda *_: next(impulses).reshape(x.shape), disable=True
    ).flatten()
    return float(out[0]), float(((out[1:] - out[0]) ** 2).sum())

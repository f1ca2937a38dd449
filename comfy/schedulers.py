"""Noise schedules that read a model's table or time: descending levels that end in 0, on the CPU."""

import math

import torch

from comfy.k_diffusion.schedules import append_zero


def simple_scheduler(model_sampling, steps):
    """Every n-th level of the model's table, from its end."""
    table = model_sampling.sigmas
    stride = len(table) / steps
    return torch.FloatTensor([float(table[-(1 + int(i * stride))]) for i in range(steps)] + [0.0])


def ddim_scheduler(model_sampling, steps):
    """Every n-th level of the model's table, from its start; may give a step more than asked for."""
    table = model_sampling.sigmas
    levels = [0.0]
    if math.isclose(float(table[1]), 0, abs_tol=0.00001):
        steps, levels = steps + 1, []
    stride = max(len(table) // steps, 1)
    levels += [float(sigma) for sigma in table[1::stride]]
    return torch.FloatTensor(levels[::-1])


def normal_scheduler(model_sampling, steps, sgm=False, floor=False):
    """Even steps in the model's time. `sgm`: as if the noiseless end were one more of these steps."""
    start, end = (
        float(model_sampling.timestep(s)) for s in (model_sampling.sigma_max, model_sampling.sigma_min)
    )
    reaches_zero = False
    if sgm:
        times = torch.linspace(start, end, steps + 1)[:-1]
    else:
        reaches_zero = math.isclose(float(model_sampling.sigma(torch.tensor(end))), 0, abs_tol=0.00001)
        times = torch.linspace(start, end, steps + 1 if reaches_zero else steps)
    levels = [float(model_sampling.sigma(t)) for t in times]
    return torch.FloatTensor(levels if reaches_zero else [*levels, 0.0])


def beta_scheduler(model_sampling, steps, alpha=0.6, beta=0.6):
    """Levels at the quantiles of a beta distribution (Lee et al. 2024, arXiv 2407.12173)."""
    import numpy
    from scipy.special import betaincinv  # heavy, and only this scheduler needs it

    quantiles = betaincinv(alpha, beta, 1 - numpy.linspace(0, 1, steps, endpoint=False))
    indices = numpy.rint(quantiles * (len(model_sampling.sigmas) - 1)).astype(int)
    indices = [index for i, index in enumerate(indices) if i == 0 or index != indices[i - 1]]
    return torch.FloatTensor([float(model_sampling.sigmas[index]) for index in indices] + [0.0])


def linear_quadratic_schedule(model_sampling, steps, threshold_noise=0.025, linear_steps=None):
    """Linear to `threshold_noise`, then quadratic with the same slope at the joint (Mochi, Movie Gen)."""
    if steps == 1:
        shares = [0.0, 1.0]
    else:
        linear = steps // 2 if linear_steps is None else linear_steps
        slope = threshold_noise / linear
        rest = steps - linear
        curve = (1.0 - threshold_noise - slope * rest) / rest**2
        shares = [slope * i for i in range(linear)]
        shares += [threshold_noise + slope * i + curve * i**2 for i in range(rest)] + [1.0]
    return torch.FloatTensor([1.0 - share for share in shares]) * model_sampling.sigma_max.cpu()


def kl_optimal_scheduler(n, sigma_min, sigma_max):
    """Even steps in atan(sigma) (Sabour et al. 2024, theorem 3.1)."""
    share = torch.arange(n, dtype=torch.float) / (n - 1)
    levels = (share * math.atan(sigma_min) + (1 - share) * math.atan(sigma_max)).tan()
    return append_zero(levels)

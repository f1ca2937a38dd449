"""UniPC: a unified predictor and corrector for few steps (Zhao et al. 2023, arXiv 2302.04867).

With h the length of a step in log SNR and D the denoised latent, a step from x is, in variance-exploding
terms,

    (sigma' / sigma) x + (1 - e^-h) D - B(h) sum_k rho_k (D_k - D) / r_k

D_k is the denoised latent at distance r_k h: of steps before (r_k < 0), and, for the corrector, of the end
itself (r = 1), where the network is asked anyway for the next step. The rho_k make the step exact for
denoised latents that are polynomials in the log SNR. B(h) is -h in "bh1" and e^-h - 1 in "bh2".

A flow model's latent obeys dx/dsigma = (x - D) / sigma too, so the same steps serve it.
"""

import math
from typing import NamedTuple

import torch

import comfy.model_sampling
from comfy.k_diffusion.walk import Run, is_flow, move

# Log SNR has no end: a schedule that ends in 0 is followed to this level.
LAST_SIGMA = 0.001
MAX_ORDER = 3

_STEP_SIZES = {"bh1": lambda h: -h, "bh2": lambda h: math.expm1(-h)}


def residual_weights(ratios, h, variant):
    """The weights rho_k B(h) / r_k of the differences D_k - D, for points at `ratios` of the step h.

    A single point has rho = 1/2 whatever B(h) is, as the authors recommend.
    """
    size = _STEP_SIZES[variant](h)
    if len(ratios) == 1:
        rhos = [0.5]
    else:
        nodes = torch.tensor(ratios, dtype=torch.float64)
        rows = torch.stack([nodes**k for k in range(len(ratios))])
        rhos = torch.linalg.solve(rows, torch.tensor(_moments(len(ratios), -h), dtype=torch.float64) / size)
    return [size * float(rho) / ratio for rho, ratio in zip(rhos, ratios)]


def _moments(count, h):
    """n! h phi_{n+1}(h) for n from 1, where phi_0 = exp and phi_{n+1} = (phi_n - 1/n!) / h."""
    phi, moments = math.expm1(h) / h, []
    for n in range(1, count + 1):
        phi = (phi - 1 / math.factorial(n)) / h
        moments.append(math.factorial(n) * phi * h)
    return moments


class _Step(NamedTuple):
    """One step of length `h` in log SNR from x, whose denoised latent is known, with points before it."""

    x: torch.Tensor
    denoised: torch.Tensor
    h: float
    past: list[tuple[float, torch.Tensor]]  # (ratio of the step, denoised latent)

    def end(self, variant, *more):
        """The latent at the end of the step, with the past points and `more` of them."""
        points = [*self.past, *more]
        x = move(self.x, self.denoised, math.exp(-self.h))
        weights = residual_weights([ratio for ratio, _ in points], self.h, variant) if points else []
        for weight, (_, denoised) in zip(weights, points):
            x = x - weight * (denoised - self.denoised)
        return x


def _without_zero(sigmas):
    """The schedule with a last level that has a log SNR."""
    if sigmas[-1] > 0:
        return sigmas
    last = (sigmas[-2] / 2).clamp(max=LAST_SIGMA)
    return torch.cat([sigmas[:-1], last.reshape(1)])


@torch.no_grad()
def sample_unipc(model, noise, sigmas, extra_args=None, callback=None, disable=False, variant="bh1"):
    """UniPC (Zhao et al. 2023) of third order, fewer at both ends: one evaluation a step serves both the
    correction of the step before and the prediction of the next.
    """
    if variant not in _STEP_SIZES:
        raise ValueError(f"variant is '{variant}'; uni_pc knows {', '.join(map(repr, _STEP_SIZES))}.")
    if len(sigmas) <= 1:
        return noise
    levels = _without_zero(sigmas)
    run = Run(model, noise, levels, extra_args, callback, disable)
    times = levels.detach().cpu().double().log().neg().tolist()
    steps = len(times) - 1
    x, step, history = noise, None, []  # history: (log SNR, denoised), newest first
    for i, _, _ in run.steps():
        denoised = run.first(i, x)
        if step is not None:
            x = step.end(variant, (1.0, denoised))
        h = times[i + 1] - times[i]
        if h == 0:  # a level that comes twice
            continue
        order = min(MAX_ORDER, max(1, steps - 1), i + 1, steps - i)
        past = [((time - times[i]) / h, earlier) for time, earlier in history[: order - 1]]
        step = _Step(x, denoised, h, past)
        x = step.end(variant)
        history = [(times[i], denoised), *history[: MAX_ORDER - 2]]
    return x if sigmas[-1] > 0 else _at_full_scale(x, levels[-1], run.model_sampling())


def _at_full_scale(x, sigma, schedule):
    """The latent at `sigma` for who asked for level 0, and so takes no scale out: a flow model's holds
    1 - sigma of the picture.
    """
    is_scaled = is_flow(schedule) and not isinstance(schedule, comfy.model_sampling.IMG_TO_IMG_FLOW)
    return x / (1 - sigma) if is_scaled else x


def sample_unipc_bh2(model, noise, sigmas, extra_args=None, callback=None, disable=False):
    """`sample_unipc` with B(h) = e^-h - 1."""
    return sample_unipc(model, noise, sigmas, extra_args, callback, disable, variant="bh2")

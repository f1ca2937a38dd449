"""Samplers that are no names of the KSampler but nodes: latents that grow, and another form of CFG++."""

import numpy as np
import torch

import comfy.image_scaling
from comfy.k_diffusion.walk import Run, to_d


@torch.no_grad()
def sample_lcm_upscale(
    model, x, sigmas, extra_args=None, callback=None, disable=None, total_upscale=2.0,
    upscale_method="bislerp",
    upscale_steps=None,
):  # fmt: skip
    """Latent consistency (Luo et al. 2023) whose latents grow to `total_upscale` in the first steps.

    Each step goes to the clean latent, scales it and adds the noise of the next level, which is drawn from
    torch's global generator. Without `upscale_steps` it grows in half of the steps.
    """
    run = Run(model, x, sigmas, extra_args, callback, disable)
    count = len(sigmas) // 2 if upscale_steps is None else min(upscale_steps, len(sigmas))
    factors = np.linspace(1.0, total_upscale, max(count, 1) + 1)[1:]
    height, width = x.shape[-2:]
    for i, _, sigma_next in run.steps():
        x = run.first(i, x)
        if i < len(factors):
            size = (round(width * factors[i]), round(height * factors[i]))
            x = comfy.image_scaling.common_upscale(x, *size, upscale_method, "disabled")
        if sigma_next > 0:
            x = x + sigma_next * torch.randn_like(x)
    return x


@torch.no_grad()
def sample_euler_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler steps along the guided direction, with what the negative side predicts added to it."""
    run = Run(model, x, sigmas, {} if extra_args is None else extra_args, callback, disable)
    run.keep_uncond()
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        x = x + to_d(x - denoised + run.uncond_denoised, sigma, denoised) * (sigma_next - sigma)
    return x

"""Schedules of noise, embeddings of time, and mixing of what is computed over pixels and over frames."""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
import torch.utils.checkpoint
from torch import nn

from comfy.ldm.util import instantiate_from_config, mean_flat

_SHAPES = {  # where the factor (B, frames) stands among the sides of what is mixed
    "b t -> (b t) 1 1": lambda alpha: alpha.reshape(-1, 1, 1),
    "b t -> b 1 t 1 1": lambda alpha: alpha[:, None, :, None, None],
}


class AlphaBlender(nn.Module):
    """alpha * x_spatial + (1 - alpha) * x_temporal.

    `fixed`: alpha is given; `learned`: it is the sigmoid of a weight; `learned_with_images`: frames that
    `image_only_indicator` (B, frames) marks take x_spatial alone.
    """

    strategies = ["learned", "fixed", "learned_with_images"]

    def __init__(
        self,
        alpha: float,
        merge_strategy: str = "learned_with_images",
        rearrange_pattern: str = "b t -> (b t) 1 1",
    ):
        super().__init__()
        for name, value, known in (
            ("merge_strategy", merge_strategy, self.strategies),
            ("rearrange_pattern", rearrange_pattern, list(_SHAPES)),
        ):
            if value not in known:
                raise ValueError(f"AlphaBlender: {name} is one of {known}, not {value!r}.")
        self.merge_strategy, self.rearrange_pattern = merge_strategy, rearrange_pattern
        factor = torch.tensor([float(alpha)])
        if merge_strategy == "fixed":
            self.register_buffer("mix_factor", factor)
        else:
            self.mix_factor = nn.Parameter(factor)

    def get_alpha(self, image_only_indicator, device):
        """The factor, in a shape that multiplies what is mixed."""
        factor = self.mix_factor.to(device)
        if self.merge_strategy == "fixed":
            return factor
        factor = torch.sigmoid(factor)
        if self.merge_strategy == "learned":
            return factor
        alpha = factor.unsqueeze(-1)
        if image_only_indicator is not None:
            alpha = alpha.to(image_only_indicator.device)
            alpha = torch.where(image_only_indicator.bool(), torch.ones_like(alpha), alpha)
        return _SHAPES[self.rearrange_pattern](alpha)

    def forward(self, x_spatial, x_temporal, image_only_indicator=None):
        alpha = self.get_alpha(image_only_indicator, x_spatial.device)
        return alpha.to(x_spatial.dtype) * x_spatial + (1.0 - alpha).to(x_spatial.dtype) * x_temporal


def make_beta_schedule(schedule, n_timestep, linear_start=1e-4, linear_end=2e-2, cosine_s=8e-3):
    """The variance added by each step (n_timestep,), in fp64.

    Raises:
        ValueError: no schedule has this name.
    """
    if schedule == "linear":  # linear in the root, as latent diffusion has it
        return torch.linspace(linear_start**0.5, linear_end**0.5, n_timestep, dtype=torch.float64) ** 2
    if schedule == "sqrt_linear":
        return torch.linspace(linear_start, linear_end, n_timestep, dtype=torch.float64)
    if schedule == "sqrt":
        return torch.linspace(linear_start, linear_end, n_timestep, dtype=torch.float64) ** 0.5
    if schedule == "cosine":
        times = torch.arange(n_timestep + 1, dtype=torch.float64) / n_timestep + cosine_s
        left = torch.cos(times / (1 + cosine_s) * math.pi / 2) ** 2  # Nichol & Dhariwal 2021
        left = left / left[0]
        return (1 - left[1:] / left[:-1]).clamp(0, 0.999)
    if schedule == "squaredcos_cap_v2":
        return betas_for_alpha_bar(n_timestep, lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2)
    known = "linear, cosine, squaredcos_cap_v2, sqrt_linear, sqrt"
    raise ValueError(f"There is no schedule {schedule!r} of betas. Known: {known}.")


def betas_for_alpha_bar(num_diffusion_timesteps, alpha_bar, max_beta=0.999):
    """The betas for which the product of (1 - beta) follows `alpha_bar(t)`, t from 0 to 1."""
    ends = [alpha_bar(step / num_diffusion_timesteps) for step in range(num_diffusion_timesteps + 1)]
    return np.array([min(1 - after / before, max_beta) for before, after in zip(ends, ends[1:])])


def make_ddim_timesteps(ddim_discr_method, num_ddim_timesteps, num_ddpm_timesteps, verbose=True):
    """The timesteps (n,) that DDIM visits, 1 and up: "uniform", or "quad" which is denser near the end.

    Raises:
        NotImplementedError: no method has this name.
    """
    if ddim_discr_method == "uniform":
        steps = np.arange(0, num_ddpm_timesteps, num_ddpm_timesteps // num_ddim_timesteps)
    elif ddim_discr_method == "quad":
        steps = (np.linspace(0, np.sqrt(num_ddpm_timesteps * 0.8), num_ddim_timesteps) ** 2).astype(int)
    else:
        raise NotImplementedError(f"DDIM's timesteps are 'uniform' or 'quad', not {ddim_discr_method!r}.")
    if verbose:
        logging.info("Timesteps of DDIM: %s", steps + 1)
    return steps + 1


def make_ddim_sampling_parameters(alphacums, ddim_timesteps, eta, verbose=True):
    """(sigmas, alphas, alphas of the step before) of DDIM (Song et al. 2020, equation 16)."""
    alphas = alphacums[ddim_timesteps]
    before = np.asarray([alphacums[0], *alphacums[ddim_timesteps[:-1]].tolist()])
    sigmas = eta * np.sqrt((1 - before) / (1 - alphas) * (1 - alphas / before))
    if verbose:
        logging.info("DDIM with eta %s has sigmas %s", eta, sigmas)
    return sigmas, alphas, before


def extract_into_tensor(a, t, x_shape):
    """a[t] (B,), with sides of one so that it multiplies a tensor of `x_shape`."""
    return a.gather(-1, t).reshape(len(t), *([1] * (len(x_shape) - 1)))


def checkpoint(func, inputs, params, flag):
    """func(*inputs); with `flag` its activations are computed again for gradients instead of kept."""
    if flag and torch.is_grad_enabled():
        return torch.utils.checkpoint.checkpoint(func, *inputs, use_reentrant=False)
    return func(*inputs)


def timestep_embedding(timesteps, dim, max_period=10000, repeat_only=False):
    """Sinusoids (B, dim) of times (B,): cosines, then sines; with `repeat_only` the times themselves."""
    if repeat_only:
        return timesteps.unsqueeze(1).expand(-1, dim)
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(max_period) * steps / half)
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, dim % 2))


def zero_module(module):
    """The module with all weights zero."""
    for weight in module.parameters():
        weight.detach().zero_()
    return module


def scale_module(module, scale):
    """The module with all weights times `scale`."""
    for weight in module.parameters():
        weight.detach().mul_(scale)
    return module


def avg_pool_nd(dims, *args, **kwargs):
    """Average pooling over 1, 2 or 3 sides.

    Raises:
        ValueError: another number of sides.
    """
    kinds = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
    if dims not in kinds:
        raise ValueError(f"Pooling is over 1, 2 or 3 sides, not {dims}.")
    return kinds[dims](*args, **kwargs)


class HybridConditioner(nn.Module):
    """A conditioner of channels and one of tokens, each built from its configuration."""

    def __init__(self, c_concat_config, c_crossattn_config):
        super().__init__()
        self.concat_conditioner = instantiate_from_config(c_concat_config)
        self.crossattn_conditioner = instantiate_from_config(c_crossattn_config)

    def forward(self, c_concat, c_crossattn):
        return {
            "c_concat": [self.concat_conditioner(c_concat)],
            "c_crossattn": [self.crossattn_conditioner(c_crossattn)],
        }


def noise_like(shape, device, repeat=False):
    """Gaussian noise; with `repeat` the same for the whole batch."""
    if repeat:
        return torch.randn((1, *shape[1:]), device=device).repeat(shape[0], *([1] * (len(shape) - 1)))
    return torch.randn(shape, device=device)


__all__ = [
    "AlphaBlender",
    "HybridConditioner",
    "avg_pool_nd",
    "betas_for_alpha_bar",
    "checkpoint",
    "extract_into_tensor",
    "make_beta_schedule",
    "make_ddim_sampling_parameters",
    "make_ddim_timesteps",
    "mean_flat",
    "noise_like",
    "scale_module",
    "timestep_embedding",
    "zero_module",
]

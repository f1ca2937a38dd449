"""Guidance beyond the plain scale, and what packs of patches do to activations: functions of tensors.

`cond`, `uncond` and the like are predictions of the clean latent (B, C, H, W), as samplers see them.
"""

from __future__ import annotations

import torch


def rescaled(cond, uncond, x, sigma, scale: float, multiplier: float):
    """Guidance whose result keeps the standard deviation of the positive side (Lin et al. 2023, section 3.4).

    Computed in velocity, v = (x / (sigma^2 + 1) - x0) sqrt(sigma^2 + 1) / sigma, of which the share
    `multiplier` is rescaled. Returns the clean latent.
    """
    sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
    root = (sigma**2 + 1.0).sqrt()
    centre = x / root**2
    positive, negative = ((centre - side) * root / sigma for side in (cond, uncond))
    guided = negative + scale * (positive - negative)
    axes = tuple(range(1, x.ndim))
    ratio = positive.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    velocity = multiplier * (guided * ratio) + (1.0 - multiplier) * guided
    return centre - velocity * sigma / root


def without_direction(vector, direction):
    """What of `vector` is perpendicular to `direction`, both as single vectors of all their numbers."""
    share = (vector * direction).sum() / direction.norm() ** 2
    return vector - share * direction


def perp_neg(positive, negative, empty, neg_scale: float, cond_scale: float):
    """Away from what the negative side does not share with the positive one (Armandpour et al. 2023)."""
    towards = positive - empty
    away = without_direction(negative - empty, towards) * neg_scale
    return empty + cond_scale * (towards - away)


def scale_low_frequencies(x, threshold: int, scale: float):
    """Multiply the frequencies below `threshold`, of each channel of x (B, C, H, W), by `scale`."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
    spectrum[..., rows - threshold : rows + threshold, columns - threshold : columns + threshold] *= scale
    spectrum = torch.fft.ifftshift(spectrum, dim=(-2, -1))
    return torch.fft.ifftn(spectrum, dim=(-2, -1)).real.to(x.dtype)


def amplify_backbone(h, factor: float):
    """FreeU (Si et al. 2023): the first half of the channels of h (B, C, H, W) times `factor`."""
    half = h.shape[1] // 2
    return torch.cat([h[:, :half] * factor, h[:, half:]], dim=1)


def amplify_backbone_where_active(h, factor: float):
    """FreeU's second version: from 1 to `factor` in each sample, as the mean over channels grows."""
    mean = h.mean(dim=1, keepdim=True)
    low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
    activity = (mean - low) / (high - low)
    half = h.shape[1] // 2
    return torch.cat([h[:, :half] * ((factor - 1.0) * activity + 1.0), h[:, half:]], dim=1)


def differential_mask(mask, sigma, sigmas, model_sampling, strength: float = 1.0):
    """Differential diffusion (Levin & Fried 2023): a pixel changes from the step on that its gray level says.

    Args:
        mask: (B, 1, H, W), 0..1; the brighter, the earlier.
        sigma: (B,), the noise level of this step; all of a batch are at the same.
        sigmas: the noise levels of all steps.
        strength: below 1 the gray mask shares in, as it is.
    """
    end = torch.maximum(sigmas[-1], model_sampling.sigma_min.to(sigmas))
    first, last, now = (model_sampling.timestep(level) for level in (sigmas[0], end, sigma[0]))
    sharp = (mask >= (now - last) / (first - last)).to(mask.dtype)
    return sharp if strength >= 1.0 or strength == 0.0 else strength * sharp + (1.0 - strength) * mask

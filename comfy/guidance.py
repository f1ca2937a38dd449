"""Guidance beyond the plain scale, and what packs of patches do to activations: functions of tensors.

`cond`, `uncond` and the like are predictions of the clean latent (B, C, H, W), as samplers see them.
"""

from __future__ import annotations

import math

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
    return scale_frequencies(x, threshold, scale, 1.0)


def scale_frequencies(x, cutoff: int, low: float, high: float):
    """Multiply the frequencies of x (B, C, H, W): up to `cutoff` by `low`, the others by `high`."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    middle = [side // 2 for side in x.shape[-2:]]
    rows, columns = (slice(max(0, at - cutoff), at + min(cutoff, at)) for at in middle)
    factors = torch.full(x.shape[-2:], float(high), device=x.device)
    factors[rows, columns] = low
    spectrum = torch.fft.ifftshift(spectrum * factors, dim=(-2, -1))
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


# --- guidance in other ways ---


def _flat_axes(x) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


def project(guidance, direction):
    """(parallel, orthogonal) parts of the guidance to `direction`, sample by sample."""
    unit = torch.nn.functional.normalize(direction, dim=_flat_axes(direction))
    parallel = (guidance * unit).sum(dim=_flat_axes(guidance), keepdim=True) * unit
    return parallel, guidance - parallel


def projected(guidance, cond, eta: float, longest: float):
    """Adaptive projected guidance (Sadat et al. 2024): of the guidance at most `longest`, along the positive
    side `eta` times.
    """
    if longest > 0:
        length = torch.linalg.vector_norm(guidance, dim=_flat_axes(guidance), keepdim=True)
        guidance = guidance * (longest / length).clamp(max=1.0)
    parallel, orthogonal = project(guidance, cond)
    return orthogonal + eta * parallel


def zero_star_scale(positive, negative):
    """How much of the negative side explains the positive one, per sample: least squares."""
    dot = (positive * negative).sum(dim=_flat_axes(positive), keepdim=True)
    return dot / ((negative**2).sum(dim=_flat_axes(negative), keepdim=True) + 1e-8)


def zero_star(denoised, cond, uncond, x, scale: float):
    """CFG-Zero* (Fan et al. 2025): guided, with the negative side scaled to fit the positive one.

    The scale is found between what both sides remove from `x`.
    """
    alpha = zero_star_scale(x - cond, x - uncond)
    return denoised + uncond * (alpha - 1.0) * (1.0 - scale)


def no_longer_than(denoised, cond, strength: float):
    """The guided latent, at each place no longer (over channels) than the positive side; times `strength`."""
    limit = cond.norm(dim=1, keepdim=True) / (denoised.norm(dim=1, keepdim=True) + 1e-8)
    return denoised * limit.clamp(0.0, 1.0) * strength


def damp_tangent(positive, negative):
    """Tangential damping (Kwon et al. 2025): the negative side along the main direction that both have."""
    sides = torch.stack([negative, positive], dim=1).flatten(2).float()  # (B, 2, numbers)
    main = torch.linalg.svd(sides, full_matrices=False)[2][:, :1]
    damped = (sides[:, :1] @ main.transpose(1, 2)) @ main
    return damped.reshape(negative.shape).to(negative.dtype)


def towards_positive(denoised, cond, uncond, scale: float):
    """The less the guided latent is like the negative side, the more of the positive one takes its place."""

    def signed_root(x):
        return x.abs().sqrt() * x.sign()

    leap = cond * scale
    merged = signed_root((leap + denoised) / 2)
    likeness = torch.nn.functional.cosine_similarity(signed_root(uncond * scale), merged, dim=1).mean()
    share = 2 * (likeness + 1)  # 0..4
    return (share * denoised + (4 - share) * leap) / 4


def renormalised(cond, uncond, scale: float, longest: float):
    """Plain guidance, each sample no longer than `longest` times its positive side; 0 sets no limit."""
    guided = uncond + scale * (cond - uncond)
    if longest <= 0:
        return guided
    limit, length = (
        torch.linalg.vector_norm(side, dim=_flat_axes(side), keepdim=True)
        for side in (cond * longest, guided)
    )
    return torch.where(length >= limit, guided * (limit / length), guided)


def rescale_score(denoised, x, sigma, half_log_snr, k: float, deviation: float):
    """Temporal score rescaling (Xu et al. 2025, eq. 6): the score times 1 (noise alone) to `k` (clean).

    Args:
        sigma: (B,), the noise level; `half_log_snr` is log(alpha / sigma) at it.
        deviation: the larger, the earlier.
    """
    snr = (2 * half_log_snr).exp()
    ratio = (snr * deviation**2 + 1) / (snr * deviation**2 / k + 1)
    ratio = torch.where(torch.isposinf(snr), torch.as_tensor(float(k)).to(snr), ratio)
    alpha = sigma * half_log_snr.exp()
    ratio, alpha, sigma = (value.reshape(-1, *[1] * (x.ndim - 1)) for value in (ratio, alpha, sigma))
    return torch.where(sigma > 0, torch.lerp(x / alpha, denoised, ratio.to(denoised)), denoised)


# --- self-attention guidance ---


def attention_with_weights(q, k, v, heads: int):
    """(result (B, tokens, heads * d), weights (B, heads, tokens, tokens)); q, k, v as the result."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2), weights


def gaussian_blur(x, deviation: float, size: int = 9):
    """x (B, C, H, W) with a kernel of size x size pixels; edges are mirrored."""
    at = torch.arange(size, device=x.device, dtype=torch.float32) - (size - 1) / 2
    weights = torch.exp(-0.5 * (at / deviation) ** 2)
    weights = (weights / weights.sum()).to(x.dtype)
    padded = torch.nn.functional.pad(x, [size // 2] * 4, mode="reflect")
    kernel = (weights[:, None] * weights).expand(x.shape[1], 1, size, size)
    return torch.nn.functional.conv2d(padded, kernel, groups=x.shape[1])


def _rows_of(tokens: int, height: int, width: int) -> int:
    """Of the divisors of `tokens`, that one which makes rows and columns most like height and width."""
    wanted = round(math.sqrt(height / width * tokens))
    divisors = (rows for rows in range(1, tokens + 1) if tokens % rows == 0)
    return min(divisors, key=lambda rows: (abs(rows - wanted), -rows))


def blurred_where_attended(clean, weights, deviation: float, threshold: float = 1.0):
    """Self-attention guidance (Hong et al. 2023): blurred at places that get more attention than they give.

    Args:
        clean: (B, C, H, W).
        weights: (B, heads, tokens, tokens), attention of a level of the same picture.
    """
    attended = weights.mean(dim=1).sum(dim=1) > threshold  # (B, tokens)
    rows = _rows_of(attended.shape[-1], *clean.shape[-2:])
    mask = attended.reshape(len(clean), 1, rows, -1).to(clean.dtype)
    mask = torch.nn.functional.interpolate(mask, clean.shape[-2:])
    return gaussian_blur(clean, deviation) * mask + clean * (1 - mask)


# --- operations on latents, mostly on the guidance ---


def tone_mapped(latent, multiplier: float):
    """Reinhard's curve on the length at each place; it ends at `multiplier` times mean + 5 deviations."""
    length = torch.linalg.vector_norm(latent, dim=1, keepdim=True) + 1e-10
    axes = _flat_axes(length)
    top = (length.std(dim=axes, keepdim=True) * 5 + length.mean(dim=axes, keepdim=True)) * multiplier
    relative = length / top
    return latent / length * (relative / (relative + 1.0) * top)


def sharpened(latent, radius: int, sigma: float, alpha: float):
    """Unsharp masking of the directions (over channels) of a latent (B, C, H, W); lengths stay.

    The kernel is a Gaussian over -1..1 in each direction, `sigma` in that measure.
    """
    at = torch.linspace(-1, 1, 2 * radius + 1, device=latent.device)
    weights = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * sigma**2))
    kernel = weights / weights.sum() * (-10 * alpha)
    kernel[radius, radius] += 1.0 - kernel.sum()
    length = torch.linalg.vector_norm(latent, dim=1, keepdim=True) + 1e-6
    channels = latent.shape[1]
    padded = torch.nn.functional.pad(latent / length, [radius] * 4, mode="reflect")
    kernels = kernel.to(latent.dtype).expand(channels, 1, *kernel.shape)
    return length * torch.nn.functional.conv2d(padded, kernels, groups=channels)


def normalised_attention(positive, negative, scale, longest, share):
    """Attention's output (B, tokens, width) led away from the negative one (NAG, arXiv:2505.21179): no token
    becomes more than `longest` times as long (sum of magnitudes); `share` of the result counts.
    """
    guided = positive * scale - negative * (scale - 1.0)
    before, after = (x.abs().sum(-1, keepdim=True).clamp_min(1e-6) for x in (positive, guided))
    ratio = after / before
    guided = guided * (ratio.clamp(max=longest) / ratio)
    return guided * share + positive * (1.0 - share)

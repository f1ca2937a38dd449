"""Pictures in the colours of others of the same size: (B, H, W, 3) in 0..1."""

from __future__ import annotations

from typing import Any

_LEVELS = 5
_LIGHTNESS_KEPT = 0.8  # the share of a picture's own lightness in that of the result


def _blurred(pictures, radius):
    """Pictures (B, C, H, W) under a 3x3 binomial kernel whose taps lie `radius` apart, at most an eighth."""
    import torch

    channels = pictures.shape[1]
    radius = min(radius, max(1, min(pictures.shape[-2:]) // 8))
    taps = pictures.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(taps, taps).expand(channels, 1, 3, 3)
    padded = torch.nn.functional.pad(pictures, (radius,) * 4, mode="replicate")
    return torch.nn.functional.conv2d(padded, kernel, groups=channels, dilation=radius)


def by_wavelets(pictures: Any, references: Any) -> Any:
    """The details of the pictures over what is left of the references without theirs."""
    difference = (references - pictures).movedim(-1, 1)
    for level in range(_LEVELS):
        difference = _blurred(difference, 2**level)
    return (pictures + difference.movedim(1, -1)).clamp(0, 1)


def by_statistics(pictures: Any, references: Any) -> Any:
    """Each channel with the mean and the deviation of the references' (AdaIN)."""
    tiny = 1e-5 / 4  # of variances of values in 0..1
    spread, wanted = (
        (values.var(dim=(1, 2), correction=0, keepdim=True) + tiny).sqrt()
        for values in (pictures, references)
    )
    middle, aim = (values.mean(dim=(1, 2), keepdim=True) for values in (pictures, references))
    return ((pictures - middle) / spread * wanted + aim).clamp(0, 1)


def _with_histogram(values, references):
    """Values in their order, but with the distribution of others, of which there are as many."""
    import torch

    matched = torch.empty_like(values).flatten()
    matched[values.flatten().argsort()] = references.flatten().sort().values
    return matched.view(values.shape)


def by_lab(pictures: Any, references: Any) -> Any:
    """By wavelets, then with the references' distribution of Lab's colours and in part of its lightness."""
    import torch

    from comfy.color_spaces import lab_to_rgb, rgb_to_lab

    matched = []
    for picture, reference in zip(by_wavelets(pictures, references), references, strict=True):
        own, aims = rgb_to_lab(picture).unbind(-1), rgb_to_lab(reference.clamp(0, 1)).unbind(-1)
        lightness, a, b = (_with_histogram(one, aim) for one, aim in zip(own, aims, strict=True))
        lightness = _LIGHTNESS_KEPT * own[0] + (1 - _LIGHTNESS_KEPT) * lightness
        matched.append(lab_to_rgb(torch.stack([lightness, a, b], dim=-1)))
    return torch.stack(matched)


METHODS = {"lab": by_lab, "wavelet": by_wavelets, "adain": by_statistics}

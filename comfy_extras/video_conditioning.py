"""What nodes of video models do alike: empty latents, frames in size, values on both sides of the guidance.

Pictures are (T, H, W, C) in 0..1, latents (B, C, T, H, W). Torch is imported by the functions.
"""

from __future__ import annotations

from typing import Any

import node_helpers

# Mean and deviation per channel of the latents of Wan's VAEs; Qwen-Image and Cosmos 2 share the first.
WAN21_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632,
    -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
WAN21_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382,
    1.1253, 2.8251, 1.9160,
)  # fmt: skip
WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip


def zeros(*shape: int) -> Any:
    """Zeros where latents rest between nodes."""
    import torch

    import comfy.model_management

    return torch.zeros(shape, device=comfy.model_management.intermediate_device())


def ones(*shape: int, like: Any = None) -> Any:
    """Ones, on the device and in the dtype of `like`, else where latents rest."""
    return zeros(*shape) + 1 if like is None else like.new_ones(shape)


def latent_frames(length: int, per: int = 4) -> int:
    """How many latent frames so many frames become: the first stands alone, then `per` are one."""
    return (length - 1) // per + 1


def channels_of(values: tuple[float, ...], like: Any) -> Any:
    """A number per channel, to compute with latents (B, C, T, H, W)."""
    return like.new_tensor(values).view(1, -1, 1, 1, 1)


def without_content(latent: Any) -> Any:
    """The latent of nothing, in the shape of `latent`: the mean of Wan's latents (16 or 48 channels)."""
    mean = WAN22_MEAN if latent.shape[1] == len(WAN22_MEAN) else WAN21_MEAN
    return channels_of(mean, latent).expand(latent.shape).clone()


def sized(images: Any, width: int, height: int, *, method: str = "bilinear", crop: str = "center") -> Any:
    """Pictures in another size; what is too long on one side is cut off."""
    import comfy.utils

    return comfy.utils.common_upscale(images.movedim(-1, 1), width, height, method, crop).movedim(1, -1)


def with_area(images: Any, pixels: int, *, multiple: int = 1, method: str = "area") -> Any:
    """Pictures with so many pixels and about the old proportions; sides are multiples."""
    scale = (pixels / (images.shape[1] * images.shape[2])) ** 0.5
    height, width = (round(side * scale / multiple) * multiple for side in images.shape[1:3])
    return sized(images, width, height, method=method, crop="disabled")


def gray(length: int, height: int, width: int, *, like: Any = None) -> Any:
    """Frames of an even gray: nothing is known of them."""
    frames = ones(length, height, width, 3, like=like) * 0.5
    return frames.cpu() if like is None else frames


def encoded(vae: Any, images: Any) -> Any:
    """Their latent, without an alpha channel."""
    return vae.encode(images[..., :3])


def both(positive: Any, negative: Any, values: dict[str, Any], *, append: bool = False) -> tuple[Any, Any]:
    """The two sides of the guidance with these values."""
    return tuple(  # type: ignore[return-value]
        node_helpers.conditioning_set_values(side, values, append=append) for side in (positive, negative)
    )


def during(conditioning: Any, values: dict[str, Any], start: float, end: float) -> list[Any]:
    """One side with these values from `start` to `end` of the sampling (0..1), and without them elsewhere.

    An entry that has a range of its own is cut where these begin and end; a hair lies between the parts, as
    the ends of ranges belong to them.
    """
    if start > end:
        raise ValueError(f"The part of the sampling begins at {start} and ends at {end}. Let it end later.")
    hair, parts = 1e-5, []
    for entry in conditioning:
        first, last = entry[1].get("start_percent", 0.0), entry[1].get("end_percent", 1.0)
        low, high = max(start, first), min(end, last)
        if low >= high:
            parts.append(entry)
            continue
        ranges = [(first, low - hair, {}), (low, high, values), (high + hair, last, {})]
        for begin, stop, more in ranges:
            if begin < stop:
                timed = {**more, "start_percent": begin, "end_percent": stop}
                parts += node_helpers.conditioning_set_values([entry], timed)
    return parts


def per_latent_frame(mask: Any) -> Any:
    """(1, 1, 4 T, H, W) -> (1, 4, T, H, W): four frames of a mask are channels of one latent frame."""
    return mask.view(1, -1, 4, *mask.shape[-2:]).transpose(1, 2)


def numbered(images: dict[str, Any] | None) -> list[Any]:
    """The values of a growing input in the order of the numbers at the end of their names."""
    given = images or {}
    return [given[name] for name in sorted(given, key=_number) if given[name] is not None]


def _number(name: str) -> int:
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits or 0)

"""Resizing of images and latents, and functions applied tile by tile.

Packs find all of it in `comfy.utils`, which re-exports these names.
"""

import itertools
import math
from collections.abc import Callable

import torch


def _slerp(first: torch.Tensor, second: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """Turn the rows of `first` (N, C) towards `second` by `ratio` (N, 1); lengths go linearly."""
    length_first = first.norm(dim=-1, keepdim=True)
    length_second = second.norm(dim=-1, keepdim=True)
    unit_first = torch.where(length_first == 0, 0.0, first / length_first)
    unit_second = torch.where(length_second == 0, 0.0, second / length_second)
    cosine = (unit_first * unit_second).sum(dim=1, keepdim=True)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    turned = (torch.sin((1.0 - ratio) * angle) * unit_first + torch.sin(ratio * angle) * unit_second) / sine
    turned = turned * (length_first * (1.0 - ratio) + length_second * ratio)
    # acos is useless where both point the same way or exactly away from each other.
    turned = torch.where(cosine > 1 - 1e-5, first, turned)
    return torch.where(cosine < 1e-5 - 1, first * (1.0 - ratio) + second * ratio, turned)


def _neighbours(old: int, new: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of `new` samples: the two old samples it lies between, and how far along it is."""
    positions = torch.arange(old, dtype=torch.float32, device=device).reshape(1, 1, 1, -1)
    positions = torch.nn.functional.interpolate(positions, size=(1, new), mode="bilinear").flatten()
    lower = positions.floor()
    return lower.long(), (lower.long() + 1).clamp(max=old - 1), positions - lower


def _slerp_last_axis(samples: torch.Tensor, width: int) -> torch.Tensor:
    lower, upper, ratio = _neighbours(samples.shape[-1], width, samples.device)
    rows_first = samples[..., lower].movedim(1, -1)  # (B, H, W', C)
    rows_second = samples[..., upper].movedim(1, -1)
    shape = rows_first.shape
    ratio = ratio.expand(shape[:-1]).reshape(-1, 1)
    channels = shape[-1]
    turned = _slerp(rows_first.reshape(-1, channels), rows_second.reshape(-1, channels), ratio)
    return turned.reshape(shape).movedim(-1, 1)


def bislerp(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Bilinear resize of (B, C, H, W) that turns the channel vectors instead of mixing them."""
    wide = _slerp_last_axis(samples.float(), width)
    tall = _slerp_last_axis(wide.transpose(-1, -2), height).transpose(-1, -2)
    return tall.to(samples.dtype)


def lanczos(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Resize of images (B, C, H, W) in 0..1 with Pillow's Lanczos filter, in 8 bits as Pillow does it."""
    import numpy as np
    from PIL import Image

    def resized(image: torch.Tensor) -> torch.Tensor:
        pixels = np.clip(255.0 * image.movedim(0, -1).cpu().numpy(), 0, 255).astype(np.uint8)
        gray = pixels.shape[-1] == 1
        picture = Image.fromarray(pixels[..., 0] if gray else pixels)
        picture = picture.resize((width, height), resample=Image.Resampling.LANCZOS)
        out = torch.from_numpy(np.array(picture).astype(np.float32) / 255.0)
        return out.unsqueeze(0) if gray else out.movedim(-1, 0)

    return torch.stack([resized(image) for image in samples]).to(samples.device, samples.dtype)


def _center_crop(samples: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Cut (..., H, W) to the aspect of width x height, keeping the middle."""
    old_width, old_height = samples.shape[-1], samples.shape[-2]
    old_aspect, new_aspect = old_width / old_height, width / height
    x = y = 0
    if old_aspect > new_aspect:
        x = round((old_width - old_width * (new_aspect / old_aspect)) / 2)
    elif old_aspect < new_aspect:
        y = round((old_height - old_height * (old_aspect / new_aspect)) / 2)
    return samples.narrow(-2, y, old_height - y * 2).narrow(-1, x, old_width - x * 2)


def common_upscale(samples: torch.Tensor, width: int, height: int, upscale_method: str, crop: str):
    """Resize (B, C, H, W), or (B, C, T, H, W) frame by frame; `crop` is "center" or "disabled"."""
    shape = tuple(samples.shape)
    if samples.ndim > 4:
        samples = samples.reshape(shape[0], shape[1], -1, *shape[-2:]).movedim(2, 1)
        samples = samples.reshape(-1, shape[1], *shape[-2:])  # (B * T, C, H, W)
    if crop == "center":
        samples = _center_crop(samples, width, height)
    if upscale_method == "bislerp":
        out = bislerp(samples, width, height)
    elif upscale_method == "lanczos":
        out = lanczos(samples, width, height)
    else:
        out = torch.nn.functional.interpolate(samples, size=(height, width), mode=upscale_method)
    if len(shape) == 4:
        return out
    out = out.reshape(shape[0], -1, shape[1], height, width).movedim(2, 1)
    return out.reshape(*shape[:-2], height, width)


def get_tiled_scale_steps(width: int, height: int, tile_x: int, tile_y: int, overlap: int) -> int:
    """How many tiles `tiled_scale` will compute for one image."""
    rows = 1 if height <= tile_y else math.ceil((height - overlap) / (tile_y - overlap))
    columns = 1 if width <= tile_x else math.ceil((width - overlap) / (tile_x - overlap))
    return rows * columns


def _per_axis(value, dims: int) -> list:
    return list(value) if isinstance(value, (tuple, list)) else [value] * dims


class _AxisScales:
    """How lengths and positions of the input map to the output along each axis."""

    def __init__(self, amount, positions, dims: int, *, downscale: bool):
        self.amount = _per_axis(amount, dims)
        self.positions = _per_axis(amount if positions is None else positions, dims)
        self.downscale = downscale

    def _apply(self, rule, value) -> int:
        if callable(rule):
            return round(rule(value))
        return round(value / rule if self.downscale else rule * value)

    def length(self, axis: int, value: int) -> int:
        return self._apply(self.amount[axis], value)

    def position(self, axis: int, value: int) -> int:
        return self._apply(self.positions[axis], value)


def _feathered_mask(like: torch.Tensor, feathers: list[int]) -> torch.Tensor:
    """Ones that fade out linearly over `feathers[axis]` samples at both ends of each axis."""
    mask = torch.ones_like(like)
    for axis, feather in enumerate(feathers, start=2):
        size = mask.shape[axis]
        if feather >= size:
            continue
        ramp = torch.ones(size, device=like.device, dtype=like.dtype)
        for step in range(feather):
            ramp[step] *= (step + 1) / feather
            ramp[size - 1 - step] *= (step + 1) / feather
        mask = mask * ramp.reshape([-1 if i == axis else 1 for i in range(mask.ndim)])
    return mask


def _tiles_of(shape: tuple[int, ...], tile: list[int], overlap: list[int]):
    """Corner and size of every tile of an image with these axis lengths."""
    starts = [
        range(0, length - o, t - o) if length > t else [0]
        for length, t, o in zip(shape, tile, overlap, strict=True)
    ]
    for corner in itertools.product(*starts):
        corner = [max(0, min(length - o, c)) for length, o, c in zip(shape, overlap, corner, strict=True)]
        yield corner, [min(t, length - c) for t, length, c in zip(tile, shape, corner, strict=True)]


@torch.inference_mode()
def tiled_scale_multidim(
    samples, function: Callable, tile=(64, 64), overlap=8, upscale_amount=4, out_channels=3,
    output_device="cpu", downscale=False, index_formulas=None, pbar=None,
):  # fmt: skip
    """Apply `function` to overlapping tiles of (B, C, *axes) and blend the results with faded borders."""
    dims = len(tile)
    overlaps = _per_axis(overlap, dims)
    scales = _AxisScales(upscale_amount, index_formulas, dims, downscale=downscale)
    axes = tuple(samples.shape[2:])
    out_axes = [scales.length(axis, length) for axis, length in enumerate(axes)]
    output = torch.empty([samples.shape[0], out_channels, *out_axes], device=output_device)
    feathers = [scales.length(axis, o) for axis, o in enumerate(overlaps)]
    for index in range(samples.shape[0]):
        sample = samples[index : index + 1]
        if all(length <= t for length, t in zip(axes, tile, strict=True)):
            output[index : index + 1] = function(sample).to(output_device)
            if pbar is not None:
                pbar.update(1)
            continue
        total = torch.zeros([1, out_channels, *out_axes], device=output_device)
        weight = torch.zeros_like(total)
        for corner, size in _tiles_of(axes, list(tile), overlaps):
            part = sample
            for axis in range(dims):
                part = part.narrow(axis + 2, corner[axis], size[axis])
            result = function(part).to(output_device)
            mask = _feathered_mask(result, feathers)
            starts = [scales.position(axis, c) for axis, c in enumerate(corner)]
            region = (slice(None), slice(None)) + tuple(
                slice(start, start + length) for start, length in zip(starts, result.shape[2:], strict=True)
            )
            total[region] += result * mask
            weight[region] += mask
            if pbar is not None:
                pbar.update(1)
        output[index : index + 1] = total / weight
    return output


def tiled_scale(
    samples, function: Callable, tile_x=64, tile_y=64, overlap=8, upscale_amount=4, out_channels=3,
    output_device="cpu", pbar=None,
):  # fmt: skip
    """`tiled_scale_multidim` for images (B, C, H, W)."""
    return tiled_scale_multidim(
        samples, function, (tile_y, tile_x), overlap=overlap, upscale_amount=upscale_amount,
        out_channels=out_channels, output_device=output_device, pbar=pbar,
    )  # fmt: skip

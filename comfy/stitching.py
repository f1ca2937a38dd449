"""Pictures (B, H, W, C) joined: side by side, or from tiles."""

import math

import torch

COLORS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}


def _filled(like: torch.Tensor, rows: int, columns: int, color: tuple[float, ...]) -> torch.Tensor:
    """An area of one colour with the batch and channels of `like`; a fourth channel is 1."""
    channels = like.shape[-1]
    values = like.new_tensor((*color, *[1.0] * channels)[:channels])
    return values.expand(like.shape[0], rows, columns, channels)


def _centered(image: torch.Tensor, axis: int, length: int, value: float) -> torch.Tensor:
    """The picture in the middle of a longer side, with gray of `value` around it in all channels."""
    missing = length - image.shape[axis]
    shapes = [list(image.shape), list(image.shape)]
    shapes[0][axis], shapes[1][axis] = missing // 2, missing - missing // 2
    before, after = (image.new_full(shape, value) for shape in shapes)
    return torch.cat((before, image, after), dim=axis)


def _last_repeated(image: torch.Tensor, batch: int) -> torch.Tensor:
    return torch.cat((image, image[-1:].expand(batch - image.shape[0], -1, -1, -1)))


def _sized_beside(image: torch.Tensor, other: torch.Tensor, *, horizontal: bool) -> torch.Tensor:
    """`image`, its proportions kept, as high as `other`, or as wide if it goes above or below."""
    import comfy.utils

    aspect = image.shape[2] / image.shape[1]
    height, width = other.shape[1:3]
    size = (int(height * aspect), height) if horizontal else (width, int(width / aspect))
    scaled = comfy.utils.common_upscale(
        image.movedim(-1, 1), *(max(1, side) for side in size), "lanczos", "disabled"
    )
    return scaled.movedim(1, -1)


def stitched(first, second, direction: str, *, match_size: bool, gap: int, color: str) -> torch.Tensor:
    """`second` to the "right", "left", "up" or "down" of `first`, with `gap` pixels (made even) between.

    The shorter batch repeats its last picture; missing channels are 1.
    """
    horizontal = direction in ("left", "right")
    batch = max(first.shape[0], second.shape[0])
    parts = [_last_repeated(image, batch) for image in (first, second)]
    shared = 1 if horizontal else 2
    if match_size:
        parts[1] = _sized_beside(parts[1], parts[0], horizontal=horizontal)
    else:
        length = max(image.shape[shared] for image in parts)
        gray = 1.0 if color == "white" else 0.0
        parts = [_centered(image, shared, length, gray) for image in parts]
    channels = max(image.shape[-1] for image in parts)
    parts = [
        torch.nn.functional.pad(image, (0, channels - image.shape[-1]), value=1.0) for image in parts
    ]  # fmt: skip
    if direction in ("left", "up"):
        parts.reverse()
    if gap > 0:
        gap += gap % 2
        rows, columns = parts[0].shape[1:3]
        area = (rows, gap) if horizontal else (gap, columns)
        parts.insert(1, _filled(parts[0], *area, COLORS[color]))
    return torch.cat(parts, dim=3 - shared)


def _fade(length: int, like: torch.Tensor) -> torch.Tensor:
    """Weights along one side of a tile: half a sine wave that never quite reaches 0."""
    return torch.sin(math.pi * torch.linspace(0, 1, length, device=like.device, dtype=like.dtype)).clamp(
        min=1e-5
    )


def merged_tiles(tiles, corners, width: int, height: int, *, soft: bool) -> torch.Tensor:
    """A picture of tiles whose corners (left, top) are given; where tiles overlap, they are averaged.

    With `soft`, the middle of a tile weighs more than its border. What no tile covers is black.
    """
    first = tiles[0]
    canvas = first.new_zeros(first.shape[0], height, width, first.shape[-1])
    weights = first.new_zeros(1, height, width, 1)
    for tile, (left, top) in zip(tiles, corners):
        rows, columns = first.shape[1:3]
        rows = min(rows, tile.shape[1], height - top)
        columns = min(columns, tile.shape[2], width - left)
        weight = first.new_ones(1, rows, columns, 1)
        if soft:
            down, across = _fade(first.shape[1], first)[:rows], _fade(first.shape[2], first)[:columns]
            weight = (down[:, None] * across[None, :])[None, :, :, None]
        region = (slice(None), slice(top, top + rows), slice(left, left + columns))
        canvas[region] += tile[:, :rows, :columns].to(canvas) * weight
        weights[region] += weight
    return canvas / weights.where(weights != 0, 1.0)

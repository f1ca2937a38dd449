"""Filters of pictures (B, C, H, W): Gaussian kernels, morphology, edges."""

import torch
from torch.nn.functional import conv2d, max_pool2d, pad

# (row, column) of the neighbour in each direction, in steps of 45 degrees; rows go down.
_NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
_MAGNITUDE_FLOOR = 1e-6


def convolved(pictures: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Each channel with one square kernel of odd size; pictures go on mirrored beyond their edges."""
    channels, radius = pictures.shape[1], kernel.shape[0] // 2
    height, width = pictures.shape[2:]
    if radius >= min(height, width):
        raise ValueError(
            f"A filter with a radius of {radius} pixels does not fit into a picture of {width} x {height}. "
            "Make the radius smaller than both sides, or the picture larger."
        )
    weights = kernel.expand(channels, 1, *kernel.shape)
    return conv2d(pad(pictures, (radius,) * 4, mode="reflect"), weights, groups=channels)


# --- morphology -------------------------------------------------------------------------------------------


def _largest(pictures: torch.Tensor, before: int, after: int) -> torch.Tensor:
    padded = pad(pictures, (before, after, before, after), value=float("-inf"))
    size = before + after + 1
    return max_pool2d(max_pool2d(padded, (1, size), stride=1), (size, 1), stride=1)


def dilated(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """The largest value in a square of `size` around each pixel; nothing comes from beyond the edges."""
    return _largest(pictures, size - size // 2 - 1, size // 2)


def eroded(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """The smallest value in a square. Even ones reach further up and left (dilations: the other way)."""
    return -_largest(-pictures, size // 2, size - size // 2 - 1)


def _opened(pictures, size):
    return dilated(eroded(pictures, size), size)


def _closed(pictures, size):
    return eroded(dilated(pictures, size), size)


MORPHOLOGY = {
    "erode": eroded,
    "dilate": dilated,
    "open": _opened,
    "close": _closed,
    "gradient": lambda pictures, size: dilated(pictures, size) - eroded(pictures, size),
    "bottom_hat": lambda pictures, size: _closed(pictures, size) - pictures,
    "top_hat": lambda pictures, size: pictures - _opened(pictures, size),
}


def grown(masks: torch.Tensor, steps: int, *, tapered: bool) -> torch.Tensor:
    """Masks (B, 1, H, W) dilated `steps` times by a cross (tapered, a diamond) or a 3 x 3 square."""
    if not tapered:
        return dilated(masks, 2 * steps + 1) if steps else masks
    for _ in range(min(steps, sum(masks.shape[-2:]))):
        beside = max_pool2d(masks, (1, 3), stride=1, padding=(0, 1))
        masks = torch.maximum(beside, max_pool2d(masks, (3, 1), stride=1, padding=(1, 0)))
    return masks


# --- edges ------------------------------------------------------------------------------------------------


def _gray(pictures: torch.Tensor) -> torch.Tensor:
    if pictures.shape[1] < 3:
        return pictures[:, :1]
    weights = pictures.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (pictures[:, :3] * weights).sum(dim=1, keepdim=True)


def _gradients(gray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sobel's derivatives along x and y; edge pixels are repeated."""
    sobel = gray.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    both = conv2d(pad(gray, (1, 1, 1, 1), mode="replicate"), torch.stack((sobel, sobel.T)).unsqueeze(1))
    return both[:, :1], both[:, 1:]


def _thinned(magnitude: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Zero where a neighbour across the edge is as strong. `direction` counts steps of 45 degrees."""
    height, width = magnitude.shape[-2:]
    around = pad(magnitude, (1, 1, 1, 1))
    shifted = [around[:, :, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in _NEIGHBOURS]
    neighbours = torch.cat(shifted, dim=1)  # (B, 8, H, W)
    ahead = neighbours.gather(1, direction % 8)
    behind = neighbours.gather(1, (direction + 4) % 8)
    return magnitude * (magnitude > torch.maximum(ahead, behind))


def _linked(weak: torch.Tensor, strong: torch.Tensor) -> torch.Tensor:
    """The weak pixels (B, 1, H, W) that hang together with strong ones, diagonals included."""
    import numpy as np
    import scipy.ndimage

    out = []
    for candidates, certain in zip(weak[:, 0].cpu().numpy(), strong[:, 0].cpu().numpy()):
        labels, _ = scipy.ndimage.label(candidates, structure=np.ones((3, 3)))
        out.append(torch.from_numpy(np.isin(labels, np.unique(labels[certain]))))
    return torch.stack(out).unsqueeze(1).to(weak.device)


def canny(pictures: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Edges (B, 1, H, W), 1 or 0, of pictures (B, C, H, W) in 0..1 (Canny 1986).

    The Gaussian is 5 x 5 with a sigma of 1. A gradient above `high` is an edge; above `low`, if it touches
    one.
    """
    if low > high:
        raise ValueError(f"low_threshold ({low}) is above high_threshold ({high}). Make it smaller.")
    taps = torch.exp(-(torch.arange(-2.0, 3.0, device=pictures.device) ** 2) / 2)
    taps = taps / taps.sum()
    along_x, along_y = _gradients(convolved(_gray(pictures), torch.outer(taps, taps)))
    magnitude = torch.sqrt(along_x**2 + along_y**2 + _MAGNITUDE_FLOOR)
    direction = torch.round(torch.rad2deg(torch.atan2(along_y, along_x)) / 45).long()
    thin = _thinned(magnitude, direction)
    strong = thin > high
    return _linked(thin > low, strong).to(pictures.dtype)

"""Pictures reduced to a palette, with dithering."""

import numpy as np
import torch
from PIL import Image

_BAYER = np.array([[0, 2], [3, 1]])


def bayer_matrix(order: int) -> np.ndarray:
    """The threshold matrix (order, order), a power of 2, in -0.5..0.5 (Bayer 1973)."""
    ranks = np.zeros((1, 1), dtype=int)
    while len(ranks) < order:
        ranks = 4 * np.tile(ranks, (2, 2)) + np.kron(_BAYER, np.ones_like(ranks))
    return ((ranks + 0.5) / ranks.size - 0.5).astype(np.float32)


def _ordered(picture: Image.Image, order: int, colors: int) -> Image.Image:
    """The picture with a pattern added that makes the nearest colours alternate."""
    pixels = np.asarray(picture, dtype=np.float32)
    height, width = pixels.shape[:2]
    pattern = bayer_matrix(order) * (2 * 256 / colors) + 0.5
    pattern = np.tile(pattern, (-(-height // order), -(-width // order)))[:height, :width]
    return Image.fromarray(np.clip(pixels + pattern[..., None], 0, 255).astype(np.uint8))


def quantized(picture: torch.Tensor, colors: int, dither: str) -> torch.Tensor:
    """One picture (H, W, 3) in few colours; dither is "none", "floyd-steinberg" or "bayer-<order>"."""
    source = Image.fromarray((picture.cpu() * 255).clamp(0, 255).to(torch.uint8).numpy())
    palette = source.quantize(colors=colors)
    how = Image.Dither.NONE
    if dither == "floyd-steinberg":
        how = Image.Dither.FLOYDSTEINBERG
    elif dither.startswith("bayer-"):
        source = _ordered(source, int(dither.removeprefix("bayer-")), len(palette.getpalette()) // 3)
    few = source.quantize(palette=palette, dither=how).convert("RGB")
    return torch.from_numpy(np.array(few, dtype=np.float32) / 255)

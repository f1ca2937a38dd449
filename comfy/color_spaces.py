"""Colours in other spaces: linear light, HLG, YCbCr, CIE Lab. Channels come last: (..., C), C of 3 or 4.

A fourth channel is transparency, which no transfer function touches.
"""

from collections.abc import Callable

import torch

# Linear sRGB to CIE XYZ under D65, and the white of D65.
_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
_WHITE = (0.95047, 1.0, 1.08883)
# Where the cube root of Lab becomes a line, in XYZ and in its root.
_LAB_TOE, _LAB_TOE_ROOT, _LAB_SLOPE, _LAB_OFFSET = 0.008856, 0.2068966, 7.787, 4.0 / 29.0
# HLG, ITU-R BT.2100 table 5.
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991072928


def _colors_only(pixels: torch.Tensor, curve: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    return torch.cat((curve(pixels[..., :3]), pixels[..., 3:]), dim=-1)


def srgb_to_linear(pixels: torch.Tensor) -> torch.Tensor:
    """Linear light of sRGB values (IEC 61966-2-1)."""

    def curve(values):
        return torch.where(values <= 0.04045, values / 12.92, ((values.clamp(min=0) + 0.055) / 1.055) ** 2.4)

    return _colors_only(pixels, curve)


def linear_to_srgb(pixels: torch.Tensor) -> torch.Tensor:
    """sRGB values of linear light."""

    def curve(values):
        root = 1.055 * values.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
        return torch.where(values <= 0.0031308, values * 12.92, root)

    return _colors_only(pixels, curve)


def hlg_to_linear(pixels: torch.Tensor) -> torch.Tensor:
    """Linear light of the scene, 0..1, of HLG signals (BT.2100)."""

    def curve(values):
        bright = (torch.exp((values.clamp(min=0.5) - _HLG_C) / _HLG_A) + _HLG_B) / 12
        return torch.where(values <= 0.5, values * values / 3, bright)

    return _colors_only(pixels, curve)


def rgb_to_ycbcr(pixels: torch.Tensor) -> torch.Tensor:
    """Full-range YCbCr (BT.601), chroma around 0.5, of RGB (..., 3)."""
    red, green, blue = pixels[..., :3].unbind(-1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack((luma, (blue - luma) * 0.564 + 0.5, (red - luma) * 0.713 + 0.5), dim=-1)


def ycbcr_to_rgb(pixels: torch.Tensor) -> torch.Tensor:
    """RGB in 0..1 of full-range YCbCr (..., 3): the inverse of `rgb_to_ycbcr`."""
    luma, blue, red = pixels.unbind(-1)
    red, blue = luma + (red - 0.5) / 0.713, luma + (blue - 0.5) / 0.564
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return torch.stack((red, green, blue), dim=-1).clamp(0, 1)


def rgb_to_lab(pixels: torch.Tensor) -> torch.Tensor:
    """CIE Lab, L in 0..100, of sRGB (..., 3)."""
    white = pixels.new_tensor(_WHITE)
    xyz = srgb_to_linear(pixels) @ pixels.new_tensor(_XYZ).T / white
    line = _LAB_SLOPE * xyz + _LAB_OFFSET
    x, y, z = torch.where(xyz > _LAB_TOE, xyz.clamp(min=_LAB_TOE) ** (1 / 3), line).unbind(-1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-1)


def lab_to_rgb(pixels: torch.Tensor) -> torch.Tensor:
    """sRGB (..., 3) of CIE Lab; colours that sRGB does not have are clipped to 0..1."""
    lightness, a, b = pixels.unbind(-1)
    y = (lightness + 16) / 116
    roots = torch.stack((a / 500 + y, y, (y - b / 200).clamp(min=0)), dim=-1)
    xyz = torch.where(roots > _LAB_TOE_ROOT, roots**3, (roots - _LAB_OFFSET) / _LAB_SLOPE)
    back = torch.linalg.inv(torch.tensor(_XYZ, dtype=torch.float64)).to(pixels)
    return linear_to_srgb(xyz * pixels.new_tensor(_WHITE) @ back.T).clamp(0, 1)


def parse_hex(color: str) -> tuple[float, float, float] | None:
    """(red, green, blue) in 0..1 of "#rrggbb"; None for any other text."""
    digits = color.lstrip("#")
    if len(digits) != 6:
        return None
    try:
        number = int(digits, 16)
    except ValueError:
        return None
    return (number >> 16) / 255, (number >> 8 & 0xFF) / 255, (number & 0xFF) / 255

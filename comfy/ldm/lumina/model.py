# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Small layers of Lumina 2 and Z-Image. Z-Image runs as `comfy.families.z_image`; this network does not."""

from __future__ import annotations

import torch
from torch import nn

from comfy.absent_families import absent_class, absent_classes
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.flux.math import apply_rope
from comfy.ldm.flux.model import invert_slices

__all__ = ["EmbedND", "FeedForward", "apply_gate", "apply_rope", "clamp_fp16", "invert_slices", "modulate"]


def clamp_fp16(x):
    """Within the range of fp16, where x is of it."""
    return torch.nan_to_num(x, nan=0.0, posinf=65504, neginf=-65504) if x.dtype == torch.float16 else x


def _by_time(x, factors, slices):
    """x (B, tokens, C) times the first B of the factors, the others for tokens of the slices."""
    now, zero = factors.chunk(2)
    out = x.clone()
    for parts, factor in ((slices, zero), (invert_slices(slices, x.shape[1]), now)):
        for start, end in parts:
            out[:, start:end] *= factor
    return out


def modulate(x, scale, timestep_zero_index=None):
    """x (B, tokens, C) * (1 + scale (B, C)); slices of tokens that are at time 0 have their own factors."""
    factors = 1 + scale.unsqueeze(1)
    return x * factors if timestep_zero_index is None else _by_time(x, factors, timestep_zero_index)


def apply_gate(gate, x, timestep_zero_index=None):
    """x * gate, with the rows of `modulate`."""
    return gate * x if timestep_zero_index is None else _by_time(x, gate, timestep_zero_index)


class FeedForward(nn.Module):
    """SwiGLU; its width is a multiple of `multiple_of`."""

    def __init__(
        self, dim: int, hidden_dim: int, multiple_of: int, ffn_dim_multiplier: float | None,
        operation_settings={},
    ):  # fmt: skip
        super().__init__()
        width = hidden_dim if ffn_dim_multiplier is None else int(ffn_dim_multiplier * hidden_dim)
        width = -(-width // multiple_of) * multiple_of
        layers = operation_settings["operations"]
        kind = {"bias": False, **{name: operation_settings.get(name) for name in ("device", "dtype")}}
        self.w1 = layers.Linear(dim, width, **kind)
        self.w2 = layers.Linear(width, dim, **kind)
        self.w3 = layers.Linear(dim, width, **kind)

    def forward(self, x):
        return self.w2(clamp_fp16(nn.functional.silu(self.w1(x)) * self.w3(x)))


globals().update(absent_classes(__name__, "JointAttention", "JointTransformerBlock", "FinalLayer", "NextDiT"))
NextDiTPixelSpace = absent_class(__name__, "NextDiTPixelSpace", globals()["NextDiT"])

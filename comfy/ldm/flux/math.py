# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Rotary positions over several axes (Su et al. 2021) and attention with them."""

from __future__ import annotations

import torch

import comfy.ldm.modules.attention


def optimized_attention(*args, **kwargs):
    """`comfy.ldm.modules.attention.optimized_attention` as it is now."""
    return comfy.ldm.modules.attention.optimized_attention(*args, **kwargs)


def attention(q, k, v, pe, mask=None, transformer_options={}):
    """q, k, v (B, heads, tokens, d) turned by `pe`, if there is any -> (B, tokens, heads * d)."""
    if pe is not None:
        q, k = apply_rope(q, k, pe)
    options = {"skip_reshape": True, "mask": mask, "transformer_options": transformer_options}
    return optimized_attention(q, k, v, q.shape[1], **options)


def rope(pos, dim: int, theta: int):
    """Rotations (B, tokens, dim / 2, 2, 2) for positions (B, tokens): one matrix per pair of channels."""
    if dim % 2:
        raise ValueError(f"Rotary positions need an even number of channels, not {dim}.")
    device = "cpu" if pos.device.type == "mps" else pos.device  # which has no fp64
    speeds = float(theta) ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)
    angles = pos.to(device=device, dtype=torch.float32)[..., None] * speeds
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
    return turned.to(device=pos.device, dtype=torch.float32)


def apply_rope1(x, freqs_cis):
    """x (..., tokens, d) with each pair of channels turned; positions beyond the tokens are left out."""
    if freqs_cis.shape[2] not in (1, x.shape[2]) and x.shape[2] != 1:
        freqs_cis = freqs_cis[:, :, : x.shape[2]]
    pairs = x.to(freqs_cis.dtype).unflatten(-1, (-1, 1, 2))
    return (freqs_cis * pairs).sum(dim=-1).flatten(-2).to(x.dtype)


def apply_rope(xq, xk, freqs_cis):
    """Queries and keys, each turned."""
    return apply_rope1(xq, freqs_cis), apply_rope1(xk, freqs_cis)


_apply_rope, _apply_rope1 = apply_rope, apply_rope1

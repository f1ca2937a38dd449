"""Rotary positions of LTX-Video, in the forms of all its versions, and small layers; networks are absent."""

from __future__ import annotations

import torch
from torch import nn

from comfy.absent_families import absent_class, absent_classes


def _rotated(x, matrices, is_split: bool):
    """x (B, tokens, heads, d) with each pair of channels turned: neighbours, or one of either half."""
    pairs = x.unflatten(-1, (2, -1)).transpose(-1, -2) if is_split else x.unflatten(-1, (-1, 2))
    turned = (matrices * pairs.to(matrices.dtype).unsqueeze(-2)).sum(dim=-1)
    turned = turned.transpose(-1, -2) if is_split else turned
    return turned.flatten(-2).to(x.dtype)


def interleaved_freqs_cis(input_tensor, cos_freqs, sin_freqs):
    """x * cos + (x turned by a quarter, pairs being neighbours) * sin."""
    first, second = input_tensor.unflatten(-1, (-1, 2)).unbind(-1)
    return input_tensor * cos_freqs + torch.stack((-second, first), dim=-1).flatten(-2) * sin_freqs


def split_freqs_cis(input_tensor, cos, sin):
    """The same for pairs of either half; x (B, tokens, heads * d), cos and sin (B, heads, tokens, d / 2)."""
    x = input_tensor
    if x.ndim != 4 and cos.ndim == 4:
        x = x.unflatten(-1, (cos.shape[1], -1)).transpose(1, 2)
    first, second = x.chunk(2, dim=-1)
    out = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return out if out.ndim == input_tensor.ndim else out.transpose(1, 2).flatten(2)


def apply_rotary_emb(input_tensor, freqs_cis):
    """x (B, tokens, heads * d) with its positions.

    `freqs_cis` is (rotations (B, tokens, heads, d / 2, 2, 2), is split), or as of earlier versions (cos, sin)
    or (cos, sin, is split).
    """
    if not torch.is_tensor(freqs_cis[1]):
        matrices, is_split = freqs_cis
        x = input_tensor.unflatten(-1, (matrices.shape[2], -1)) if input_tensor.ndim == 3 else input_tensor
        return _rotated(x, matrices, is_split).reshape(input_tensor.shape)
    cos, sin, *split = freqs_cis
    return (split_freqs_cis if split and split[0] else interleaved_freqs_cis)(input_tensor, cos, sin)


def apply_rotary_emb_qk(q, k, freqs_cis):
    """Queries and keys, each with its positions."""
    return apply_rotary_emb(q, freqs_cis), apply_rotary_emb(k, freqs_cis)


class GELU_approx(nn.Module):  # noqa: N801 - the name that packs import
    """A linear layer, then GELU by the tanh formula."""

    def __init__(self, dim_in, dim_out, dtype=None, device=None, operations=None):
        super().__init__()
        self.proj = operations.Linear(dim_in, dim_out, dtype=dtype, device=device)

    def forward(self, x):
        return nn.functional.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers around GELU."""

    def __init__(
        self, dim, dim_out, mult=4, glu=False, dropout=0.0, dtype=None, device=None, operations=None
    ):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        first = GELU_approx(dim, int(dim * mult), operations=operations, **kind)
        last = operations.Linear(int(dim * mult), dim_out, **kind)
        self.net = nn.Sequential(first, nn.Dropout(dropout), last)

    def forward(self, x):
        return self.net(x)


globals().update(
    absent_classes(__name__, "CrossAttention", "BasicTransformerBlock", "LTXBaseModel", "AdaLayerNormSingle",
                   "PixArtAlphaTextProjection", "PixArtAlphaCombinedTimestepSizeEmbeddings",
                   "NormSingleLinearTextProjection", "TimestepEmbedding", "Timesteps", "GuideAttentionMask")
)  # fmt: skip
LTXVModel = absent_class(__name__, "LTXVModel", globals()["LTXBaseModel"])

"""Rotary positions of LTX-Video, in the forms of all its versions, and small layers; networks are absent."""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import nn

from comfy.absent_families import absent_class, absent_classes


class LTXRopeType(str, Enum):  # noqa: UP042 - packs compare with plain texts
    """Which channels are turned together: neighbours, or one of either half."""

    INTERLEAVED = "interleaved"
    SPLIT = "split"

    KEY = "rope_type"

    @classmethod
    def from_dict(cls, kwargs, default=None):
        return cls(kwargs.get(cls.KEY.value, cls.INTERLEAVED if default is None else default))


class LTXFrequenciesPrecision(str, Enum):  # noqa: UP042 - packs compare with plain texts
    """In which precision the frequencies of positions are computed."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"

    KEY = "frequencies_precision"

    @classmethod
    def from_dict(cls, kwargs, default=None):
        return cls(kwargs.get(cls.KEY.value, cls.FLOAT32 if default is None else default))


def generate_freq_grid_np(positional_embedding_theta, positional_embedding_max_pos_count, inner_dim, _=None):
    """Frequencies (inner_dim // (2 * axes),) from pi/2 to theta * pi/2, in equal ratios, computed in fp64."""
    count = inner_dim // (2 * positional_embedding_max_pos_count)
    exponents = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    return (positional_embedding_theta**exponents * math.pi / 2).float()


def precompute_freqs_cis(indices_grid, dim, out_dtype, theta=10000.0, max_pos=(20, 2048, 2048)):
    """(cos, sin) (B, tokens, dim) of positions (B, 3, tokens) in the form of the first LTX-Video."""
    sizes = torch.tensor(max_pos, device=indices_grid.device, dtype=torch.float32)
    places = indices_grid.float().transpose(1, 2) / sizes * 2 - 1  # (B, tokens, 3)
    frequencies = theta ** torch.linspace(0.0, 1.0, dim // 6, device=places.device) * (math.pi / 2)
    angles = (places.unsqueeze(-1) * frequencies).transpose(-1, -2).flatten(2)
    rest = (*angles.shape[:2], dim % 6)  # channels that are not turned come first
    cos = torch.cat((angles.new_ones(rest), angles.cos().repeat_interleave(2, dim=-1)), dim=-1)
    sin = torch.cat((angles.new_zeros(rest), angles.sin().repeat_interleave(2, dim=-1)), dim=-1)
    return cos.to(out_dtype), sin.to(out_dtype)


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

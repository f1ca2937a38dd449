# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The layers of Flux.1 with the names of weights that its files have.

`attention` is looked up here when it is used. `operations` is a set of layers: `comfy.ops.manual_cast`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

import comfy.ldm.modules.diffusionmodules.util as util
from comfy.ldm.flux.math import attention, rope
from comfy.rmsnorm import RMSNorm

FP16_LIMIT = 65504


class EmbedND(nn.Module):
    """Rotations (B, 1, tokens, dim / 2, 2, 2) for positions (B, tokens, axes); each axis has its channels."""

    def __init__(self, dim: int, theta: int, axes_dim: list):
        super().__init__()
        self.dim, self.theta, self.axes_dim = dim, theta, axes_dim

    def forward(self, ids):
        axes = [
            rope(ids[..., axis], width, self.theta)
            for axis, width in zip(range(ids.shape[-1]), self.axes_dim)
        ]
        return torch.cat(axes, dim=-3).unsqueeze(1)


def timestep_embedding(t, dim, max_period=10000, time_factor: float = 1000.0):
    """Sinusoids (B, dim) of times (B,) from 0 to 1, in the dtype of the times."""
    out = util.timestep_embedding(t * time_factor, dim, max_period)
    return out.to(t.dtype) if t.is_floating_point() else out


class MLPEmbedder(nn.Module):
    """Two linear layers with SiLU between."""

    def __init__(self, in_dim: int, hidden_dim: int, bias=True, dtype=None, device=None, operations=None):
        super().__init__()
        kind = {"bias": bias, "dtype": dtype, "device": device}
        self.in_layer = operations.Linear(in_dim, hidden_dim, **kind)
        self.silu = nn.SiLU()
        self.out_layer = operations.Linear(hidden_dim, hidden_dim, **kind)

    def forward(self, x):
        return self.out_layer(self.silu(self.in_layer(x)))


class SiLUActivation(nn.Module):
    """The second half of the channels, gated by SiLU of the first."""

    def __init__(self):
        super().__init__()
        self.gate_fn = nn.SiLU()

    def forward(self, x):
        gate, value = x.chunk(2, dim=-1)
        return self.gate_fn(gate) * value


class YakMLP(nn.Module):
    """A feed-forward layer gated by SiLU, with biases."""

    def __init__(self, hidden_size: int, intermediate_size: int, dtype=None, device=None, operations=None):
        super().__init__()
        kind = {"bias": True, "dtype": dtype, "device": device}
        self.hidden_size, self.intermediate_size = hidden_size, intermediate_size
        self.gate_proj = operations.Linear(hidden_size, intermediate_size, **kind)
        self.up_proj = operations.Linear(hidden_size, intermediate_size, **kind)
        self.down_proj = operations.Linear(intermediate_size, hidden_size, **kind)
        self.act_fn = nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def build_mlp(
    hidden_size, mlp_hidden_dim, mlp_silu_act=False, yak_mlp=False, dtype=None, device=None, operations=None
):
    """The feed-forward layer of a block: with GELU (Flux.1), with SiLU gates (Flux.2), or a `YakMLP`."""
    kind = {"dtype": dtype, "device": device}
    if yak_mlp:
        return YakMLP(hidden_size, mlp_hidden_dim, operations=operations, **kind)
    activation = SiLUActivation() if mlp_silu_act else nn.GELU(approximate="tanh")
    width, bias = (2 * mlp_hidden_dim, False) if mlp_silu_act else (mlp_hidden_dim, True)
    return nn.Sequential(
        operations.Linear(hidden_size, width, bias=bias, **kind),
        activation,
        operations.Linear(mlp_hidden_dim, hidden_size, bias=bias, **kind),
    )


class QKNorm(nn.Module):
    """RMS norms of queries and keys."""

    def __init__(self, dim: int, dtype=None, device=None, operations=None):
        super().__init__()
        self.query_norm = operations.RMSNorm(dim, dtype=dtype, device=device)
        self.key_norm = operations.RMSNorm(dim, dtype=dtype, device=device)

    def forward(self, q, k, v):
        return self.query_norm(q).to(v), self.key_norm(k).to(v)


def _by_head(qkv, heads: int):
    """(B, tokens, 3 * heads * d) -> three of (B, heads, tokens, d)."""
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)


class SelfAttention(nn.Module):
    """The layers around the attention of one stream; the block runs them."""

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, proj_bias: bool = True, dtype=None,
        device=None, operations=None,
    ):  # fmt: skip
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.num_heads = num_heads
        self.qkv = operations.Linear(dim, dim * 3, bias=qkv_bias, **kind)
        self.norm = QKNorm(dim // num_heads, operations=operations, **kind)
        self.proj = operations.Linear(dim, dim, bias=proj_bias, **kind)


@dataclass
class ModulationOut:
    """What a vector makes of a stream: each (B, 1, hidden)."""

    shift: torch.Tensor
    scale: torch.Tensor
    gate: torch.Tensor


class Modulation(nn.Module):
    """One or, with `double`, two modulations from the vector (B, hidden)."""

    def __init__(self, dim: int, double: bool, bias=True, dtype=None, device=None, operations=None):
        super().__init__()
        self.is_double, self.multiplier = double, 6 if double else 3
        self.lin = operations.Linear(dim, self.multiplier * dim, bias=bias, dtype=dtype, device=device)

    def forward(self, vec):
        vec = vec[:, None] if vec.ndim == 2 else vec
        parts = self.lin(nn.functional.silu(vec)).chunk(self.multiplier, dim=-1)
        return ModulationOut(*parts[:3]), ModulationOut(*parts[3:]) if self.is_double else None


def apply_mod(tensor, m_mult, m_add=None, modulation_dims=None):
    """tensor * m_mult + m_add; `modulation_dims` has (start, end, which row) for parts of the tokens."""
    if modulation_dims is None:
        return tensor * m_mult if m_add is None else torch.addcmul(m_add, tensor, m_mult)
    out = tensor.clone()
    for start, end, row in modulation_dims:
        out[:, start:end] *= m_mult[:, row : row + 1]
        if m_add is not None:
            out[:, start:end] += m_add[:, row : row + 1]
    return out


def _within_fp16(x):
    return (
        torch.nan_to_num(x, nan=0.0, posinf=FP16_LIMIT, neginf=-FP16_LIMIT) if x.dtype == torch.float16 else x
    )


class _Attended(NamedTuple):
    """What goes into attention, as patches leave it."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    pe: torch.Tensor | None
    attn_mask: torch.Tensor | None


def _attend(given: _Attended, transformer_options: dict, told: dict):
    """Attention between the patches of its input and of its output."""
    patches = transformer_options.get("patches", {})
    for patch in patches.get("attn1_patch", ()):
        out = patch(given.q, given.k, given.v, pe=given.pe, attn_mask=given.attn_mask, extra_options=told)
        given = given._replace(**{name: out[name] for name in given._fields if name in out})
    q, k, v, pe, mask = given
    out = attention(q, k, v, pe=pe, mask=mask, transformer_options=transformer_options)
    for patch in patches.get("attn1_output_patch", ()):
        out = patch(out, told)
    return out


class DoubleStreamBlock(nn.Module):
    """Picture and text, each with weights of its own, attending to both together."""

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_ratio: float, qkv_bias: bool = False, modulation=True,
        mlp_silu_act=False, proj_bias=True, yak_mlp=False, dtype=None, device=None, operations=None,
    ):  # fmt: skip
        super().__init__()
        self.num_heads, self.hidden_size, self.modulation = num_heads, hidden_size, modulation
        kind = {"dtype": dtype, "device": device, "operations": operations}
        plain = {"elementwise_affine": False, "eps": 1e-6, "dtype": dtype, "device": device}
        for side in ("img", "txt"):
            parts = {
                "norm1": operations.LayerNorm(hidden_size, **plain),
                "attn": SelfAttention(hidden_size, num_heads, qkv_bias, proj_bias, **kind),
                "norm2": operations.LayerNorm(hidden_size, **plain),
                "mlp": build_mlp(hidden_size, int(hidden_size * mlp_ratio), mlp_silu_act, yak_mlp, **kind),
            }
            if modulation:
                parts = {"mod": Modulation(hidden_size, double=True, **kind), **parts}
            for name, part in parts.items():
                setattr(self, f"{side}_{name}", part)

    def _part(self, side: str, name: str):
        return getattr(self, f"{side}_{name}")

    def forward(
        self, img, txt, vec, pe, attn_mask=None, modulation_dims_img=None, modulation_dims_txt=None,
        transformer_options={},
    ):  # fmt: skip
        mods = (self.img_mod(vec), self.txt_mod(vec)) if self.modulation else vec
        sides = {"txt": (txt, mods[1], modulation_dims_txt), "img": (img, mods[0], modulation_dims_img)}
        parts = [self._queries(side, *given) for side, given in sides.items()]
        q, k, v = (torch.cat(both, dim=2) for both in zip(*parts))
        told = {**transformer_options, "img_slice": [txt.shape[1], q.shape[2]]}
        out = _attend(_Attended(q, k, v, pe, attn_mask), transformer_options, told)
        words, pixels = out.split([txt.shape[1], out.shape[1] - txt.shape[1]], dim=1)
        img, txt = self._finished("img", pixels, *sides["img"]), self._finished("txt", words, *sides["txt"])
        return img, _within_fp16(txt)

    def _queries(self, side: str, x, mods, dims):
        """Queries, keys and values (B, heads, tokens, d) of one stream."""
        layer = self._part(side, "attn")
        x = apply_mod(self._part(side, "norm1")(x), 1 + mods[0].scale, mods[0].shift, dims)
        q, k, v = _by_head(layer.qkv(x), self.num_heads)
        return (*layer.norm(q, k, v), v)

    def _finished(self, side: str, attended, x, mods, dims):
        """The stream with what it attended to, and through its feed-forward layer."""
        x = x + apply_mod(self._part(side, "attn").proj(attended), mods[0].gate, None, dims)
        normed = apply_mod(self._part(side, "norm2")(x), 1 + mods[1].scale, mods[1].shift, dims)
        return x + apply_mod(self._part(side, "mlp")(normed), mods[1].gate, None, dims)


class SingleStreamBlock(nn.Module):
    """Text and picture as one stream; attention and the feed-forward layer run side by side."""

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0, qk_scale: float | None = None,
        modulation=True, mlp_silu_act=False, bias=True, yak_mlp=False, dtype=None, device=None,
        operations=None,
    ):  # fmt: skip
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        head = hidden_size // num_heads
        self.hidden_dim = self.hidden_size = hidden_size
        self.num_heads, self.scale, self.yak_mlp = num_heads, qk_scale or head**-0.5, yak_mlp
        self.mlp_hidden_dim = int(hidden_size * mlp_ratio)
        gated = mlp_silu_act or yak_mlp
        self.mlp_hidden_dim_first = self.mlp_hidden_dim * (2 if gated else 1)
        self.mlp_act = nn.GELU(approximate="tanh")
        if gated:
            self.mlp_act = nn.SiLU() if yak_mlp else SiLUActivation()
        first = hidden_size * 3 + self.mlp_hidden_dim_first
        self.linear1 = operations.Linear(hidden_size, first, bias=bias, **kind)
        self.linear2 = operations.Linear(hidden_size + self.mlp_hidden_dim, hidden_size, bias=bias, **kind)
        self.norm = QKNorm(head, operations=operations, **kind)
        self.pre_norm = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kind)
        self.modulation = None
        if modulation:
            self.modulation = Modulation(hidden_size, double=False, operations=operations, **kind)

    def forward(self, x, vec, pe, attn_mask=None, modulation_dims=None, transformer_options={}):
        mod = self.modulation(vec)[0] if self.modulation else vec
        normed = apply_mod(self.pre_norm(x), 1 + mod.scale, mod.shift, modulation_dims)
        qkv, mlp = self.linear1(normed).split([3 * self.hidden_size, self.mlp_hidden_dim_first], dim=-1)
        q, k, v = _by_head(qkv, self.num_heads)
        q, k = self.norm(q, k, v)
        out = _attend(_Attended(q, k, v, pe, attn_mask), transformer_options, dict(transformer_options))
        if self.yak_mlp:
            value, gate = mlp.chunk(2, dim=-1)
            mlp = self.mlp_act(gate) * value
        else:
            mlp = self.mlp_act(mlp)
        out = self.linear2(torch.cat((out, mlp), dim=2))
        return _within_fp16(x + apply_mod(out, mod.gate, None, modulation_dims))


class LastLayer(nn.Module):
    """The tokens to patches of latents, modulated by the vector."""

    def __init__(
        self, hidden_size: int, patch_size: int, out_channels: int, bias=True, dtype=None, device=None,
        operations=None,
    ):  # fmt: skip
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kind)
        self.linear = operations.Linear(hidden_size, patch_size**2 * out_channels, bias=bias, **kind)
        modulation = operations.Linear(hidden_size, 2 * hidden_size, bias=bias, **kind)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, x, vec, modulation_dims=None):
        vec = vec[:, None] if vec.ndim == 2 else vec
        shift, scale = self.adaLN_modulation(vec).chunk(2, dim=-1)
        return self.linear(apply_mod(self.norm_final(x), 1 + scale, shift, modulation_dims))


__all__ = [
    "DoubleStreamBlock",
    "EmbedND",
    "LastLayer",
    "MLPEmbedder",
    "Modulation",
    "ModulationOut",
    "QKNorm",
    "RMSNorm",
    "SelfAttention",
    "SiLUActivation",
    "SingleStreamBlock",
    "YakMLP",
    "apply_mod",
    "attention",
    "build_mlp",
    "rope",
    "timestep_embedding",
]

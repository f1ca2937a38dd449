# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The attention and feed-forward layers of Cosmos Predict 2 by their own names; the networks are absent."""

from __future__ import annotations

import torch
from torch import nn

import comfy.ldm.modules.attention
from comfy.absent_families import absent_class, absent_classes


def optimized_attention(*args, **kwargs):
    """`comfy.ldm.modules.attention.optimized_attention` as it is now."""
    return comfy.ldm.modules.attention.optimized_attention(*args, **kwargs)


def apply_rotary_pos_emb(t, freqs):
    """t (B, tokens, heads, d) turned by rotations (tokens, 1, d / 2, 2, 2); pairs are of either half."""
    pairs = t.unflatten(-1, (2, -1)).transpose(-1, -2).unsqueeze(-2).to(freqs.dtype)
    return (freqs * pairs).sum(dim=-1).transpose(-1, -2).flatten(-2).to(t.dtype)


class GPT2FeedForward(nn.Module):
    """Two linear layers without biases around GELU."""

    def __init__(self, d_model: int, d_ff: int, device=None, dtype=None, operations=None):
        super().__init__()
        kind = {"bias": False, "device": device, "dtype": dtype}
        self.activation = nn.GELU()
        self.layer1 = operations.Linear(d_model, d_ff, **kind)
        self.layer2 = operations.Linear(d_ff, d_model, **kind)

    def forward(self, x):
        return self.layer2(self.activation(self.layer1(x)))


def torch_attention_op(q_B_S_H_D, k_B_S_H_D, v_B_S_H_D, transformer_options: dict | None = None):  # noqa: N803
    """q, k, v (B, ..., heads, d) -> (B, tokens, heads * d)."""
    parts = [t.movedim(-2, 1).flatten(2, -2) for t in (q_B_S_H_D, k_B_S_H_D, v_B_S_H_D)]
    options = {"skip_reshape": True, "transformer_options": transformer_options or {}}
    return optimized_attention(*parts, parts[0].shape[1], **options)


class Attention(nn.Module):
    """Attention with RMS norms per head; to a context where `context_dim` is given, else with positions."""

    def __init__(
        self, query_dim: int, context_dim: int | None = None, n_heads: int = 8, head_dim: int = 64,
        dropout: float = 0.0, device=None, dtype=None, operations=None,
    ):  # fmt: skip
        super().__init__()
        kind = {"device": device, "dtype": dtype}
        inner, width = head_dim * n_heads, query_dim if context_dim is None else context_dim
        self.is_selfattn, self.n_heads, self.head_dim = context_dim is None, n_heads, head_dim
        self.query_dim, self.context_dim = query_dim, width
        for name, width_in in (("q", query_dim), ("k", width), ("v", width)):
            setattr(self, f"{name}_proj", operations.Linear(width_in, inner, bias=False, **kind))
        self.q_norm, self.k_norm = (operations.RMSNorm(head_dim, eps=1e-6, **kind) for _ in range(2))
        self.v_norm = nn.Identity()
        self.output_proj = operations.Linear(inner, query_dim, bias=False, **kind)
        self.output_dropout = nn.Dropout(dropout) if dropout > 1e-4 else nn.Identity()
        self.attn_op = torch_attention_op

    def compute_qkv(self, x, context=None, rope_emb=None, transformer_options={}):
        """q, k and v (B, tokens, heads, d)."""
        context = x if context is None else context
        given = {"q": x, "k": context, "v": context, "pe": rope_emb}
        name = "attn1_patch" if self.is_selfattn else "attn2_patch"
        told = {**transformer_options, "n_heads": self.n_heads, "dim_head": self.head_dim}
        for patch in transformer_options.get("patches", {}).get(name, ()):
            q, k, v, pe = given.values()
            out = patch(q, k, v, pe=pe, attn_mask=None, extra_options=told)
            given.update({key: out[key] for key in given if key in out})
        q, k, v = (
            layer(given[key]).unflatten(-1, (self.n_heads, self.head_dim))
            for key, layer in (("q", self.q_proj), ("k", self.k_proj), ("v", self.v_proj))
        )
        q, k, v = self.q_norm(q), self.k_norm(k), self.v_norm(v)
        if self.is_selfattn and given["pe"] is not None:
            q, k = (apply_rotary_pos_emb(t, given["pe"]) for t in (q, k))
        return q, k, v

    def compute_attention(self, q, k, v, transformer_options={}):
        return self.output_dropout(
            self.output_proj(self.attn_op(q, k, v, transformer_options=transformer_options))
        )

    def forward(self, x, context=None, rope_emb=None, transformer_options={}):
        """x (B, tokens, query_dim)."""
        q, k, v = self.compute_qkv(x, context, rope_emb=rope_emb, transformer_options=transformer_options)
        return self.compute_attention(q, k, v, transformer_options=transformer_options)


class Timesteps(nn.Module):
    """Sinusoids (B, T, channels) of times (B, T): cosines, then sines."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.num_channels = num_channels

    def forward(self, timesteps_B_T):  # noqa: N803
        from comfy.ldm.modules.diffusionmodules.util import timestep_embedding

        flat = timestep_embedding(timesteps_B_T.flatten().float(), self.num_channels)
        return flat.unflatten(0, timesteps_B_T.shape)


globals().update(absent_classes(__name__, "TimestepEmbedding", "PatchEmbed", "FinalLayer", "Block"))
MiniTrainDIT = absent_class(__name__, "MiniTrainDIT", torch.nn.Module)

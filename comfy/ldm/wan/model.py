# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The attention layers of Wan 2.1 by their own names of weights. The networks do not run here.

`operation_settings` is {"operations": a set of layers, "device": ..., "dtype": ...}.
"""

from __future__ import annotations

import torch
from torch import nn

import comfy.ldm.modules.attention
from comfy.absent_families import absent_class, absent_classes
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.flux.math import apply_rope1

__all__ = ["EmbedND", "WanI2VCrossAttention", "WanSelfAttention", "WanT2VCrossAttention", "apply_rope1",
           "repeat_e",
           "sinusoidal_embedding_1d"]  # fmt: skip


def optimized_attention(*args, **kwargs):
    """`comfy.ldm.modules.attention.optimized_attention` as it is now."""
    return comfy.ldm.modules.attention.optimized_attention(*args, **kwargs)


def sinusoidal_embedding_1d(dim, position):
    """(positions, dim): cosines, then sines."""
    if dim % 2:
        raise ValueError(f"Sinusoids need an even number of channels, not {dim}.")
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=position.device)
    angles = torch.outer(position.float(), 10000.0 ** -(steps / half))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def repeat_e(e, x):
    """A modulation (B, 1 or groups, C) for tokens x (B, tokens, C): each row for as many tokens in a row."""
    count = 1 if e.ndim < 2 else e.shape[1]
    if count in (1, x.shape[1]):
        return e
    return e.repeat_interleave(-(-x.shape[1] // count), dim=1)[:, : x.shape[1]]


class WanSelfAttention(nn.Module):
    """Attention with RMS norms over all heads together, then rotary positions."""

    def __init__(
        self, dim, num_heads, window_size=(-1, -1), qk_norm=True, eps=1e-6, kv_dim=None, operation_settings={}
    ):  # fmt: skip
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{dim} channels cannot be shared among {num_heads} heads.")
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.window_size, self.qk_norm, self.eps = window_size, qk_norm, eps
        width = dim if kv_dim is None else kv_dim
        for name, width_in in (("q", dim), ("k", width), ("v", width), ("o", dim)):
            setattr(self, name, self._linear(width_in, operation_settings))
        self.norm_q, self.norm_k = (self._norm(operation_settings) for _ in range(2))

    def _linear(self, width_in: int, settings: dict):
        layers = settings["operations"]
        return layers.Linear(width_in, self.dim, device=settings.get("device"), dtype=settings.get("dtype"))

    def _norm(self, settings: dict):
        if not self.qk_norm:
            return nn.Identity()
        kind = {"device": settings.get("device"), "dtype": settings.get("dtype")}
        return settings["operations"].RMSNorm(self.dim, eps=self.eps, elementwise_affine=True, **kind)

    def forward(self, x, freqs, transformer_options={}):
        """x (B, tokens, dim) with the rotations of its positions."""
        q, k = (
            apply_rope1(norm(layer(x)).unflatten(-1, (self.num_heads, self.head_dim)), freqs)
            for layer, norm in ((self.q, self.norm_q), (self.k, self.norm_k))
        )
        options = {"heads": self.num_heads, "transformer_options": transformer_options}
        out = optimized_attention(q.flatten(2), k.flatten(2), self.v(x), **options)
        for patch in transformer_options.get("patches", {}).get("attn1_patch", ()):
            out = patch({"x": out, "q": q, "k": k, "transformer_options": transformer_options})
        return self.o(out)


class WanT2VCrossAttention(WanSelfAttention):
    """Attention to a text (B, words, dim)."""

    def forward(self, x, context, transformer_options={}, **kwargs):
        return self.o(self._to_text(x, context, transformer_options))

    def _to_text(self, x, context, options: dict):
        q, k = self.norm_q(self.q(x)), self.norm_k(self.k(context))
        return optimized_attention(q, k, self.v(context), heads=self.num_heads, transformer_options=options)


class WanI2VCrossAttention(WanT2VCrossAttention):
    """Attention to a text and, with weights of its own, to the tokens of a picture before it."""

    def __init__(self, dim, num_heads, window_size=(-1, -1), qk_norm=True, eps=1e-6, operation_settings={}):
        super().__init__(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)
        self.k_img, self.v_img = (self._linear(dim, operation_settings) for _ in range(2))
        self.norm_k_img = self._norm(operation_settings)

    def forward(self, x, context, context_img_len, transformer_options={}):
        picture, text = context[:, :context_img_len], context[:, context_img_len:]
        out = self._to_text(x, text, transformer_options)
        k, v = self.norm_k_img(self.k_img(picture)), self.v_img(picture)
        seen = optimized_attention(
            self.norm_q(self.q(x)), k, v, heads=self.num_heads, transformer_options=transformer_options,
            low_precision_attention=False,
        )  # fmt: skip
        return self.o(out + seen)


WAN_CROSSATTENTION_CLASSES = {"t2v_cross_attn": WanT2VCrossAttention, "i2v_cross_attn": WanI2VCrossAttention}

globals().update(
    absent_classes(__name__, "WanAttentionBlock", "WanModel", "WanFeedForward", "WanCamAdapter",
                   "WanCamResidualBlock", "Head", "MLPProj", "CausalConv1d", "MotionEncoder_tc",
                   "CausalAudioEncoder", "AdaLayerNorm", "AudioInjector_WAN", "FramePackMotioner",
                   "AudioCrossAttentionWrapper", "DummyAdapterLayer", "AudioProjModel")
)  # fmt: skip
for _name, _base in (
    ("VaceWanAttentionBlock", "WanAttentionBlock"), ("WanAttentionBlockAudio", "WanAttentionBlock"),
    ("VaceWanModel", "WanModel"), ("CameraWanModel", "WanModel"), ("WanModel_S2V", "WanModel"),
    ("HumoWanModel", "WanModel"), ("SCAILWanModel", "WanModel"), ("SCAIL2WanModel", "SCAILWanModel"),
    ("WanT2VCrossAttentionGather", "WanSelfAttention"),
):  # fmt: skip
    globals()[_name] = absent_class(__name__, _name, globals()[_base])

# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The blocks of Stable Diffusion 3's transformer (Esser et al. 2024), by their own names of weights.

The network as a whole does not run here: `MMDiT` raises FamilyAbsent.
"""

from __future__ import annotations

import functools

import torch
import torch.utils.checkpoint
from torch import nn

import comfy.ldm.common_dit
import comfy.ldm.modules.attention
from comfy.absent_families import absent_class, absent_classes
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from comfy.ldm.util import default


def optimized_attention(*args, **kwargs):
    """`comfy.ldm.modules.attention.optimized_attention` as it is now."""
    return comfy.ldm.modules.attention.optimized_attention(*args, **kwargs)


class Mlp(nn.Module):
    """Two linear layers, or with `use_conv` 1x1 convolutions, around an activation and a norm."""

    def __init__(
        self, in_features, hidden_features=None, out_features=None, act_layer=nn.GELU, norm_layer=None,
        bias=True, drop=0.0, use_conv=False, dtype=None, device=None, operations=None,
    ):  # fmt: skip
        super().__init__()
        layer = functools.partial(operations.Conv2d, kernel_size=1) if use_conv else operations.Linear
        kind = {"bias": bias, "dtype": dtype, "device": device}
        width = hidden_features or in_features
        self.fc1 = layer(in_features, width, **kind)
        self.act, self.drop1, self.drop2 = act_layer(), nn.Dropout(drop), nn.Dropout(drop)
        self.norm = nn.Identity() if norm_layer is None else norm_layer(width)
        self.fc2 = layer(width, out_features or in_features, **kind)

    def forward(self, x):
        return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))


class PatchEmbed(nn.Module):
    """Pictures (B, C, H, W) to tokens of patches; sides that do not fit are continued."""

    def __init__(
        self, img_size=224, patch_size=16, in_chans=3, embed_dim=768, norm_layer=None, flatten=True,
        bias=True, strict_img_size=True, dynamic_img_pad=True, padding_mode="circular",
        conv3d=False, dtype=None,
        device=None, operations=None,
    ):  # fmt: skip
        super().__init__()
        sides = 3 if conv3d else 2
        self.patch_size = (patch_size,) * sides if isinstance(patch_size, int) else patch_size
        self.padding_mode, self.flatten = padding_mode, flatten
        self.strict_img_size, self.dynamic_img_pad = strict_img_size, dynamic_img_pad
        conv = operations.Conv3d if conv3d else operations.Conv2d
        patches = {"kernel_size": patch_size, "stride": patch_size, "bias": bias}
        self.proj = conv(in_chans, embed_dim, dtype=dtype, device=device, **patches)
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, x):
        if self.dynamic_img_pad:
            x = comfy.ldm.common_dit.pad_to_patch_size(x, self.patch_size, padding_mode=self.padding_mode)
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2) if self.flatten else x)


def modulate(x, shift, scale):
    """x (B, tokens, C) * (1 + scale (B, C)) + shift (B, C), if there is any."""
    out = x * (1 + scale.unsqueeze(1))
    return out if shift is None else out + shift.unsqueeze(1)


def get_1d_sincos_pos_embed_from_grid_torch(embed_dim, pos, device=None, dtype=torch.float32):
    """(positions, embed_dim): sines, then cosines."""
    steps = torch.arange(embed_dim // 2, device=device, dtype=dtype) / (embed_dim / 2.0)
    angles = pos.reshape(-1, 1) * 10000.0**-steps
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def get_2d_sincos_pos_embed_torch(
    embed_dim, w, h, val_center=7.5, val_magnitude=7.5, device=None, dtype=torch.float32
):
    """(h * w, embed_dim): columns, then rows; the shorter side spans 2 * val_magnitude around the centre."""
    small = min(h, w)
    rows, columns = (
        torch.linspace(-1, 1, side, device=device, dtype=dtype) * (side / small * val_magnitude) + val_center
        for side in (h, w)
    )
    grid = torch.meshgrid(rows, columns, indexing="ij")
    parts = [get_1d_sincos_pos_embed_from_grid_torch(embed_dim // 2, axis, device, dtype) for axis in grid]
    return torch.cat(parts[::-1], dim=1)


class TimestepEmbedder(nn.Module):
    """Times (B,) as vectors (B, output_size)."""

    def __init__(
        self, hidden_size, frequency_embedding_size=256, output_size=None, dtype=None, device=None,
        operations=None, max_period=10000,
    ):  # fmt: skip
        super().__init__()
        kind = {"bias": True, "dtype": dtype, "device": device}
        first = operations.Linear(frequency_embedding_size, hidden_size, **kind)
        self.mlp = nn.Sequential(
            first, nn.SiLU(), operations.Linear(hidden_size, default(output_size, hidden_size), **kind)
        )
        self.frequency_embedding_size, self.max_period = frequency_embedding_size, max_period

    def forward(self, t, dtype, **kwargs):
        sinusoids = timestep_embedding(t, self.frequency_embedding_size, max_period=self.max_period)
        return self.mlp(sinusoids.to(dtype))


class VectorEmbedder(nn.Module):
    """A vector through two linear layers around SiLU."""

    def __init__(self, input_dim: int, hidden_size: int, dtype=None, device=None, operations=None):
        super().__init__()
        kind = {"bias": True, "dtype": dtype, "device": device}
        self.mlp = nn.Sequential(
            operations.Linear(input_dim, hidden_size, **kind),
            nn.SiLU(),
            operations.Linear(hidden_size, hidden_size, **kind),
        )

    def forward(self, x):
        return self.mlp(x)


def split_qkv(qkv, head_dim):
    """(B, tokens, 3 * heads * d) -> three of (B, tokens, heads, d)."""
    return qkv.unflatten(-1, (3, -1, head_dim)).unbind(2)


class RMSNorm(nn.Module):
    """RMS norm over the last side, with weights where `elementwise_affine`."""

    def __init__(
        self, dim: int, elementwise_affine: bool = False, eps: float = 1e-6, device=None, dtype=None, **kwargs
    ):
        super().__init__()
        self.eps, self.learnable_scale = eps, elementwise_affine
        self.weight = None
        if elementwise_affine:
            self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))

    def forward(self, x):
        return comfy.ldm.common_dit.rms_norm(x, self.weight, self.eps)


def _norm_of_heads(kind: str | None, width: int, operations, **options):
    if kind is None:
        return nn.Identity()
    if kind not in ("rms", "ln"):
        raise ValueError(f"qk_norm is 'rms', 'ln' or None, not {kind!r}.")
    layer = RMSNorm if kind == "rms" else operations.LayerNorm
    return layer(width, elementwise_affine=True, eps=1e-6, **options)


class SelfAttention(nn.Module):
    """The layers around attention; blocks run the attention of text and picture together."""

    def __init__(
        self, dim: int, num_heads: int = 8, qkv_bias: bool = False, qk_scale: float | None = None,
        proj_drop: float = 0.0, attn_mode: str = "xformers", pre_only: bool = False,
        qk_norm: str | None = None, rmsnorm: bool = False, dtype=None, device=None, operations=None,
    ):  # fmt: skip
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.attn_mode, self.pre_only = attn_mode, pre_only
        self.qkv = operations.Linear(dim, dim * 3, bias=qkv_bias, **kind)
        if not pre_only:
            self.proj, self.proj_drop = operations.Linear(dim, dim, **kind), nn.Dropout(proj_drop)
        self.ln_q, self.ln_k = (_norm_of_heads(qk_norm, self.head_dim, operations, **kind) for _ in range(2))

    def pre_attention(self, x):
        """q and k (B, tokens, C), v (B, tokens, heads, d)."""
        q, k, v = split_qkv(self.qkv(x), self.head_dim)
        return self.ln_q(q).flatten(2), self.ln_k(k).flatten(2), v

    def post_attention(self, x):
        return self.proj_drop(self.proj(x))

    def forward(self, x):
        q, k, v = self.pre_attention(x)
        return self.post_attention(optimized_attention(q, k, v.flatten(2), heads=self.num_heads))


class SwiGLUFeedForward(nn.Module):
    """SwiGLU of two thirds of the width, up to a multiple of `multiple_of`."""

    def __init__(self, dim: int, hidden_dim: int, multiple_of: int, ffn_dim_multiplier: float | None = None):
        super().__init__()
        width = int(2 * hidden_dim / 3)
        width = width if ffn_dim_multiplier is None else int(ffn_dim_multiplier * width)
        width = -(-width // multiple_of) * multiple_of
        self.w1 = nn.Linear(dim, width, bias=False)
        self.w2 = nn.Linear(width, dim, bias=False)
        self.w3 = nn.Linear(dim, width, bias=False)

    def forward(self, x):
        return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))


class DismantledBlock(nn.Module):
    """One stream of a block in two halves, around the attention that both streams share.

    `pre_only`: only the first half; `x_block_self_attn`: a second attention, of this stream to itself.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0, attn_mode: str = "xformers",
        qkv_bias: bool = False, pre_only: bool = False, rmsnorm: bool = False, scale_mod_only: bool = False,
        swiglu: bool = False, qk_norm: str | None = None, x_block_self_attn: bool = False, dtype=None,
        device=None, operations=None, **block_kwargs,
    ):  # fmt: skip
        super().__init__()
        if x_block_self_attn and (pre_only or scale_mod_only):
            raise ValueError("A block with x_block_self_attn has both halves, and shifts as well as scales.")
        kind = {"dtype": dtype, "device": device}
        attend = {"attn_mode": attn_mode, "qk_norm": qk_norm, "operations": operations, **kind}
        self.x_block_self_attn, self.pre_only, self.scale_mod_only = (
            x_block_self_attn,
            pre_only,
            scale_mod_only,
        )

        def norm():
            if rmsnorm:
                return RMSNorm(hidden_size, elementwise_affine=False, eps=1e-6)
            return operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kind)

        self.norm1 = norm()
        self.attn = SelfAttention(hidden_size, num_heads, qkv_bias, pre_only=pre_only, **attend)
        if x_block_self_attn:
            self.attn2 = SelfAttention(hidden_size, num_heads, qkv_bias, **attend)
        if not pre_only:
            self.norm2 = norm()
            width = int(hidden_size * mlp_ratio)
            gelu = functools.partial(nn.GELU, approximate="tanh")
            self.mlp = (
                SwiGLUFeedForward(hidden_size, width, multiple_of=256)
                if swiglu
                else Mlp(hidden_size, width, act_layer=gelu, operations=operations, **kind)
            )
        count = 9 if x_block_self_attn else 1 + (not scale_mod_only)
        if not pre_only and not x_block_self_attn:
            count = 2 * count + 2
        linear = operations.Linear(hidden_size, count * hidden_size, bias=True, **kind)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), linear)

    def _modulations(self, c, count: int):
        """shift, scale, gate of attention, then of the feed-forward layer; shifts are None where absent."""
        if not self.scale_mod_only:
            return self.adaLN_modulation(c).chunk(count, dim=1)
        if self.pre_only:
            return None, self.adaLN_modulation(c)
        scale, gate, mlp_scale, mlp_gate = self.adaLN_modulation(c).chunk(4, dim=1)
        return None, scale, gate, None, mlp_scale, mlp_gate

    def pre_attention(self, x, c):
        """(q, k, v; what `post_attention` takes besides the result, None with `pre_only`)."""
        shift, scale, *rest = self._modulations(c, 2 if self.pre_only else 6)
        qkv = self.attn.pre_attention(modulate(self.norm1(x), shift, scale))
        return qkv, (x, *rest) if rest else None

    def post_attention(self, attn, x, gate_msa, shift_mlp, scale_mlp, gate_mlp):
        x = x + gate_msa.unsqueeze(1) * self.attn.post_attention(attn)
        return self._fed(x, shift_mlp, scale_mlp, gate_mlp)

    def _fed(self, x, shift, scale, gate):
        return x + gate.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift, scale))

    def pre_attention_x(self, x, c):
        """As `pre_attention`, with q, k and v of the second attention after those of the first."""
        shift, scale, *rest, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(9, dim=1)
        normed = self.norm1(x)
        qkv = self.attn.pre_attention(modulate(normed, shift, scale))
        return qkv, self.attn2.pre_attention(modulate(normed, shift2, scale2)), (x, *rest, gate2)

    def post_attention_x(self, attn, attn2, x, gate_msa, shift_mlp, scale_mlp, gate_mlp, gate_msa2):
        parts = self.attn.post_attention(attn), self.attn2.post_attention(attn2)
        return self._fed(gate_cat(x, gate_msa, gate_msa2, *parts), shift_mlp, scale_mlp, gate_mlp)

    def forward(self, x, c):
        """x (B, tokens, C) modulated by c (B, C), attending to itself."""
        if not self.x_block_self_attn:
            (q, k, v), rest = self.pre_attention(x, c)
            out = optimized_attention(q, k, v.flatten(2), heads=self.attn.num_heads)
            return self.post_attention(out, *rest)
        *both, rest = self.pre_attention_x(x, c)
        outs = [optimized_attention(q, k, v.flatten(2), heads=self.attn.num_heads) for q, k, v in both]
        return self.post_attention_x(*outs, *rest)


def gate_cat(x, gate_msa, gate_msa2, attn1, attn2):
    """x plus both attentions, each times its gate."""
    return x + gate_msa.unsqueeze(1) * attn1 + gate_msa2.unsqueeze(1) * attn2


def block_mixing(*args, use_checkpoint=True, **kwargs):
    """(text, picture) after a block; see `JointBlock`."""
    if use_checkpoint and torch.is_grad_enabled():
        return torch.utils.checkpoint.checkpoint(_block_mixing, *args, use_reentrant=False, **kwargs)
    return _block_mixing(*args, **kwargs)


def _block_mixing(context, x, context_block, x_block, c, transformer_options={}):
    options = {"heads": x_block.attn.num_heads, "transformer_options": transformer_options}
    text, text_rest = context_block.pre_attention(context, c)
    own = None
    if x_block.x_block_self_attn:
        picture, own, rest = x_block.pre_attention_x(x, c)
    else:
        picture, rest = x_block.pre_attention(x, c)
    q, k, v = (torch.cat(both, dim=1) for both in zip(text, picture))
    out = optimized_attention(q, k, v.flatten(2), **options)
    words = text[0].shape[1]
    context = None if context_block.pre_only else context_block.post_attention(out[:, :words], *text_rest)
    if own is None:
        return context, x_block.post_attention(out[:, words:], *rest)
    q, k, v = own
    return context, x_block.post_attention_x(
        out[:, words:], optimized_attention(q, k, v.flatten(2), **options), *rest
    )


class JointBlock(nn.Module):
    """Text and picture, each with weights of its own, attending to both: (context, x, c=...) -> both."""

    def __init__(self, *args, pre_only, qk_norm=None, x_block_self_attn=False, **kwargs):
        super().__init__()
        self.context_block = DismantledBlock(*args, pre_only=pre_only, qk_norm=qk_norm, **kwargs)
        self.x_block = DismantledBlock(
            *args, pre_only=False, qk_norm=qk_norm, x_block_self_attn=x_block_self_attn, **kwargs
        )

    def forward(self, *args, **kwargs):
        return block_mixing(*args, context_block=self.context_block, x_block=self.x_block, **kwargs)


class FinalLayer(nn.Module):
    """Tokens to patches, modulated by c (B, hidden)."""

    def __init__(
        self, hidden_size: int, patch_size: int, out_channels: int, total_out_channels: int | None = None,
        dtype=None, device=None, operations=None,
    ):  # fmt: skip
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        width = default(total_out_channels, patch_size**2 * out_channels)
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kind)
        self.linear = operations.Linear(hidden_size, width, bias=True, **kind)
        modulation = operations.Linear(hidden_size, 2 * hidden_size, bias=True, **kind)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


globals().update(
    absent_classes(__name__, "SelfAttentionContext", "ContextProcessorBlock", "ContextProcessor")
)
MMDiT = absent_class(__name__, "MMDiT")
OpenAISignatureMMDITWrapper = absent_class(__name__, "OpenAISignatureMMDITWrapper", MMDiT)

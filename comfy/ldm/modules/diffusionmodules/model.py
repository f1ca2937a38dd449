"""The autoencoder of latent diffusion: encoder, decoder, and DDPM's UNet, with the names of their weights.

With `conv3d` the convolutions see frames as well, never later ones; a clip is (B, C, frames, H, W) and is
taken as a whole, so that norms are over all its frames.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn

import comfy.ops
from comfy import model_management

ops = comfy.ops.disable_weight_init


def torch_cat_if_needed(xl, dim):
    """The tensors that are there, one after the other; None where there are none."""
    found = [x for x in xl if x is not None and x.shape[dim] > 0]
    if not found:
        return None
    return found[0] if len(found) == 1 else torch.cat(found, dim)


def get_timestep_embedding(timesteps, embedding_dim, flip_sin_to_cos=False, downscale_freq_shift=1):
    """Sinusoids (B, embedding_dim) of times (B,): sines, then cosines, unless flipped (Ho et al. 2020)."""
    half = embedding_dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(steps * -math.log(10000) / (half - downscale_freq_shift))
    parts = [angles.sin(), angles.cos()]
    return F.pad(torch.cat(parts[::-1] if flip_sin_to_cos else parts, dim=1), (0, embedding_dim % 2))


def nonlinearity(x):
    """Swish."""
    return F.silu(x)


def Normalize(in_channels, num_groups=32):  # noqa: N802 - the name that packs import
    return ops.GroupNorm(num_groups=num_groups, num_channels=in_channels, eps=1e-6, affine=True)


class VideoConv3d(nn.Module):
    """A convolution over frames and pixels that sees no later frame; borders are continued."""

    def __init__(
        self, n_channels, out_channels, kernel_size, stride=1, dilation=1, padding_mode="replicate",
        padding=1, **kwargs,
    ):  # fmt: skip
        super().__init__()
        self.padding_mode = padding_mode
        self.padding = (padding,) * 4 + (kernel_size - 1, 0) if padding else 0
        self.conv = ops.Conv3d(
            n_channels, out_channels, kernel_size, stride=stride, dilation=dilation, **kwargs
        )

    def forward(self, x):
        return self.conv(F.pad(x, self.padding, mode=self.padding_mode) if self.padding else x)


class CarriedConv3d(VideoConv3d):
    """As VideoConv3d: a clip is taken as a whole here, so nothing is carried from one part to the next."""


def interpolate_up(x, scale_factor):
    return F.interpolate(x, scale_factor=scale_factor, mode="nearest")


class Upsample(nn.Module):
    """Larger by nearest neighbour, then a convolution; the first frame of a clip stays one frame."""

    def __init__(self, in_channels, with_conv, conv_op=ops.Conv2d, scale_factor=2.0):
        super().__init__()
        self.with_conv, self.scale_factor = with_conv, scale_factor
        if with_conv:
            self.conv = conv_op(in_channels, in_channels, kernel_size=3, stride=1, padding=1)

    def forward(self, x):
        factor = self.scale_factor
        factor = (factor,) * (x.ndim - 2) if isinstance(factor, (int, float)) else tuple(factor)
        if x.ndim == 5 and factor[0] > 1.0:
            first, rest = x[:, :, :1], x[:, :, 1:]
            parts = [interpolate_up(first, (1.0, *factor[1:]))]
            if rest.shape[2]:
                parts.append(interpolate_up(rest, factor))
            x = torch_cat_if_needed(parts, dim=2)
        else:
            x = interpolate_up(x, factor)
        return self.conv(x) if self.with_conv else x


class Downsample(nn.Module):
    """Half the sides: by a convolution over what is padded at the right and below, or by averages."""

    def __init__(self, in_channels, with_conv, stride=2, conv_op=ops.Conv2d):
        super().__init__()
        self.with_conv = with_conv
        if with_conv:
            self.conv = conv_op(in_channels, in_channels, kernel_size=3, stride=stride, padding=0)

    def forward(self, x):
        if not self.with_conv:
            return F.avg_pool2d(x, kernel_size=2, stride=2)
        if x.ndim == 4:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.pad(x, (1, 1, 1, 1, 2, 0), mode="replicate"))


class ResnetBlock(nn.Module):
    """Two convolutions around a residual connection; a time (B, temb_channels) is added between them."""

    def __init__(
        self, *, in_channels, out_channels=None, conv_shortcut=False, dropout=0.0, temb_channels=512,
        conv_op=ops.Conv2d, norm_op=Normalize,
    ):  # fmt: skip
        super().__init__()
        out = in_channels if out_channels is None else out_channels
        self.in_channels, self.out_channels, self.use_conv_shortcut = in_channels, out, conv_shortcut
        self.swish = nn.SiLU()
        self.norm1 = norm_op(in_channels)
        self.conv1 = conv_op(in_channels, out, kernel_size=3, stride=1, padding=1)
        if temb_channels > 0:
            self.temb_proj = ops.Linear(temb_channels, out)
        self.norm2 = norm_op(out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv_op(out, out, kernel_size=3, stride=1, padding=1)
        if in_channels != out and conv_shortcut:
            self.conv_shortcut = conv_op(in_channels, out, kernel_size=3, stride=1, padding=1)
        elif in_channels != out:
            self.nin_shortcut = conv_op(in_channels, out, kernel_size=1, stride=1, padding=0)

    def forward(self, x, temb=None):
        h = self.conv1(self.swish(self.norm1(x)))
        if temb is not None:
            h = h + self.temb_proj(self.swish(temb))[:, :, None, None]
        h = self.conv2(self.dropout(self.swish(self.norm2(h))))
        if self.in_channels != self.out_channels:
            x = (self.conv_shortcut if self.use_conv_shortcut else self.nin_shortcut)(x)
        return x + h


# --- attention over all pixels: q, k, v are (B, C, ...) ---


def slice_attention(q, k, v):
    """q (B, pixels, C), k and v (B, C, pixels) -> (B, C, pixels), some rows at once as the memory allows."""
    need = q.shape[0] * q.shape[1] * k.shape[2] * q.element_size() * 3
    parts = max(1, math.ceil(need / max(1, model_management.get_free_memory(q.device))))
    size = max(1, -(-q.shape[1] // parts))
    out = torch.empty_like(v)
    for start in range(0, q.shape[1], size):
        weights = torch.bmm(q[:, start : start + size], k) * q.shape[-1] ** -0.5
        out[:, :, start : start + size] = torch.bmm(v, weights.softmax(dim=2).transpose(1, 2))
    return out


def normal_attention(q, k, v):
    """With some of the scores at once."""
    flat = (t.flatten(2) for t in (q, k, v))
    queries, keys, values = flat
    return slice_attention(queries.transpose(1, 2), keys, values).reshape(q.shape)


def pytorch_attention(q, k, v):
    """With torch's kernels; where these need too much memory, with some of the scores at once."""
    tokens = [t.flatten(2).transpose(1, 2).unsqueeze(1).contiguous() for t in (q, k, v)]
    try:
        out = F.scaled_dot_product_attention(*tokens)
    except model_management.OOM_EXCEPTION:
        return normal_attention(q, k, v)
    return out.squeeze(1).transpose(1, 2).reshape(q.shape)


def xformers_attention(q, k, v):
    """With xformers' kernels, which must be installed."""
    from comfy.ldm.modules.attention import attention_xformers

    tokens = (t.flatten(2).transpose(1, 2).contiguous() for t in (q, k, v))
    return attention_xformers(*tokens, 1).transpose(1, 2).reshape(q.shape)


def vae_attention():
    """The attention of autoencoders."""
    return xformers_attention if model_management.xformers_enabled_vae() else pytorch_attention


class AttnBlock(nn.Module):
    """One head of attention over all pixels, around a residual connection."""

    def __init__(self, in_channels, conv_op=ops.Conv2d, norm_op=Normalize):
        super().__init__()
        self.in_channels = in_channels
        self.norm = norm_op(in_channels)
        for name in ("q", "k", "v", "proj_out"):
            setattr(self, name, conv_op(in_channels, in_channels, kernel_size=1, stride=1, padding=0))
        self.optimized_attention = vae_attention()

    def forward(self, x):
        h = self.norm(x)
        return x + self.proj_out(self.optimized_attention(self.q(h), self.k(h), self.v(h)))


def make_attn(in_channels, attn_type="vanilla", attn_kwargs=None, conv_op=ops.Conv2d):
    """The attention of a level; there is one type."""
    return AttnBlock(in_channels, conv_op=conv_op)


# --- networks ---


class _Level(nn.Module):
    """Residual blocks of one size, each followed by attention where there is any."""

    def __init__(self, resnet_op, attn_op, widths: list[int], width: int, has_attention: bool, options: dict):
        super().__init__()
        self.block = nn.ModuleList(
            resnet_op(in_channels=width_in, out_channels=width, **options) for width_in in widths
        )
        conv = options["conv_op"]
        self.attn = nn.ModuleList(attn_op(width, conv_op=conv) for _ in widths if has_attention)

    def run(self, index: int, h, temb=None, **kwargs):
        h = self.block[index](h, temb, **kwargs)
        return self.attn[index](h, **kwargs) if len(self.attn) else h


class _Middle(nn.Module):
    """Two residual blocks around attention."""

    def __init__(self, resnet_op, attn_op, width: int, attention_conv, options: dict):
        super().__init__()
        self.block_1 = resnet_op(in_channels=width, out_channels=width, **options)
        self.attn_1 = attn_op(width, conv_op=attention_conv)
        self.block_2 = resnet_op(in_channels=width, out_channels=width, **options)

    def run(self, h, temb=None, **kwargs):
        h = self.attn_1(self.block_1(h, temb, **kwargs), **kwargs)
        return self.block_2(h, temb, **kwargs)


class Model(nn.Module):
    """DDPM's UNet (Ho et al. 2020)."""

    def __init__(
        self, *, ch, out_ch, ch_mult=(1, 2, 4, 8), num_res_blocks, attn_resolutions, dropout=0.0,
        resamp_with_conv=True, in_channels, resolution, use_timestep=True, use_linear_attn=False,
        attn_type="vanilla",
    ):  # fmt: skip
        super().__init__()
        self.ch, self.temb_ch, self.num_resolutions = ch, ch * 4, len(ch_mult)
        self.num_res_blocks, self.resolution, self.in_channels = num_res_blocks, resolution, in_channels
        self.use_timestep = use_timestep
        if use_timestep:
            self.temb = nn.Module()
            widths = ((ch, self.temb_ch), (self.temb_ch, self.temb_ch))
            self.temb.dense = nn.ModuleList(ops.Linear(*pair) for pair in widths)
        options = {"temb_channels": self.temb_ch, "dropout": dropout, "conv_op": ops.Conv2d}
        self.conv_in = ops.Conv2d(in_channels, ch, kernel_size=3, stride=1, padding=1)
        factors, last = (1, *ch_mult), self.num_resolutions - 1
        self.down, width = nn.ModuleList(), ch
        for level in range(self.num_resolutions):
            out = ch * ch_mult[level]
            widths = [ch * factors[level]] + [out] * (num_res_blocks - 1)
            has_attention = resolution // 2**level in attn_resolutions
            part = _Level(ResnetBlock, make_attn, widths, out, has_attention, options)
            if level != last:
                part.downsample = Downsample(out, resamp_with_conv)
            self.down.append(part)
            width = out
        self.mid = _Middle(ResnetBlock, make_attn, width, ops.Conv2d, options)
        self.up = nn.ModuleList()
        for level in reversed(range(self.num_resolutions)):
            out = ch * ch_mult[level]
            widths = [width + out] + [2 * out] * (num_res_blocks - 1) + [out + ch * factors[level]]
            has_attention = resolution // 2**level in attn_resolutions
            part = _Level(ResnetBlock, make_attn, widths, out, has_attention, options)
            if level:
                part.upsample = Upsample(out, resamp_with_conv)
            self.up.insert(0, part)
            width = out
        self.norm_out = Normalize(width)
        self.conv_out = ops.Conv2d(width, out_ch, kernel_size=3, stride=1, padding=1)

    def forward(self, x, t=None, context=None):
        """x (B, C, H, W) at times t (B,); a context is more channels."""
        if context is not None:
            x = torch.cat((x, context), dim=1)
        temb = None
        if self.use_timestep:
            first, second = self.temb.dense
            temb = second(nonlinearity(first(get_timestep_embedding(t, self.ch))))
        kept = [self.conv_in(x)]
        for level, part in enumerate(self.down):
            for index in range(self.num_res_blocks):
                kept.append(part.run(index, kept[-1], temb))
            if level != self.num_resolutions - 1:
                kept.append(part.downsample(kept[-1]))
        h = self.mid.run(kept[-1], temb)
        for level, part in reversed(list(enumerate(self.up))):
            for index in range(self.num_res_blocks + 1):
                h = part.run(index, torch.cat([h, kept.pop()], dim=1), temb)
            if level:
                h = part.upsample(h)
        return self.conv_out(nonlinearity(self.norm_out(h)))

    def get_last_layer(self):
        return self.conv_out.weight


def _level_factor(below: int, time_compress):
    """The factor of a level with so many levels still below it: pixels alone where time stays."""
    if time_compress is not None and below > math.log2(time_compress):
        return (1, 2, 2)
    return 2


class Encoder(nn.Module):
    """Pictures (B, C, H, W), or clips, to moments of latents (B, 2 * z_channels, H / 8, W / 8)."""

    def __init__(
        self, *, ch, out_ch, ch_mult=(1, 2, 4, 8), num_res_blocks, attn_resolutions, dropout=0.0,
        resamp_with_conv=True, in_channels, resolution, z_channels, double_z=True, use_linear_attn=False,
        attn_type="vanilla", conv3d=False, time_compress=None, **ignore_kwargs,
    ):  # fmt: skip
        super().__init__()
        self.ch, self.temb_ch, self.num_resolutions = ch, 0, len(ch_mult)
        self.num_res_blocks, self.resolution, self.in_channels = num_res_blocks, resolution, in_channels
        self.in_ch_mult, self.carried = (1, *ch_mult), False
        conv, attention_conv = (VideoConv3d, ops.Conv3d) if conv3d else (ops.Conv2d, ops.Conv2d)
        options = {"temb_channels": 0, "dropout": dropout, "conv_op": conv}
        last = self.num_resolutions - 1
        self.time_compress = 2**last if time_compress is None else time_compress
        self.conv_in = conv(in_channels, ch, kernel_size=3, stride=1, padding=1)
        self.down = nn.ModuleList()
        for level, factor in enumerate(ch_mult):
            out = ch * factor
            widths = [ch * self.in_ch_mult[level]] + [out] * (num_res_blocks - 1)
            has_attention = resolution // 2**level in attn_resolutions
            part = _Level(ResnetBlock, make_attn, widths, out, has_attention, options)
            if level != last:
                stride = _level_factor(last - level, time_compress)
                part.downsample = Downsample(out, resamp_with_conv, stride=stride, conv_op=conv)
            self.down.append(part)
        self.mid = _Middle(ResnetBlock, make_attn, out, attention_conv, options)
        self.norm_out = Normalize(out)
        width = 2 * z_channels if double_z else z_channels
        self.conv_out = conv(out, width, kernel_size=3, stride=1, padding=1)

    def forward(self, x):
        h = self.conv_in(x)
        for level, part in enumerate(self.down):
            for index in range(self.num_res_blocks):
                h = part.run(index, h)
            if level != self.num_resolutions - 1:
                h = part.downsample(h)
        return self.conv_out(nonlinearity(self.norm_out(self.mid.run(h))))


class Decoder(nn.Module):
    """Latents (B, z_channels, h, w), or of clips, to pictures. More arguments of a call go to every block."""

    def __init__(
        self, *, ch, out_ch, ch_mult=(1, 2, 4, 8), num_res_blocks, attn_resolutions, dropout=0.0,
        resamp_with_conv=True, in_channels, resolution, z_channels, tanh_out=False, use_linear_attn=False,
        conv_out_op=ops.Conv2d, resnet_op=ResnetBlock, attn_op=AttnBlock, conv3d=False, time_compress=None,
        **ignorekwargs,
    ):  # fmt: skip
        super().__init__()
        self.ch, self.temb_ch, self.num_resolutions = ch, 0, len(ch_mult)
        self.num_res_blocks, self.resolution, self.in_channels = num_res_blocks, resolution, in_channels
        self.tanh_out, self.carried = tanh_out, False
        conv, attention_conv = (VideoConv3d, ops.Conv3d) if conv3d else (ops.Conv2d, ops.Conv2d)
        conv_out_op = VideoConv3d if conv3d else conv_out_op
        options = {"temb_channels": 0, "dropout": dropout, "conv_op": conv}
        side, width = resolution // 2 ** (self.num_resolutions - 1), ch * ch_mult[-1]
        self.z_shape = (1, z_channels, side, side)
        self.conv_in = conv(z_channels, width, kernel_size=3, stride=1, padding=1)
        self.mid = _Middle(resnet_op, attn_op, width, attention_conv, options)
        self.up = nn.ModuleList()
        for level in reversed(range(self.num_resolutions)):
            out = ch * ch_mult[level]
            has_attention = resolution // 2**level in attn_resolutions
            widths = [width] + [out] * num_res_blocks
            part = _Level(resnet_op, attn_op, widths, out, has_attention, options)
            if level:
                factor = _level_factor(level, time_compress)
                factor = 2.0 if factor == 2 else tuple(float(side) for side in factor)
                part.upsample = Upsample(out, resamp_with_conv, conv_op=conv, scale_factor=factor)
            self.up.insert(0, part)
            width = out
        self.norm_out = Normalize(width)
        self.conv_out = conv_out_op(width, out_ch, kernel_size=3, stride=1, padding=1)

    def forward(self, z, **kwargs):
        h = self.mid.run(self.conv_in(z), **kwargs)
        for level, part in reversed(list(enumerate(self.up))):
            for index in range(self.num_res_blocks + 1):
                h = part.run(index, h, **kwargs)
            if level:
                h = part.upsample(h)
        h = self.conv_out(nonlinearity(self.norm_out(h)))
        return torch.tanh(h) if self.tanh_out else h

    def get_last_layer(self):
        return self.conv_out.weight

"""The demo model's autoencoder: Stable Diffusion's architecture at a width that a laptop trains in minutes.

The layout fixes 32 groups in every normalisation. At 64 channels a group holds two, and two channels that
are flat always normalise to plus and minus one: colours of plain areas do not survive. So a straight path is
set by hand around the outermost normalisations, and the rest is learned:

    encoder   every 8x8 patch -> mean red, green, blue, and how much brighter its left half is (all by hand)
    decoder   latent -> middle, 8x8, 16x16 and 32x32 levels (learned) -> straight path to the picture

On the straight path values are so small that the epsilon of a normalisation outweighs their variance, which
makes it a plain subtraction of the mean of the group; each value shares its group with an empty channel, and
the difference of the two is the value again.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import tqdm

from scripts import demo_shapes

LATENT_SCALE = 0.18215  # fixed in the layout: what the sampler sees is latent * LATENT_SCALE
WIDTHS = (64, 32, 32, 64)  # the outermost normalisations need two channels in a group
SMALL = 2.0**-12  # amplitude on the straight path: its variance is far below EPSILON
EPSILON = 1e-6  # of the normalisations, fixed in the layout
LIFT = 6.0  # SiLU is a straight line so far from zero
LOG_VARIANCE = -6.0  # of the encoder's posterior
LUMINANCE = (0.299, 0.587, 0.114)

STEPS, BATCH, RATE = 500, 12, 2e-3
LATENT_NOISE = 0.08  # in units of the sampler, so that the decoder forgives the UNet's small errors


def build() -> AutoencoderKL:
    """The untrained module: 8x downscale, four latent channels."""
    return AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
    )


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """Pictures as the autoencoder sees them: (B, 3, H, W) in -1..1."""
    return torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2).contiguous() * 2 - 1


def patch_values(pictures: Tensor) -> Tensor:
    """What the encoder reads off each patch, (B, 3, H, W) -> (B, 4, H/8, W/8), before it is normalised."""
    means = F.avg_pool2d(pictures, 8)
    light = (pictures * torch.tensor(LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
    halves = F.avg_pool2d(light, (8, 4))  # (B, 1, H/8, W/4)
    return torch.cat([means, (halves[..., 0::2] - halves[..., 1::2]) / 2], dim=1)


@functools.cache
def normalisation() -> tuple[Tensor, Tensor]:
    """Shift and scale (4, 1, 1) that give the sampler latents of mean 0 and variance 1."""
    rng = np.random.default_rng(0)
    kinds = [kind for kind in demo_shapes.KINDS for _ in range(40)]
    values = patch_values(to_tensor([demo_shapes.draw_random(rng, *kind) for kind in kinds]))
    shift = values.mean(dim=(0, 2, 3))
    scale = 1 / (values.std(dim=(0, 2, 3)) * LATENT_SCALE)
    return shift[:, None, None], scale[:, None, None]


def latents_of(pictures: Tensor) -> Tensor:
    """Exactly what the encoder approaches, at a fraction of its cost: (B, 3, H, W) -> (B, 4, H/8, W/8)."""
    shift, scale = normalisation()
    return (patch_values(pictures) - shift) * scale


@torch.no_grad()
def set_encoder(vae: AutoencoderKL) -> None:
    """Give the encoder the weights with which it computes `latents_of`."""
    for parameter in [*vae.encoder.parameters(), *vae.quant_conv.parameters()]:
        parameter.zero_()
    encoder = vae.encoder
    for colour in range(3):
        encoder.conv_in.weight[2 * colour, colour, 1, 1] = SMALL
        encoder.conv_in.weight[6, colour, 1, 1] = SMALL * LUMINANCE[colour]
    for number, block in enumerate(encoder.down_blocks):
        pass_through(block.resnets[0])
        if block.downsamplers is None:
            continue
        kernel = block.downsamplers[0].conv.weight  # a 3x3 window that begins at the pair of pixels
        for channel in (0, 2, 4, 6):
            kernel[channel, channel, 0:2, 0:2] = 0.25
        if number == len(encoder.down_blocks) - 2:  # the last step: left half minus right half
            kernel[6, 6, 0:2, 1] = -0.25
    set_straight_head(encoder, count=4)
    shift, scale = (value.flatten() for value in normalisation())
    vae.quant_conv.weight[:4, :4, 0, 0] = torch.diag(scale)
    vae.quant_conv.bias[:4] = -shift * scale
    vae.quant_conv.bias[4:] = LOG_VARIANCE


def pass_through(resnet: nn.Module) -> None:
    """Carry the straight path's channels through the shortcut of a residual block, where it has one."""
    if resnet.conv_shortcut is not None:
        for channel in range(8):
            resnet.conv_shortcut.weight[channel, channel] = 1


def set_straight_head(side: nn.Module, *, count: int) -> None:
    """Set a last normalisation and convolution so that output i is stream channel 2 * i, made large again."""
    norm, conv = side.conv_norm_out, side.conv_out
    for parameter in [*norm.parameters(), *conv.parameters()]:
        parameter.zero_()
    norm.weight[: 2 * count] = EPSILON**0.5 / SMALL
    norm.bias[: 2 * count] = LIFT
    for i in range(count):
        conv.weight[i, 2 * i, 1, 1] = 1
        conv.weight[i, 2 * i + 1, 1, 1] = -1


def decode_low(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """The learned part of the decoder: latents (B, 4, h, w) to pictures (B, 3, 8h, 8w), normal amplitude."""
    decoder = vae.decoder
    hidden = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks[:-1]:
        hidden = block(hidden)
    return hidden[:, 0:3]


@torch.no_grad()
def set_decoder_head(vae: AutoencoderKL) -> None:
    """Turn the outermost level into the straight path from the three channels that `decode_low` returns."""
    decoder = vae.decoder
    last = decoder.up_blocks[-2].upsamplers[0].conv
    last.weight[3:] = 0
    last.bias[3:] = 0
    last.weight *= SMALL**0.5  # in two equal steps, to stay within half precision
    last.bias *= SMALL**0.5
    for parameter in decoder.up_blocks[-1].parameters():
        parameter.zero_()
    for colour in range(3):
        decoder.up_blocks[-1].resnets[0].conv_shortcut.weight[2 * colour, colour] = SMALL**0.5
    set_straight_head(decoder, count=3)


def train(seed: int) -> AutoencoderKL:
    """The whole autoencoder, its decoder trained on pictures of the captions and on free ones, two to one."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = build()
    set_encoder(vae)
    with torch.no_grad():
        for module in vae.decoder.modules():
            if hasattr(module, "conv_shortcut"):  # residual blocks start as identity
                module.conv2.weight.zero_()
    learned = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=1e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.05)
    bar = tqdm(range(STEPS), desc="decoder", mininterval=5)
    for _ in bar:
        named = [demo_shapes.random_kind(rng) for _ in range(BATCH * 2 // 3)]
        pictures = [demo_shapes.draw_random(rng, *kind) for kind in named]
        batch = to_tensor(pictures + [demo_shapes.draw_any(rng) for _ in range(BATCH - len(pictures))])
        latents = latents_of(batch)
        latents += torch.randn_like(latents) * rng.uniform(0, 2 * LATENT_NOISE) / LATENT_SCALE
        difference = decode_low(vae, latents) - batch
        loss = difference.abs().mean() + difference.square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        rates.step()
        bar.set_postfix(absolute=f"{difference[: len(pictures)].abs().mean().item():.4f}")
    set_decoder_head(vae)
    return vae.requires_grad_(False)

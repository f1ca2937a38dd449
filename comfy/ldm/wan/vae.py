"""Wan 2.1's autoencoder, which does not run here, and its norm."""

from __future__ import annotations

import torch
from torch import nn

from comfy.absent_families import absent_classes


class RMS_norm(nn.Module):  # noqa: N801 - the name that packs import
    """Channels scaled to a root mean square of one, times gamma (dim, 1, ...)."""

    def __init__(self, dim, channel_first=True, images=True, bias=False):
        super().__init__()
        sides = [1] * (2 if images else 3)
        shape = (dim, *sides) if channel_first else (dim,)
        self.channel_first, self.scale = channel_first, dim**0.5
        self.gamma = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x):
        out = nn.functional.normalize(x, dim=1 if self.channel_first else -1) * self.scale * self.gamma.to(x)
        return out if self.bias is None else out + self.bias.to(x)


globals().update(
    absent_classes(__name__, "CausalConv3d", "Resample", "ResidualBlock", "AttentionBlock", "Encoder3d",
                   "Decoder3d", "WanVAE")
)  # fmt: skip

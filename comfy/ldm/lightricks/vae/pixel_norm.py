"""A norm over the channels of each pixel."""

import torch
from torch import nn


class PixelNorm(nn.Module):
    """x / root mean square over `dim`."""

    def __init__(self, dim=1, eps=1e-8):
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x):
        return x / torch.sqrt(x.square().mean(dim=self.dim, keepdim=True) + self.eps)

"""Small layers of AuraFlow. The network does not run here."""

from __future__ import annotations

import torch
from torch import nn

from comfy.absent_families import absent_classes


def modulate(x, shift, scale):
    """x (B, tokens, C) * (1 + scale (B, C)) + shift (B, C)."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def find_multiple(n: int, k: int) -> int:
    """The least multiple of k that is at least n."""
    return -(-n // k) * k


class MLP(nn.Module):
    """SwiGLU of two thirds of the width, up to a multiple of 256."""

    def __init__(self, dim, hidden_dim=None, dtype=None, device=None, operations=None):
        super().__init__()
        width = find_multiple(int(2 * (4 * dim if hidden_dim is None else hidden_dim) / 3), 256)
        kind = {"bias": False, "dtype": dtype, "device": device}
        self.c_fc1 = operations.Linear(dim, width, **kind)
        self.c_fc2 = operations.Linear(dim, width, **kind)
        self.c_proj = operations.Linear(width, dim, **kind)

    def forward(self, x):
        return self.c_proj(nn.functional.silu(self.c_fc1(x)) * self.c_fc2(x))


class MultiHeadLayerNorm(nn.Module):
    """A norm over the last side, with weights for every head."""

    def __init__(self, hidden_size, eps=1e-5, dtype=None, device=None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size, dtype=dtype, device=device))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        x = hidden_states.float()
        normed = nn.functional.layer_norm(x, x.shape[-1:], eps=self.variance_epsilon)
        return (self.weight.to(x) * normed).to(hidden_states.dtype)


globals().update(
    absent_classes(__name__, "SingleAttention", "DoubleAttention", "MMDiTBlock", "DiTBlock",
                   "TimestepEmbedder",
                   "MMDiT")
)  # fmt: skip

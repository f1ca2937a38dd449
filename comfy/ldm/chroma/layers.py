"""Layers of Chroma. The network does not run here; its blocks are Flux's without modulation of their own."""

from __future__ import annotations

import functools

import torch
from torch import nn

from comfy.ldm.flux.layers import DoubleStreamBlock as _DoubleStreamBlock
from comfy.ldm.flux.layers import EmbedND, MLPEmbedder, ModulationOut, apply_mod
from comfy.ldm.flux.layers import SingleStreamBlock as _SingleStreamBlock

__all__ = [
    "Approximator",
    "ChromaModulationOut",
    "DoubleStreamBlock",
    "EmbedND",
    "LastLayer",
    "SingleStreamBlock",
]

DoubleStreamBlock = functools.partial(_DoubleStreamBlock, modulation=False)
SingleStreamBlock = functools.partial(_SingleStreamBlock, modulation=False)


class ChromaModulationOut(ModulationOut):
    """Shift, scale and gate as three rows of a table (B, rows, C)."""

    @classmethod
    def from_offset(cls, tensor: torch.Tensor, offset: int = 0) -> ModulationOut:
        return cls(*(tensor[:, row : row + 1] for row in range(offset, offset + 3)))


class Approximator(nn.Module):
    """Makes the modulations of all blocks at once."""

    def __init__(
        self, in_dim: int, out_dim: int, hidden_dim: int, n_layers=5, dtype=None, device=None, operations=None
    ):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.in_proj = operations.Linear(in_dim, hidden_dim, bias=True, **kind)
        self.layers = nn.ModuleList(
            MLPEmbedder(hidden_dim, hidden_dim, operations=operations, **kind) for _ in range(n_layers)
        )
        self.norms = nn.ModuleList(operations.RMSNorm(hidden_dim, **kind) for _ in range(n_layers))
        self.out_proj = operations.Linear(hidden_dim, out_dim, **kind)

    @property
    def device(self):
        return next(self.parameters()).device

    def forward(self, x):
        x = self.in_proj(x)
        for layer, norm in zip(self.layers, self.norms):
            x = x + layer(norm(x))
        return self.out_proj(x)


class LastLayer(nn.Module):
    """The tokens to patches; shift and scale are given."""

    def __init__(
        self, hidden_size: int, patch_size: int, out_channels: int, dtype=None, device=None, operations=None
    ):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.norm_final = operations.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6, **kind)
        self.linear = operations.Linear(hidden_size, out_channels, bias=True, **kind)

    def forward(self, x, vec, modulation_dims=None):
        shift, scale = vec
        shift, scale = shift.squeeze(1), scale.squeeze(1)
        return self.linear(apply_mod(self.norm_final(x), 1 + scale[:, None], shift[:, None], modulation_dims))

"""BOFT: several rotations in turn, each of rows that a butterfly brings together (arXiv:2311.06243)."""

from __future__ import annotations

import torch

from comfy.weight_adapter.oft import OFTAdapter, rotations


class BOFTAdapter(OFTAdapter):
    """`weights`: (blocks (m, n, b, b) for m stages, rescale or None, alpha, dora_scale)."""

    name = "boft"
    axes = 4

    def turn(self, weight: torch.Tensor, blocks: torch.Tensor, limit: float) -> torch.Tensor:
        """Stage i brings rows together that stand 2^i half-blocks apart, rotates, and puts them back."""
        stages, _, size, _ = blocks.shape
        turned = weight
        for stage in range(stages):
            apart = 2**stage * (size // 2)
            rows = turned.reshape(-1, 2, apart, *turned.shape[1:]).transpose(1, 2)  # (c, k, g, ...)
            rows = rows.reshape(-1, size, *turned.shape[1:])
            rotated = torch.einsum("bij,bj...->bi...", rotations(blocks[stage], limit), rows)
            rotated = rotated.reshape(-1, apart, 2, *turned.shape[1:]).transpose(1, 2)
            turned = rotated.reshape(weight.shape)
        return turned

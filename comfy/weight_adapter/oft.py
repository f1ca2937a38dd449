"""OFT: blocks of rows are rotated (arXiv:2306.07280), by the Cayley transforms of skew matrices."""

from __future__ import annotations

import torch

from comfy.weight_adapter.base import WeightAdapterBase, on_device, taken


def rotations(blocks: torch.Tensor, limit: float) -> torch.Tensor:
    """Rotations (..., b, b), (I + Q)(I - Q)^-1, of the skew parts Q = blocks - blocks^T.

    A positive `limit` bounds the norm of all Q together (constrained OFT).
    """
    skew = blocks - blocks.transpose(-1, -2)
    norm = torch.linalg.vector_norm(skew) + 1e-8
    if 0 < limit < norm:
        skew = skew * (limit / norm)
    one = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    return (one + skew) @ torch.linalg.inv((one - skew).float()).to(blocks.dtype)


class OFTAdapter(WeightAdapterBase):
    """`weights`: (blocks (n, b, b), rescale (out, 1, ...) or None, alpha, dora_scale)."""

    name = "oft"
    endings = (".oft_blocks", ".rescale")
    axes = 3

    @classmethod
    def load(cls, x, lora, alpha, dora_scale, loaded_keys=None):
        loaded_keys = set() if loaded_keys is None else loaded_keys
        blocks = lora.get(x + ".oft_blocks")
        if blocks is None or blocks.ndim != cls.axes:
            return None
        blocks, rescale = taken(x, cls.endings, lora, loaded_keys)
        return cls(loaded_keys, (blocks, rescale, alpha, dora_scale))

    def fits(self, shape) -> bool:
        blocks = self.weights[0]
        return blocks.shape[-3] * blocks.shape[-1] == shape[0]

    @property
    def dora_scale(self):
        return self.weights[3]

    def _limit(self, weight: torch.Tensor) -> float:
        return (self.weights[2] or 0.0) * weight.shape[0]

    def difference(self, weight, dtype):
        original = weight.to(dtype)
        blocks = on_device(self.weights[0], weight, dtype)
        turned = self.turn(original, blocks, self._limit(weight))
        if self.weights[1] is not None:
            turned = turned * on_device(self.weights[1], weight, dtype)
        return turned - original

    def turn(self, weight: torch.Tensor, blocks: torch.Tensor, limit: float) -> torch.Tensor:
        """`weight` with each block of rows rotated."""
        rows = weight.reshape(blocks.shape[0], blocks.shape[1], -1)  # (n, b, in ...)
        return torch.einsum("knm,kni->kmi", rotations(blocks, limit), rows).reshape(weight.shape)

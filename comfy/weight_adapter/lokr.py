"""LoKr: a Kronecker product whose factors may be low-rank themselves (LyCORIS, arXiv:2309.14859)."""

from __future__ import annotations

import torch

from comfy.weight_adapter.base import WeightAdapterBase, on_device, taken, tucker_weight


class LoKrAdapter(WeightAdapterBase):
    """`weights`: (w1, w2, alpha, w1_a, w1_b, w2_a, w2_b, t2, dora_scale).

    A factor is given whole, as a (., r) @ b (r, .), or, the second, with a Tucker core t2 (r, r, k, l).
    """

    name = "lokr"
    endings = (".lokr_w1", ".lokr_w2", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2")

    @classmethod
    def load(cls, x, lora, alpha, dora_scale, loaded_keys=None):
        loaded_keys = set() if loaded_keys is None else loaded_keys

        def has(factor: str) -> bool:
            return x + factor in lora or (x + factor + "_a" in lora and x + factor + "_b" in lora)

        if not (has(".lokr_w1") and has(".lokr_w2")):
            return None
        w1, w2, w1a, w1b, w2a, w2b, t2 = taken(x, cls.endings, lora, loaded_keys)
        return cls(loaded_keys, (w1, w2, alpha, w1a, w1b, w2a, w2b, t2, dora_scale))

    @property
    def scale(self) -> float:
        """Alpha over the rank of a factor that has one; two whole factors are not scaled."""
        w1, w2, alpha, _, w1b, _, w2b, _, _ = self.weights
        if alpha is None or (w1 is not None and w2 is not None):
            return 1.0
        return alpha / (w2b if w2 is None else w1b).shape[0]

    @property
    def dora_scale(self):
        return self.weights[8]

    def size_of_weight(self) -> int:
        w1, w2, _, w1a, w1b, w2a, w2b, t2, _ = self.weights
        first = w1.numel() if w1 is not None else w1a.shape[0] * w1b.shape[1]
        if w2 is not None:
            return first * w2.numel()
        rows = w2a.shape[0] if t2 is None else w2a.shape[1] * t2[0, 0].numel()
        return first * rows * w2b[0].numel()

    def difference(self, weight, dtype):
        w1, w2, _, w1a, w1b, w2a, w2b, t2, _ = (
            on_device(value, weight, dtype) if torch.is_tensor(value) else value for value in self.weights
        )
        w1 = w1a @ w1b if w1 is None else w1
        if w2 is None:
            w2 = w2a @ w2b.flatten(1) if t2 is None else tucker_weight(w2a, w2b, t2)
        w1 = w1.reshape(*w1.shape, *[1] * (w2.ndim - w1.ndim))
        return torch.kron(w1.contiguous(), w2.contiguous()).reshape(weight.shape)

"""GLoRA: a low-rank change that depends on the weight, W A + B (arXiv:2306.07967; LyCORIS)."""

from __future__ import annotations

from comfy.weight_adapter.base import WeightAdapterBase, on_device, taken


class GLoRAAdapter(WeightAdapterBase):
    """`weights`: (a1, a2, b1, b2, alpha, dora_scale); W is (out, in).

    Two orders exist: a1 (r, in), a2 (in, r), b1 (r, in), b2 (out, r) with A = a2 @ a1 and B = b2 @ b1; and
    a1 (in, r), a2 (r, in), b1 (out, r), b2 (r, in) with A = a1 @ a2 and B = b1 @ b2. The shapes tell which.
    """

    name = "glora"
    endings = (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight")

    @classmethod
    def load(cls, x, lora, alpha, dora_scale, loaded_keys=None):
        loaded_keys = set() if loaded_keys is None else loaded_keys
        if any(x + ending not in lora for ending in cls.endings):
            return None
        return cls(loaded_keys, (*taken(x, cls.endings, lora, loaded_keys), alpha, dora_scale))

    @property
    def _rank_first(self) -> bool:
        """Is it the order whose a1 begins with the rank?"""
        a1, a2, b1, b2 = (tensor.shape for tensor in self.weights[:4])
        if not a1[0] == a2[1] == b1[0] == b2[1]:
            return False
        is_square = a1[1] == a2[0] == b1[1] == b2[0]  # both orders are possible: the rank is the smaller side
        return not is_square or a1[0] <= a1[1]

    @property
    def scale(self) -> float:
        alpha = self.weights[4]
        return 1.0 if alpha is None else alpha / self.weights[0].shape[0 if self._rank_first else 1]

    @property
    def dora_scale(self):
        return self.weights[5]

    def size_of_weight(self) -> int:
        _, _, b1, b2 = self.weights[:4]
        outer, inner = (b2, b1) if self._rank_first else (b1, b2)
        return outer.shape[0] * inner[0].numel()

    def difference(self, weight, dtype):
        a1, a2, b1, b2 = (on_device(value, weight, dtype).flatten(1) for value in self.weights[:4])
        matrix = weight.to(dtype).flatten(1)
        if self._rank_first:
            change = matrix @ a2 @ a1 + b2 @ b1
        else:
            change = matrix @ a1 @ a2 + b1 @ b2
        return change.reshape(weight.shape)

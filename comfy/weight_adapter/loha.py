"""LoHa: the elementwise product of two low-rank matrices (FedPara, arXiv:2108.06098; LyCORIS)."""

from __future__ import annotations

from comfy.weight_adapter.base import WeightAdapterBase, on_device, taken, tucker_weight


class LoHaAdapter(WeightAdapterBase):
    """`weights`: (w1_a (out, r), w1_b (r, in), alpha, w2_a, w2_b, t1, t2, dora_scale); with Tucker cores
    t (r, r, k, l) each `a` is (r, out).
    """

    name = "loha"
    endings = (".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", ".hada_t1", ".hada_t2")

    @classmethod
    def load(cls, x, lora, alpha, dora_scale, loaded_keys=None):
        loaded_keys = set() if loaded_keys is None else loaded_keys
        if any(x + ending not in lora for ending in cls.endings[:4]):
            return None
        w1a, w1b, w2a, w2b, t1, t2 = taken(x, cls.endings, lora, loaded_keys)
        return cls(loaded_keys, (w1a, w1b, alpha, w2a, w2b, t1, t2, dora_scale))

    @property
    def scale(self) -> float:
        alpha = self.weights[2]
        return 1.0 if alpha is None else alpha / self.weights[1].shape[0]

    @property
    def dora_scale(self):
        return self.weights[7]

    def size_of_weight(self) -> int:
        w1a, w1b, t1 = self.weights[0], self.weights[1], self.weights[5]
        if t1 is not None:
            return w1a.shape[1] * w1b.shape[1] * t1[0, 0].numel()
        return w1a.shape[0] * w1b.shape[1]

    def difference(self, weight, dtype):
        w1a, w1b, _, w2a, w2b, t1, t2, _ = self.weights
        first, second = (_matrix(a, b, t, weight, dtype) for a, b, t in ((w1a, w1b, t1), (w2a, w2b, t2)))
        return (first * second).reshape(weight.shape)


def _matrix(a, b, core, weight, dtype):
    a, b = on_device(a, weight, dtype), on_device(b, weight, dtype)
    return a @ b if core is None else tucker_weight(a, b, on_device(core, weight, dtype))

"""LoRA: up @ down (arXiv:2106.09685), for linear layers and convolutions, with a Tucker core or without."""

from __future__ import annotations

import torch

from comfy.weight_adapter.base import (
    WeightAdapterBase,
    on_device,
    pad_tensor_to_shape,
    taken,
    tucker_weight_from_conv,
)

# (up, down) as trainers name them.
PAIRS = (
    (".lora_up.weight", ".lora_down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
    (".lora_B", ".lora_A"),
    (".lora.up.weight", ".lora.down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
)
MIDDLE = ".lora_mid.weight"
RESHAPE = ".reshape_weight"


class LoRAAdapter(WeightAdapterBase):
    """`weights`: (up (out, r, ...), down (r, in, ...), alpha, mid, dora_scale, shape to pad to)."""

    name = "lora"
    endings = (*(ending for pair in PAIRS for ending in pair), MIDDLE, RESHAPE)

    @classmethod
    def load(cls, x, lora, alpha, dora_scale, loaded_keys=None):
        loaded_keys = set() if loaded_keys is None else loaded_keys
        pair = next((pair for pair in PAIRS if all(x + ending in lora for ending in pair)), None)
        if pair is None:
            return None
        up, down = taken(x, pair, lora, loaded_keys)
        mid, shape = taken(x, (MIDDLE, RESHAPE), lora, loaded_keys)
        shape = None if shape is None else [int(size) for size in shape.tolist()]
        return cls(loaded_keys, (up, down, alpha, mid, dora_scale, shape))

    @property
    def scale(self) -> float:
        alpha = self.weights[2]
        return 1.0 if alpha is None else alpha / self.weights[1].shape[0]

    @property
    def dora_scale(self):
        return self.weights[4]

    def size_of_weight(self) -> int | None:
        up, down, _, mid, _, shape = self.weights
        kernel = 1 if mid is None else mid[0, 0].numel()
        return None if shape is not None else up.shape[0] * down[0].numel() * kernel

    def prepared(self, weight):
        shape = self.weights[5]
        return weight if shape is None else pad_tensor_to_shape(weight, shape)

    def difference(self, weight, dtype):
        up, down, _, mid, _, _ = self.weights
        up, down = on_device(up, weight, dtype), on_device(down, weight, dtype)
        if mid is not None:
            return tucker_weight_from_conv(up, down, on_device(mid, weight, dtype)).reshape(weight.shape)
        return torch.mm(up.flatten(1), down.flatten(1)).reshape(weight.shape)

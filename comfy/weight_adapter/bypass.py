"""LoRAs beside the layers they change, instead of in their weights: out = layer(x) + change(x).

Slower than patched weights; for weights that cannot be patched without loss, and to look at a LoRA's effect.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

import comfy.utils
from comfy.patcher_extension import PatcherInjection
from comfy.weight_adapter.base import WeightAdapterBase, on_device
from comfy.weight_adapter.lora import LoRAAdapter

INJECTION_KEY = "bypass_lora"
_CONVOLUTIONS = {
    1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d,
}  # fmt: skip


def _linear(layer: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What the layer would do with this weight and without bias."""
    if weight.ndim == 2:
        return torch.nn.functional.linear(x, weight)
    convolve = _CONVOLUTIONS[weight.ndim - 2]
    return convolve(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _change(layer: Any, x: torch.Tensor, adapter: WeightAdapterBase, strength: float) -> torch.Tensor:
    """What the adapter adds to the layer's output."""
    up, down, _, mid, dora_scale, shape = (*adapter.weights, *[None] * 6)[:6]
    if isinstance(adapter, LoRAAdapter) and mid is None and dora_scale is None and shape is None:
        inside = _linear(
            layer, x, on_device(down.reshape(down.shape[0], *layer.weight.shape[1:]), x, x.dtype)
        )
        up = on_device(up, x, x.dtype).flatten(1)
        if layer.weight.ndim == 2:
            return torch.nn.functional.linear(inside, up) * (strength * adapter.scale)
        up = up.reshape(*up.shape, *[1] * (layer.weight.ndim - 2))
        return _CONVOLUTIONS[up.ndim - 2](inside, up) * (strength * adapter.scale)
    weight = layer.weight.detach().to(x.dtype)
    patched = adapter.calculate_weight(weight.clone(), "", strength, 1.0, None, lambda part: part, x.dtype)
    return _linear(layer, x, patched - weight)


class BypassInjectionManager:
    """Collects adapters by the names of weights, and makes the injection that puts them beside the layers."""

    def __init__(self) -> None:
        self.adapters: dict[str, list[tuple[WeightAdapterBase, float]]] = {}

    def add_adapter(self, key: str, adapter: WeightAdapterBase, strength: float = 1.0) -> None:
        """One more for this weight."""
        self.adapters.setdefault(key, []).append((adapter, strength))

    def get_hook_count(self) -> int:
        """How many layers are changed."""
        return len(self.adapters)

    def clear_adapters(self) -> None:
        """Forget all."""
        self.adapters.clear()

    def create_injections(self, model: torch.nn.Module | None = None) -> list[PatcherInjection]:
        """For `ModelPatcher.set_injections`."""
        hooks: list[Any] = []
        adapters = {key: list(pairs) for key, pairs in self.adapters.items()}

        def remove() -> None:
            while hooks:
                hooks.pop().remove()

        def inject(patcher) -> None:
            remove()
            weakref.finalize(patcher, remove)  # one that is let go while it is loaded ejects nothing
            for key, pairs in adapters.items():
                layer = comfy.utils.get_attr(patcher.model, key.rpartition(".")[0])
                hooks.append(layer.register_forward_hook(_beside(pairs)))

        return [PatcherInjection(inject, lambda patcher: remove())]


def _beside(pairs: list[tuple[WeightAdapterBase, float]]) -> Callable:
    def add(layer, inputs, out):
        for adapter, strength in pairs:
            out = out + _change(layer, inputs[0], adapter, strength).to(out.dtype)
        return out

    return add


def add_beside(patcher, patches: dict, strength: float) -> None:
    """Put a LoRA's patches beside the layers of a patcher; what is no adapter of a whole layer is patched."""
    manager, others, layers = BypassInjectionManager(), {}, dict(patcher.model.named_modules())
    for key, value in patches.items():
        layer = layers.get(key.rpartition(".")[0]) if isinstance(key, str) else None
        weight = getattr(layer, "weight", None)
        is_beside = isinstance(value, WeightAdapterBase) and isinstance(key, str) and key.endswith(".weight")
        if is_beside and isinstance(weight, torch.Tensor) and weight.ndim > 1:
            manager.add_adapter(key, value, strength)
        else:
            others[key] = value
    if others:
        patcher.add_patches(others, strength)
    if manager.adapters:
        before = patcher.get_injections(INJECTION_KEY) or []
        patcher.set_injections(INJECTION_KEY, [*before, *manager.create_injections()])

"""What every adapter is, and the arithmetic that several share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from comfy.model_management import cast_to_device

Tensors = Mapping[str, torch.Tensor]
Change = Callable[[torch.Tensor], torch.Tensor]


class WeightAdapterBase:
    """A patch of one weight. `weights` is the tuple of tensors and numbers that packs read.

    Attributes:
        name: the kind, as messages have it.
        endings: what keys of this kind end with; what stands before is the name of the layer.
        loaded_keys: the keys of the file that it was made of.
    """

    name = "none"
    endings: tuple[str, ...] = ()

    def __init__(self, loaded_keys: set[str], weights: tuple):
        self.loaded_keys = loaded_keys
        self.weights = weights

    @classmethod
    def load(
        cls, x: str, lora: Tensors, alpha: float | None, dora_scale: torch.Tensor | None,
        loaded_keys: set[str] | None = None,
    ) -> WeightAdapterBase | None:  # fmt: skip
        """The adapter of layer `x` in `lora`; None where its tensors are not there.

        The keys that it takes are added to `loaded_keys`.
        """
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """The factor of the difference, from the file: alpha over rank."""
        return 1.0

    @property
    def dora_scale(self) -> torch.Tensor | None:
        """The magnitudes of a weight-decomposed (DoRA) adapter."""
        return None

    def size_of_weight(self) -> int | None:
        """How many numbers the weight must have; None where the tensors do not tell."""
        return None

    def fits(self, shape: torch.Size | tuple[int, ...]) -> bool:
        """Can it change a weight of this shape?"""
        wanted = self.size_of_weight()
        return wanted is None or wanted == torch.Size(shape).numel()

    def difference(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What it adds to `weight` at strength 1, without `scale`; in the shape of `weight`."""
        raise NotImplementedError

    def calculate_weight(
        self, weight, key, strength, strength_model, offset, function, intermediate_dtype=torch.float32,
        original_weight=None,
    ):  # fmt: skip
        """`weight`, changed in place where possible. `function` is applied to the change."""
        weight = self.prepared(weight)
        change = self.difference(weight, intermediate_dtype)
        if self.dora_scale is not None:
            return weight_decompose(
                self.dora_scale, weight, change, self.scale, strength, intermediate_dtype, function
            )
        weight += function(((strength * self.scale) * change).to(weight.dtype))
        return weight

    def prepared(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight in the shape that the adapter asks for."""
        return weight


class RowsAdapter(WeightAdapterBase):
    """Some rows of another adapter's difference: for a layer that is one in the file, several in the model.

    `start` and `length` are rows of the file's layer, which has `total` rows.
    """

    name = "rows"

    def __init__(self, whole: WeightAdapterBase, start: int, length: int, total: int):
        super().__init__(whole.loaded_keys, whole.weights)
        self.whole, self.start, self.length, self.total = whole, start, length, total

    @property
    def scale(self) -> float:
        return self.whole.scale

    @property
    def dora_scale(self) -> torch.Tensor | None:
        magnitudes = self.whole.dora_scale
        is_by_row = magnitudes is not None and magnitudes.shape[0] == self.total
        return magnitudes.narrow(0, self.start, self.length) if is_by_row else magnitudes

    def size_of_weight(self) -> int | None:
        size = self.whole.size_of_weight()
        return None if size is None else size * self.length // self.total

    def difference(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        shaped_as_whole = weight.new_zeros((self.total, *weight.shape[1:]))
        return self.whole.difference(shaped_as_whole, dtype).narrow(0, self.start, self.length)


def on_device(tensor: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` where `weight` is, in `dtype`."""
    return cast_to_device(tensor, weight.device, dtype)


def taken(x: str, endings, lora: Tensors, loaded_keys: set[str] | None) -> list[torch.Tensor | None]:
    """The tensors of layer `x` with these endings, None for each that is not there; notes those taken."""
    found = [lora.get(x + ending) for ending in endings]
    if loaded_keys is not None:
        loaded_keys.update(x + e for e, tensor in zip(endings, found, strict=True) if tensor is not None)
    return found


def weight_decompose(dora_scale, weight, lora_diff, alpha, strength, intermediate_dtype, function):
    """`weight` moved by `strength` towards m V / |V| with V = weight + alpha * lora_diff (arXiv:2402.09353).

    The magnitudes m, `dora_scale`, are one per row (out, 1, ...) or one per column (1, in, 1, ...).
    """
    magnitudes = on_device(dora_scale, weight, intermediate_dtype)
    merged = weight.to(intermediate_dtype) + function(alpha * lora_diff)
    kept = 0 if magnitudes.shape[0] == merged.shape[0] else 1
    others = [axis for axis in range(merged.ndim) if axis != kept]
    norm = torch.linalg.vector_norm(merged, dim=others, keepdim=True)
    shape = [-1 if axis == kept else 1 for axis in range(merged.ndim)]
    target = merged * (magnitudes.reshape(shape) / norm.clamp(min=torch.finfo(norm.dtype).tiny))
    if strength == 1.0:
        return weight.copy_(target)
    weight += (strength * (target - weight)).to(weight.dtype)
    return weight


def pad_tensor_to_shape(tensor: torch.Tensor, new_shape) -> torch.Tensor:
    """`tensor` in the corner of zeros of a larger shape.

    Raises:
        ValueError: the new shape has other axes, or one of them is smaller.
    """
    if len(new_shape) != tensor.ndim or any(new < old for new, old in zip(new_shape, tensor.shape)):
        raise ValueError(f"A tensor of shape {tuple(tensor.shape)} cannot be padded to {tuple(new_shape)}.")
    larger = tensor.new_zeros(tuple(new_shape))
    larger[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return larger


def tucker_weight(wa: torch.Tensor, wb: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A convolution (out, in, k, l) from its core `t` (r, s, k, l), `wa` (r, out) and `wb` (s, in)."""
    return torch.einsum("rskl,ro,si->oikl", t, wa, wb)


def tucker_weight_from_conv(up: torch.Tensor, down: torch.Tensor, mid: torch.Tensor) -> torch.Tensor:
    """The convolution that `down` (s, in, 1, 1), `mid` (r, s, k, l) and `up` (out, r, 1, 1) do in turn."""
    return torch.einsum("rskl,or,si->oikl", mid, up.flatten(1), down.flatten(1))

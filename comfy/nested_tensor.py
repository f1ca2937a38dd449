"""Several tensors as one value: latents of video and sound that are sampled together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class NestedTensor:
    """Tensors of unlike shapes. `is_nested` tells it from a tensor, `unbind()` takes it apart.

    Arithmetic and moves apply to each part; the other operand may be one too, of as many parts.
    """

    is_nested = True

    def __init__(self, tensors: Sequence[Any]) -> None:
        self.tensors = list(tensors)

    def unbind(self) -> list[Any]:
        """The parts."""
        return self.tensors

    def _each(self, function: Callable[..., Any], other: Any = None) -> NestedTensor:
        others = other.tensors if isinstance(other, NestedTensor) else [other] * len(self.tensors)
        return NestedTensor([function(part, value) for part, value in zip(self.tensors, others)])

    def to(self, *args: Any, **kwargs: Any) -> NestedTensor:
        """On another device, or in another dtype."""
        return self._each(lambda part, _: part.to(*args, **kwargs))

    def clone(self) -> NestedTensor:
        """A copy of each part."""
        return self._each(lambda part, _: part.clone())

    def __add__(self, other: Any) -> NestedTensor:
        return self._each(lambda part, value: part + value, other)

    def __sub__(self, other: Any) -> NestedTensor:
        return self._each(lambda part, value: part - value, other)

    def __mul__(self, other: Any) -> NestedTensor:
        return self._each(lambda part, value: part * value, other)

    @property
    def shape(self) -> Any:
        """The shape of the first part."""
        return self.tensors[0].shape

    @property
    def ndim(self) -> int:
        """Dimensions of the first part."""
        return int(self.tensors[0].ndim)

    @property
    def device(self) -> Any:
        """The device of the first part."""
        return self.tensors[0].device

    @property
    def dtype(self) -> Any:
        """The dtype of the first part."""
        return self.tensors[0].dtype

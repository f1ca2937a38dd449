"""Several tensors that pass as one latent: a video and its sound."""

from __future__ import annotations

import torch


class NestedTensor:
    """Arithmetic is done to each; shape, dtype and device are those of the first."""

    is_nested = True

    def __init__(self, tensors):
        self.tensors = list(tensors)

    def apply_operation(self, other, operation):
        """operation(own, other's) for each; what is not nested meets all."""
        others = other.tensors if isinstance(other, NestedTensor) else [other] * len(self.tensors)
        return NestedTensor(operation(own, its) for own, its in zip(self.tensors, others))

    def _each(self, function):
        return NestedTensor(function(tensor) for tensor in self.tensors)

    def __add__(self, other):
        return self.apply_operation(other, torch.Tensor.__add__)

    def __sub__(self, other):
        return self.apply_operation(other, torch.Tensor.__sub__)

    def __mul__(self, other):
        return self.apply_operation(other, torch.Tensor.__mul__)

    def __truediv__(self, other):
        return self.apply_operation(other, torch.Tensor.__truediv__)

    def __getitem__(self, index):
        return self._each(lambda tensor: tensor[index])

    def unbind(self):
        return self.tensors

    def to(self, *args, **kwargs):
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def clone(self):
        return self._each(torch.clone)

    def float(self):
        return self.to(dtype=torch.float)

    def cpu(self):
        return self.to(device="cpu")

    def chunk(self, *args, **kwargs):
        return self._each(lambda tensor: tensor.chunk(*args, **kwargs))

    def new_ones(self, *args, **kwargs):
        return self.tensors[0].new_ones(*args, **kwargs)

    def size(self):
        return self.tensors[0].size()

    @property
    def shape(self):
        return self.tensors[0].shape

    @property
    def ndim(self):
        """That of the one with most sides."""
        return max((tensor.ndim for tensor in self.tensors), default=0)

    @property
    def device(self):
        return self.tensors[0].device

    @property
    def dtype(self):
        return self.tensors[0].dtype

    @property
    def layout(self):
        return self.tensors[0].layout

    def __repr__(self):
        return f"{type(self).__name__}({self.tensors!r})"


def cat_nested(tensors, *args, **kwargs):
    """Nested tensors joined, each part with its like."""
    return NestedTensor(torch.cat(parts, *args, **kwargs) for parts in zip(*(one.tensors for one in tensors)))

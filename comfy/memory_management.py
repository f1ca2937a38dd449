"""Sizes of tensors in memory, and views of one buffer as many tensors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

ALIGNMENT = 1024  # bytes at which each tensor of a buffer begins
aimdo_enabled = False  # weights are streamed by comfy.streaming here, not by that library
extra_ram_release_callback = None
RAM_CACHE_HEADROOM = 0


class TensorGeometry(NamedTuple):
    """A tensor without its values."""

    shape: torch.Size | tuple[int, ...]
    dtype: torch.dtype

    def element_size(self) -> int:
        return self.dtype.itemsize

    def numel(self) -> int:
        return math.prod(self.shape)


def tensors_to_geometries(tensors, dtype=None) -> list:
    """Shape and dtype of each, or `dtype` for all; None stays None."""
    return [
        None if one is None else TensorGeometry(one.shape, dtype or getattr(one, "_model_dtype", one.dtype))
        for one in tensors
    ]


def vram_aligned_size(tensor) -> int:
    """Bytes of a tensor, or of a list of them, each up to a multiple of the alignment."""
    if tensor is None:
        return 0
    if isinstance(tensor, list):
        return sum(vram_aligned_size(one) for one in tensor)
    return -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT


def interpret_gathered_like(tensors, gathered) -> list:
    """Views of the bytes of `gathered` (bytes,) with the shapes and dtypes of `tensors`, one after the other.

    Raises:
        ValueError: the buffer is no row of bytes, or too small.
    """
    if gathered.dim() != 1 or gathered.element_size() != 1:
        raise ValueError(
            f"The buffer must be one row of bytes, not {gathered.dim()} sides of {gathered.dtype}."
        )
    views, start = [], 0
    for one in tensors:
        if one is None:
            views.append(None)
            continue
        end = start + one.numel() * one.element_size()
        if end > gathered.numel():
            raise ValueError(f"The buffer has {gathered.numel()} bytes and needs at least {end}.")
        views.append(gathered[start:end].view(dtype=one.dtype).view(one.shape))
        start += vram_aligned_size(one)
    return views


def set_ram_cache_release_state(callback, headroom) -> None:
    """What `extra_ram_release` calls, and how much it is to leave free."""
    global extra_ram_release_callback, RAM_CACHE_HEADROOM
    extra_ram_release_callback, RAM_CACHE_HEADROOM = callback, max(0, int(headroom))


def extra_ram_release(target, free_active=False):
    """Ask the callback, if there is one, to free so many bytes; how many it freed."""
    if extra_ram_release_callback is None:
        return 0
    return extra_ram_release_callback(target, free_active=free_active)

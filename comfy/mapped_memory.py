"""Casting weights that are mapped from a file, without keeping both forms in memory.

Reading a mapped tensor makes its part of the file resident, and it stays that until the whole file is
unmapped. Once a tensor has been cast, nobody reads the original again, so its pages are given back. Should
somebody read it all the same, the system reads the pages from the file again.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import mmap
import sys
from pathlib import Path

import torch

from comfy.errors import NotEnoughMemory
from comfy.ram import read_ram
from comfy_depot import hooks as depot

# Address ranges [start, end) that are mapped from files, in order.
Ranges = list[tuple[int, int]]


def cast_weights(weights: dict, keys, dtype: torch.dtype | None) -> None:
    """Replace the floating point tensors of these keys by ones in `dtype`, each original given back at once.

    Tensors that have the dtype already, and all for None, stay as they are: mapped.

    Raises:
        NotEnoughMemory: the new tensors do not fit; none was made. Else the system would end the process.
    """
    ranges: Ranges | None = None
    keys = [] if dtype is None else [key for key in keys if _differs(weights[key], dtype)]
    if keys:
        _require_room(sum(weights[key].numel() for key in keys) * dtype.itemsize, dtype)
    for key in keys:
        original = weights[key]
        weights[key] = original.to(dtype)
        ranges = _ranges_mapped_from_files() if ranges is None else ranges
        _give_back(original, ranges)


def _differs(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    return tensor.is_floating_point() and tensor.dtype != dtype


def _require_room(size: int, dtype: torch.dtype) -> None:
    """Make sure that `size` bytes are free in memory."""
    depot.needs_memory(size, free_bytes)
    if size > (free := free_bytes()):
        raise NotEnoughMemory(
            f"This model needs {size / 1e9:.1f} GB of memory for its weights in {str(dtype)[6:]}, and "
            f"{free / 1e9:.1f} GB are free. Close other programs, choose a smaller model or a file in fewer "
            "bits, or keep the file's own precision (for example --bf16-unet)."
        )


def free_bytes() -> int:
    """What this process can still use: memory that is free or only caches files, and free swap."""
    import psutil

    return read_ram().available + psutil.swap_memory().free


def _ranges_mapped_from_files() -> Ranges:
    """Of this process; empty where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    ranges = []
    for line in lines:  # 7f00-7f10 rw-p 00000000 fe:00 1234    /the/file
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            start, end = (int(address, 16) for address in addresses.split("-"))
            ranges.append((start, end))
    return ranges


def _give_back(tensor: torch.Tensor, ranges: Ranges) -> None:
    """Drop the whole pages of a tensor, if it lies in memory that is mapped from a file."""
    start, length = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    place = bisect.bisect_right(ranges, (start, sys.maxsize)) - 1
    if place < 0 or not tensor.is_contiguous() or start + length > ranges[place][1]:
        return
    page = mmap.PAGESIZE
    first, last = -(-start // page) * page, (start + length) // page * page
    if first < last:
        _madvise()(first, last - first, mmap.MADV_DONTNEED)


@functools.lru_cache(maxsize=1)
def _madvise():
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function

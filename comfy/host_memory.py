"""Weights between host memory and a device.

    to the device     several threads read (from mapped files: pages that may not be in memory yet) into
                      page-locked buffers, from which the device takes them while the next part is read
    from the device   into page-locked memory, if there is enough, so that they come back at the bus's speed

Page-locked memory is that of CUDA. Elsewhere the same is done with plain memory.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from comfy import ram
from comfy.cli_args import args

Weights = dict[str, torch.Tensor]
THREADS = 4
BUFFER_BYTES = 32 * 1024 * 1024
LEAST_BYTES_FOR_THREADS = 1024 * 1024
LEAST_FREE_BYTES = 2 * 1024**3
"""What page-locked memory leaves to everything else."""
_locked_bytes = 0
_lock = threading.Lock()


def locks_pages(device: torch.device) -> bool:
    """Does page-locked memory make copies from and to this device faster?"""
    return device.type == "cuda" and not args.disable_pinned_memory


def locked_bytes() -> int:
    """Bytes of page-locked memory that hold weights."""
    return _locked_bytes


def to_device(weights: Mapping[str, torch.Tensor], device: torch.device) -> Weights:
    """The weights on `device`; those that are there already as they are."""
    there = {name: tensor for name, tensor in weights.items() if tensor.device == device}
    coming = {name: tensor for name, tensor in weights.items() if name not in there}
    if device.type == "cpu":
        return there | {name: tensor.to(device) for name, tensor in coming.items()}
    read = {name: tensor for name, tensor in coming.items() if _is_for_threads(tensor)}
    there |= {name: tensor.to(device, non_blocking=True) for name, tensor in coming.items()
              if name not in read}
    there |= {name: torch.empty_like(tensor, device=device) for name, tensor in read.items()}
    # The memory just given may still be used by what was queued before: other streams must not write it yet.
    torch.get_device_module(device).synchronize(device)
    with _Readers(device) as readers:
        for arrival in [readers.start(tensor, there[name]) for name, tensor in read.items()]:
            arrival.result()
    return there


def to_host(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Copies in host memory, page-locked where that helps and there is room."""
    copies, room = {}, None
    for name, tensor in weights.items():
        if not locks_pages(tensor.device):
            copies[name] = tensor.to("cpu")
            continue
        room = (_room_to_lock() if room is None else room) - tensor.nbytes
        copies[name] = _locked_like(tensor).copy_(tensor, non_blocking=True) if room > 0 else tensor.to("cpu")
    for device in {tensor.device for tensor in weights.values() if tensor.device.type != "cpu"}:
        torch.get_device_module(device).synchronize(device)
    return copies


def lock_pages(weights: Mapping[str, torch.Tensor], device: torch.device) -> Weights:
    """Page-locked copies of weights in host memory, for `device`; as they are where that does not help."""
    if not locks_pages(device):
        return dict(weights)
    locked, room = dict(weights), _room_to_lock()
    for name, tensor in weights.items():
        if not tensor.is_pinned() and (room := room - tensor.nbytes) > 0:
            locked[name] = _locked_like(tensor).copy_(tensor)
    return locked


def _is_for_threads(tensor: torch.Tensor) -> bool:
    return (tensor.device.type == "cpu" and tensor.nbytes >= LEAST_BYTES_FOR_THREADS
            and tensor.is_contiguous() and not tensor.is_pinned())  # fmt: skip


def _room_to_lock() -> int:
    """Bytes that may be page-locked now. To ask the system takes as long as to copy a small tensor."""
    memory = ram.read_ram()
    return min(memory.total // 2 - _locked_bytes, memory.available - LEAST_FREE_BYTES)


def _locked_like(tensor: torch.Tensor) -> torch.Tensor:
    global _locked_bytes
    memory = torch.empty_like(tensor, device="cpu", pin_memory=torch.cuda.is_available())
    made = torch.nn.Parameter(memory, requires_grad=False)  # the object that will stand in the model
    size = made.nbytes
    with _lock:
        _locked_bytes += size
    weakref.finalize(made, _note_freed, size).atexit = False
    return made


def _note_freed(size: int) -> None:
    global _locked_bytes
    with _lock:
        _locked_bytes -= size


class _Readers:
    """Threads that bring tensors to a device through buffers."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = torch.get_device_module(device)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="weights")
        self._buffers: queue.SimpleQueue[torch.Tensor] = queue.SimpleQueue()
        self._made = 0

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *exception) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, tensor: torch.Tensor, target: torch.Tensor) -> Future[None]:
        """Begin to fill `target`; the future ends when it is filled."""
        return self._pool.submit(self._bring, tensor, target)

    def _bring(self, tensor: torch.Tensor, target: torch.Tensor) -> None:
        stream, buffer = self._module.Stream(self._device), self._buffer()
        try:
            with torch.inference_mode(), self._module.stream(stream):
                source, goal = _bytes_of(tensor), _bytes_of(target)
                for start in range(0, source.numel(), BUFFER_BYTES):
                    part = source[start:start + BUFFER_BYTES]
                    filled = buffer[:part.numel()].copy_(part)
                    goal[start:start + BUFFER_BYTES].copy_(filled, non_blocking=True)
                    stream.synchronize()
        finally:
            self._buffers.put(buffer)

    def _buffer(self) -> torch.Tensor:
        """One that nobody fills now; there are as many as threads."""
        with _lock:
            if self._made < THREADS and self._buffers.empty():
                self._made += 1
                return torch.empty(BUFFER_BYTES, dtype=torch.uint8, pin_memory=locks_pages(self._device))
        return self._buffers.get()


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)

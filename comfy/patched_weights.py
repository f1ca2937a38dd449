"""Weights that were patched once are kept, so that going from one LoRA to another and back computes nothing.

    a clone is loaded, another takes its place, the first is loaded again: its patched weights are put back

What is kept is known by what was patched with what: the patches' own tensors, by their place in memory, and
their numbers. They are held as long as the result is, so a place is never another tensor's. The kept weights
take memory that nobody else wants: they go first, the least recently used ones, when a device or the machine
gets full.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch

from comfy import ram

LEAST_FREE_SHARE = 0.25
"""Of the machine's memory; nothing is kept beyond that."""


@dataclass(frozen=True)
class Identity:
    """What weights were patched with; equal ones give equal weights."""

    content: tuple
    holds: tuple = field(compare=False)
    """The objects that are known by place or by identity."""

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self.content)

    def __hash__(self) -> int:  # of thousands of numbers, and asked for at each switch
        return self._hash


def identity_of(patches: dict[str, list]) -> Identity:
    """Of a patcher's patches."""
    holds: list = []
    content = tuple((key, _content(patches[key], holds)) for key in sorted(patches))
    return Identity(content, tuple(holds))


def _content(value: Any, holds: list) -> Any:
    if value is None or isinstance(value, (int, float, str, bytes)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_content(part, holds) for part in value)
    if type(value).__module__.startswith("comfy.weight_adapter."):  # packs' own may hold anything
        facts = {name: part for name, part in vars(value).items() if name != "loaded_keys"}
        return type(value), *((name, _content(facts[name], holds)) for name in sorted(facts))
    holds.append(value)
    if isinstance(value, torch.Tensor) and value.data_ptr():
        # Models wrap a weight anew when patches are undone, as another model's that is merged in.
        return type(value), value.data_ptr(), value.dtype, value.shape, value.stride()
    return "at", id(value)


@dataclass
class _Kept:
    weights: dict[str, torch.Tensor]
    size: int
    """Bytes, with those of the patches that are held for it."""


_lock = threading.RLock()
_kept: OrderedDict[tuple[int, Identity], _Kept] = OrderedDict()
_counts = {"computed": 0, "put_back": 0}
_known: dict[int, weakref.ref] = {}
"""The models of which something is kept, by id."""


def keep(
    model: torch.nn.Module, identity: Identity, weights: dict[str, torch.Tensor], *, is_new: bool = True
) -> None:
    """Remember the patched weights of a model, if there is room; unless `is_new` they were kept before."""
    size = sum(one.nbytes for one in (*weights.values(), *identity.holds) if isinstance(one, torch.Tensor))
    in_ram = sum(tensor.nbytes for tensor in weights.values() if tensor.device.type == "cpu")
    with _lock:
        if not weights or (is_new and not _make_room_in_ram(in_ram)):
            return
        _known.setdefault(id(model), weakref.ref(model, lambda _, key=id(model): _forget(key)))
        _kept[id(model), identity] = _Kept(weights, size)


def take(model: torch.nn.Module, identity: Identity) -> dict[str, torch.Tensor]:
    """The patched weights that are kept of a model, and are its own now; empty where there are none."""
    with _lock:
        found = _kept.pop((id(model), identity), None)
        return {} if found is None else found.weights


def release(model: torch.nn.Module) -> None:
    """Let go of all that is kept of a model."""
    _forget(id(model))


def release_bytes(count: float, device: torch.device) -> None:
    """Let go of what was not used for longest on a device, until so many bytes of it are free."""
    with _lock:
        for key in list(_kept):
            if count <= 0:
                return
            there = [one.nbytes for one in _kept[key].weights.values() if one.device == device]
            if there:
                count -= sum(there)
                del _kept[key]


def count(*, computed: int, put_back: int) -> None:
    """Note how many weights were computed from patches, and how many kept ones were put back."""
    with _lock:
        _counts["computed"] += computed
        _counts["put_back"] += put_back


def stats() -> dict[str, int]:
    """Weights computed and put back since the start, and bytes kept now."""
    with _lock:
        return {**_counts, "bytes_kept": bytes_kept()}


def bytes_kept() -> int:
    """Bytes of all that is kept."""
    with _lock:
        return sum(one.size for one in _kept.values())


def _make_room_in_ram(size: int) -> bool:
    if not size:
        return True
    memory = ram.read_ram()
    left = memory.available - size - LEAST_FREE_SHARE * memory.total
    if left < 0:
        release_bytes(-left, torch.device("cpu"))
        memory = ram.read_ram()
    return memory.available - size >= LEAST_FREE_SHARE * memory.total


def _forget(model_id: int) -> None:
    with _lock:
        _known.pop(model_id, None)
        for key in [key for key in _kept if key[0] == model_id]:
            del _kept[key]

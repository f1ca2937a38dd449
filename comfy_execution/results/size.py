"""How many bytes of RAM a node's result keeps alive.

A result may be anything, so nothing of it is ever called: containers are walked by the methods of the
built-in types, objects by their `__dict__` and slots, modules of torch by their dictionaries of parameters.

    tensor, array      its whole storage (a slice keeps all of it); storages that several results share have
                       one address and are told apart by it. Tensors on other devices are no RAM; those that
                       belong to no model are counted for themselves.
    model              the storages of its weights, and of what its patches hold
    picture of PIL     width x height x channels
    text, bytes        as they are
    list, dict         their elements; a long list of plain values is estimated from its start
    anything else      OBJECT_BYTES

What lies deeper than DEPTH_LIMIT, or behind the first OBJECT_LIMIT objects, is not counted. torch, numpy and
PIL are not imported for this: as long as they are not loaded, no result can hold something of theirs.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

ENTRY_BYTES = 1000
"""What it costs to know a result at all."""
OBJECT_BYTES = 64
DEPTH_LIMIT = 16
OBJECT_LIMIT = 50_000
LONG_LIST = 1000

_scalars = frozenset({int, float, bool, type(None), complex})
_dead_ends: tuple[type, ...] = (
    type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType,
    types.GeneratorType, types.CoroutineType, weakref.ReferenceType, weakref.WeakKeyDictionary,
    weakref.WeakValueDictionary, property,
)  # fmt: skip


@dataclass
class Size:
    """`own` bytes, and `blocks`: the bytes of each memory block that others may share, by its address."""

    own: int = ENTRY_BYTES
    blocks: dict[int, int] = field(default_factory=dict)
    device: int = 0
    """Bytes of tensors on other devices that belong to no model."""
    is_elsewhere: bool = False
    """Does it hold tensors on other devices? Those of models may come back to RAM."""
    has_models: bool = False
    """Does it hold the weights of a model?"""

    @property
    def total(self) -> int:
        """All bytes."""
        return self.own + sum(self.blocks.values())


def is_small(outputs: Any) -> bool:
    """Is this nothing but a few plain numbers? By far the most usual result of cheap nodes."""
    for values in outputs:
        if type(values) is not list or len(values) > 8:
            return False
        for value in values:
            if type(value) not in _scalars and (type(value) is not str or len(value) > 100):
                return False
    return True


def measure(*results: Any) -> Size:
    """The size of these things together."""
    size = Size()
    _Walk(size).run(results)
    return size


class _Walk:
    """Goes through everything that can be reached, each object once, without recursion."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.seen: set[int] = set()
        self.seen_elsewhere: set[int] = set()
        self.tensor: Any = getattr(sys.modules.get("torch"), "Tensor", ())
        self.module: Any = getattr(sys.modules.get("torch.nn"), "Module", ())
        self.array: Any = getattr(sys.modules.get("numpy"), "ndarray", ())
        self.picture: Any = getattr(sys.modules.get("PIL.Image"), "Image", ())

    def run(self, results: Iterable[Any]) -> None:
        """Count what these hold."""
        level, seen = list(results), self.seen
        for _ in range(DEPTH_LIMIT + 1):
            inner: list[Any] = []
            for value in level:
                kind = type(value)
                if kind in _scalars:
                    self.size.own += 32
                    continue
                if id(value) in seen:
                    continue
                if len(seen) >= OBJECT_LIMIT:
                    return
                seen.add(id(value))
                if kind is str:
                    self.size.own += OBJECT_BYTES + len(value)
                    continue
                try:
                    inner.extend(self._count(value, kind))
                except Exception:  # subclasses of arrays and pictures, other threads: an estimate must do
                    self.size.own += OBJECT_BYTES
            level = inner

    def _count(self, value: Any, kind: type) -> Iterable[Any]:
        """Count one object; returns what is inside."""
        if kind is dict and len(value) <= LONG_LIST:
            self.size.own += OBJECT_BYTES + 100 * len(value)
            return [*value, *value.values()]
        if kind is list and len(value) <= LONG_LIST:
            self.size.own += OBJECT_BYTES + 8 * len(value)
            return list(value)
        if issubclass(kind, (str, bytes, bytearray)):
            self.size.own += OBJECT_BYTES + len(value)
        elif issubclass(kind, self.tensor):
            self._tensor(value, of_model=False)
        elif issubclass(kind, self.module):
            self._weights(value)
        elif issubclass(kind, self.array):
            self._block(*_array_block(value))
        elif issubclass(kind, self.picture):
            self.size.own += _picture_bytes(value)
        elif issubclass(kind, dict):
            self.size.own += OBJECT_BYTES + 100 * dict.__len__(value)
            return self._elements([*dict.keys(value), *dict.values(value)])
        elif issubclass(kind, (list, tuple, set, frozenset)):
            base = next(base for base in (list, tuple, set, frozenset) if issubclass(kind, base))
            self.size.own += OBJECT_BYTES + 8 * base.__len__(value)
            return self._elements(list(base.__iter__(value)))
        elif not issubclass(kind, _dead_ends):
            self.size.own += OBJECT_BYTES
            return list(_attributes(value))
        return ()

    def _block(self, address: int, size: int) -> None:
        if size:
            self.size.blocks[address] = size

    def _tensor(self, tensor: Any, *, of_model: bool) -> None:
        try:
            storage = tensor.untyped_storage()
            address, size = storage.data_ptr() or id(tensor), storage.nbytes()
            is_ram = tensor.device.type == "cpu"
        except Exception:  # kinds of tensors that packs make need not have a storage
            address, size, is_ram = id(tensor), OBJECT_BYTES, True
        if is_ram:
            self._block(address, size)
            return
        self.size.is_elsewhere = True
        if not of_model and address not in self.seen_elsewhere:
            self.seen_elsewhere.add(address)
            self.size.device += size

    def _elements(self, values: list[Any]) -> list[Any]:
        """The elements of a container that have to be looked at."""
        if len(values) <= LONG_LIST or any(not _is_plain(value) for value in values[:LONG_LIST]):
            return values
        start = sum(OBJECT_BYTES + len(v) if isinstance(v, (str, bytes)) else 32 for v in values[:LONG_LIST])
        self.size.own += start * len(values) // LONG_LIST
        return []

    def _weights(self, module: Any) -> None:
        """Parameters, buffers and inner modules of a module of torch, at any depth: modules nest deeply, and
        none of them is a stranger.
        """
        self.size.has_models = True
        waiting: list[Any] = [module]
        while waiting and len(self.seen) < OBJECT_LIMIT:
            attributes = object.__getattribute__(waiting.pop(), "__dict__")
            for name in ("_parameters", "_buffers"):
                for tensor in (attributes.get(name) or {}).values():
                    if tensor is not None:
                        self._tensor(tensor, of_model=True)
            for inner in (attributes.get("_modules") or {}).values():
                if inner is not None and id(inner) not in self.seen:
                    self.seen.add(id(inner))
                    waiting.append(inner)


def _is_plain(value: Any) -> bool:
    return type(value) in _scalars or type(value) in (str, bytes)


def _attributes(value: Any) -> Iterator[Any]:
    """What an object holds, without asking its class."""
    try:
        yield from dict.values(object.__getattribute__(value, "__dict__"))
    except (AttributeError, TypeError):
        pass
    for kind in type(value).__mro__:
        for descriptor in list(vars(kind).values()):
            if type(descriptor) is types.MemberDescriptorType:
                try:
                    yield descriptor.__get__(value)
                except AttributeError:  # a slot that is empty
                    continue


def _array_block(array: Any) -> tuple[int, int]:
    while type(array.base) is type(array):
        array = array.base
    return int(array.__array_interface__["data"][0]), int(array.nbytes)


def _picture_bytes(picture: Any) -> int:
    width, height = picture.size
    return int(width) * int(height) * (4 if picture.mode in ("I", "F") else len(picture.mode.split(";")[0]))

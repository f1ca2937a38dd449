"""One model in memory: what a loader gave, held so that everybody gets a clone of it.

Nobody gets the stored object. Each caller gets a clone that shares the weights; patches belong to the clone.
Nothing here imports torch: weights are only held.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import time
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy_depot import places
from comfy_depot.calls import NoKey
from comfy_depot.drops import Key, Standing
from comfy_depot.eviction import Stamp
from comfy_depot.memory_pins import Pin

HOST_MEMORY = "cpu"
MOVES_REMEMBERED = 10
_SELF = object()
Position = tuple[str, int]
"""The device that a model was brought to, and the bytes of it that are there; ("", 0) where it rests."""


@dataclass(frozen=True)
class Move:
    """Weights that went from one device to another."""

    time: float
    from_: str
    to: str
    bytes: int
    seconds: float
    why: str

    def as_json(self) -> dict[str, Any]:
        """It, as the routes give it."""
        return {"time": self.time, "from": self.from_, "to": self.to, "bytes": self.bytes,
                "seconds": round(self.seconds, 3), "why": self.why}


class Part:
    """One object of what a loader gave (a MODEL, CLIP or VAE), held so that it can be given out as clones.

    `base` is the part's ModelPatcher. Every clone refers to it, through `parent`, so it lives as long as a
    clone does, and a device that loses the last clone still knows whose weights it has.
    """

    def __init__(self, whole: Any) -> None:
        is_wrapper = hasattr(whole, "patcher")
        base = whole.patcher if is_wrapper else whole
        if base is not None and not (hasattr(base, "model") and hasattr(base, "clone")):
            raise NoKey
        self.size = 0 if base is None else int(base.model_size())
        self._base = None if base is None else weakref.ref(base)
        self._users: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()
        """{clone: for whom it was made}"""
        self._shell: Any = None
        self._names: list[str] = []
        self._own: dict[str, Callable[[Any], Any]] = {}
        """{attribute: what makes it for a clone} of the functions that are made for this one object"""
        if is_wrapper:
            self._shell = copy.copy(whole)
            module = getattr(base, "model", None)
            self._names = [name for name, value in vars(whole).items()
                           if module is not None and value is module]
            self._own = {name: make for name, value in vars(whole).items()
                         if (make := _maker(value, whole)) is not None}
            for name in ("patcher", *self._names, *self._own):
                setattr(self._shell, name, None)
        self.position: Position = "", 0
        self.position = self.position_now()

    def base(self) -> Any:
        """The patcher that all clones come from; None when it is gone, or where there are no weights."""
        return None if self._base is None else self._base()

    @property
    def is_there(self) -> bool:
        """Whether it can be given out."""
        return self._base is None or self._base() is not None

    @property
    def is_idle(self) -> bool:
        """Whether nobody has a clone."""
        return not self._users

    @property
    def users(self) -> list[str | None]:
        """For whom each living clone was made, where that is known."""
        return list(self._users.values())

    @property
    def module(self) -> Any:
        """What holds the weights: a torch module, or a dictionary of tensors."""
        return getattr(self.base(), "model", None)

    def mark(self, is_pinned: bool) -> None:
        """Tell whoever plans memory whether these weights must stay where they are."""
        with contextlib.suppress(AttributeError):  # a dictionary, or nothing, has no place for it
            self.module.is_pinned = is_pinned

    def position_now(self) -> Position:
        """Where it has been brought, and how much of it; ("", 0) while it rests in host memory.

        With `--gpu-only` it rests on the device, so that to be unloaded moves nothing.
        """
        base = self.base()
        if not hasattr(base, "current_loaded_device") or not hasattr(base, "loaded_size"):
            return "", 0
        device, loaded = base.current_loaded_device(), int(base.loaded_size())
        if str(device).startswith(HOST_MEMORY):
            return "", 0
        if not loaded and device == base.offload_device and self.position[0] == str(device):
            return self.position
        return (str(device), loaded) if loaded else ("", 0)

    def tensors(self) -> Iterator[Any]:
        """Its weights."""
        module = self.module
        if isinstance(module, dict):
            yield from module.values()
        for kind in ("parameters", "buffers"):
            yield from getattr(module, kind, tuple)()

    def clone(self, user: str | None = None) -> Any:
        """A fresh object that shares the weights."""
        base = self.base()
        if self._shell is None:
            given = patcher = base if base is None else base.clone()
        else:
            given = _copy_of(self._shell)
            for name in self._names:
                setattr(given, name, base.model)
            for name, make in self._own.items():
                setattr(given, name, make(given))
            given.patcher = patcher = None if base is None else base.clone()
        if patcher is not None:
            self._users[patcher] = user
        return given


def _maker(function: Any, whole: Any) -> Callable[[Any], Any] | None:
    """What makes the same function for another object than `whole`, to which it is bound; None for anything
    else. It refers to `whole` no more, which would keep the weights in memory.
    """
    if isinstance(function, types.MethodType) and function.__self__ is whole:
        return functools.partial(types.MethodType, function.__func__)
    cells = getattr(function, "__closure__", None) or ()
    contents = [cell.cell_contents for cell in cells]
    if not isinstance(function, types.FunctionType) or not any(value is whole for value in contents):
        return None
    contents = [_SELF if value is whole else value for value in contents]
    return functools.partial(_bound, function.__code__, function.__globals__, function.__defaults__, contents)


def _bound(code: Any, names: Any, defaults: Any, contents: Sequence[Any], given: Any) -> Any:
    cells = tuple(types.CellType(given if value is _SELF else value) for value in contents)
    return types.FunctionType(code, names, code.co_name, defaults, cells)


def _copy_of(shell: Any) -> Any:
    """A wrapper whose own dictionaries and lists nobody else has."""
    made = copy.copy(shell)
    for name, value in vars(made).items():
        if type(value) in (dict, list, set):
            setattr(made, name, copy.copy(value))
    return made


@dataclass
class Resident:
    """One model in memory."""

    key: Key
    loader: str
    is_tuple: bool
    parts: list[Part | None]
    seconds_to_load: float
    stamps: set[Stamp] = field(default_factory=set)
    """The files that it is the content of."""
    paths: set[str] = field(default_factory=set)
    loads: int = 1
    hits: int = 0
    last_used: float = 0.0
    held: list[Any] = field(default_factory=list)
    """The bases, which keep the weights in memory; empty when the model only lives as long as its users."""
    pins: tuple[Pin, ...] = ()
    """Those who wish that it stays."""
    is_pinned: bool = False
    """Whether it does: the first of the pinned ones that fit into their budget do."""
    is_outdated: bool = False
    """Whether nobody can ask for it any more: its file was replaced, or another one has its content."""
    moves: deque[Move] = field(default_factory=lambda: deque(maxlen=MOVES_REMEMBERED))
    _counted: tuple[Any, dict[str, int]] | None = None

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return sum(part.size for part in self._parts())

    @property
    def is_there(self) -> bool:
        """Whether all of it can be given out."""
        return all(part.is_there for part in self._parts())

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses any of it."""
        return all(part.is_idle for part in self._parts())

    def bases(self) -> list[Any]:
        """The patchers that there are."""
        return [base for base in (part.base() for part in self._parts()) if base is not None]

    def hold(self) -> None:
        """Keep it in memory."""
        self.held = self.bases()

    def mark(self, is_pinned: bool) -> None:
        """From now on it is pinned, or not."""
        self.is_pinned = is_pinned
        for part in self._parts():
            part.mark(is_pinned)

    def give(self, user: str | None = None) -> Any:
        """What the loader would return, as clones for a user."""
        given = tuple(None if part is None else part.clone(user) for part in self.parts)
        return given if self.is_tuple else given[0]

    def keep_what_is_used(self, before: Resident) -> None:
        """Take parts that are in use already instead of those that were loaded again for the others' sake."""
        self.loads, self.hits = before.loads + 1, before.hits
        self.stamps |= before.stamps
        self.paths |= before.paths
        self.moves = before.moves
        if len(before.parts) == len(self.parts):
            self.parts = [old if old is not None and old.is_there else new
                          for old, new in zip(before.parts, self.parts, strict=True)]

    def standing(self) -> Standing:
        """What counts when it may have to go."""
        return Standing(self.key, self.size, self.seconds_to_load, self.last_used, self.is_idle,
                        self.is_pinned)

    @property
    def names(self) -> list[str]:
        """Its files, as "folder type/name"."""
        return sorted(map(places.name_of, self.paths))

    @property
    def bytes_on(self) -> dict[str, int]:
        """{device: bytes of its weights that are there}; counted anew when one of its parts has moved."""
        places = tuple((base.current_loaded_device(), base.loaded_size()) if hasattr(base, "loaded_size") else
                       None for base in (part.base() for part in self._parts()))
        if self._counted is None or self._counted[0] != places:
            self._counted = places, self._count_bytes()
        return dict(self._counted[1])

    def _count_bytes(self) -> dict[str, int]:
        tensors: dict[int, Any] = {}
        for part in self._parts():
            with contextlib.suppress(RuntimeError):  # its layers are being changed: the rest next time
                tensors.update((id(tensor), tensor) for tensor in part.tensors())
        found: dict[str, int] = {}
        for tensor in tensors.values():
            found[str(tensor.device)] = found.get(str(tensor.device), 0) + int(tensor.nbytes)
        return found

    @property
    def why(self) -> str:
        """Why it is in memory and where, as a sentence."""
        ago = f"{max(0.0, time.time() - self.last_used):.0f} s"
        words = [f"pinned by {', '.join(self.pinned_by)}"] if self.is_pinned else []
        words.append(f"idle since {ago}" if self.is_idle and not self.is_pinned else f"used {ago} ago")
        if self.pins and not self.is_pinned and not self.is_outdated:
            words.append(f"wished by {', '.join(self.pinned_by)}, and does not fit into --pin-budget")
        if not self.is_pinned:
            words.append("kept within the resident budget" if self.held else "goes with its last user")
        if self.is_outdated:
            words.append("nobody can ask for it any more")
        elif not any(map(os.path.exists, self.paths)):
            words.append("its file is gone")
        if self.moves and self.moves[0].to == HOST_MEMORY:
            words.append(f"moved to host memory: {self.moves[0].why}")
        return "; ".join(words)

    @property
    def pinned_by(self) -> list[str]:
        """Who wishes that it stays, each once."""
        return list(dict.fromkeys(pin.by for pin in self.pins))

    @property
    def title(self) -> str:
        """Its names, or its loader where it has none."""
        return ", ".join(self.names) or self.loader

    def as_json(self) -> dict[str, Any]:
        """It, as the routes give it."""
        users = [user for part in self._parts() for user in part.users]
        return {
            "names": self.names, "loader": self.loader, "bytes": self.size, "loads": self.loads,
            "hits": self.hits, "seconds_to_load": round(self.seconds_to_load, 3),
            "last_used": self.last_used, "in_use": not self.is_idle, "kept": bool(self.held),
            "pinned": {"by": self.pinned_by, "since": min(pin.since for pin in self.pins)}
            if self.is_pinned else None,
            "on": self.bytes_on, "why": self.why, "moves": [move.as_json() for move in self.moves],
            "users": max((len(part.users) for part in self._parts()), default=0),
            "shared_by": sorted({user for user in users if user is not None}),
        }

    def _parts(self) -> list[Part]:
        return [part for part in self.parts if part is not None]

"""One model in memory: what a loader gave, held so that everybody gets a clone of it.

Nobody gets the stored object. Each caller gets a clone that shares the weights; patches belong to the clone.
Nothing here imports torch: weights are only held.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass, field
from typing import Any

from comfy_depot import places
from comfy_depot.calls import NoKey
from comfy_depot.drops import Key, Standing
from comfy_depot.eviction import Stamp


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
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._shell: Any = None
        self._names: list[str] = []
        if is_wrapper:
            self._shell = copy.copy(whole)
            module = getattr(base, "model", None)
            self._names = [name for name, value in vars(whole).items()
                           if module is not None and value is module]
            for name in ("patcher", *self._names):
                setattr(self._shell, name, None)

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

    def clone(self) -> Any:
        """A fresh object that shares the weights."""
        base = self.base()
        if self._shell is None:
            given = patcher = base if base is None else base.clone()
        else:
            given = _copy_of(self._shell)
            for name in self._names:
                setattr(given, name, base.model)
            given.patcher = patcher = None if base is None else base.clone()
        if patcher is not None:
            self._users.add(patcher)
        return given


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

    def give(self) -> Any:
        """What the loader would return, as clones."""
        given = tuple(None if part is None else part.clone() for part in self.parts)
        return given if self.is_tuple else given[0]

    def keep_what_is_used(self, before: Resident) -> None:
        """Take parts that are in use already instead of those that were loaded again for the others' sake."""
        self.loads, self.hits = before.loads + 1, before.hits
        self.stamps |= before.stamps
        self.paths |= before.paths
        if len(before.parts) == len(self.parts):
            self.parts = [old if old is not None and old.is_there else new
                          for old, new in zip(before.parts, self.parts, strict=True)]

    def standing(self) -> Standing:
        """What counts when it may have to go."""
        return Standing(self.key, self.size, self.seconds_to_load, self.last_used, self.is_idle)

    @property
    def names(self) -> list[str]:
        """Its files, as "folder type/name"."""
        return sorted(map(places.name_of, self.paths))

    def as_json(self) -> dict[str, Any]:
        """It, as the routes give it."""
        return {
            "names": self.names, "loader": self.loader, "bytes": self.size, "loads": self.loads,
            "hits": self.hits, "seconds_to_load": round(self.seconds_to_load, 3),
            "last_used": self.last_used, "in_use": not self.is_idle, "kept": bool(self.held),
        }

    def _parts(self) -> list[Part]:
        return [part for part in self.parts if part is not None]

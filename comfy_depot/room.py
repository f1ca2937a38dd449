"""Room on the disk and in the depot's budget, promised to each transfer before it begins.

Without this two downloads that fit alone, but not both, fill the disk, and neither can ever be finished. What
a transfer has written already is seen in its partial, so nothing has to be kept up to date here. Where room
is missing, `Evictor` is asked for it. Processes with the same state folder know each other's promises
(`neighbours.py`).

Numbers are read in the order in which a transfer that writes meanwhile makes them too large, never too small.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from comfy_depot.layout import owner_of
from comfy_depot.neighbours import Neighbours

OVERHEAD_BYTES = 64 << 10
"""Of a transfer, beside the file itself: record, control file, the last block."""


@dataclass(frozen=True)
class Shortage:
    """Why there is no room, in bytes."""

    needed: int
    free: int
    promised: int
    """Of the free bytes: what other transfers will still write."""
    fits_never: bool
    """Whether the whole disk or budget is too small."""
    max_size: int | None = None
    """The budget, where that is what lacks room; `free` is then what is free in it."""
    kept: tuple[str, ...] = ()
    """What could not be evicted, with the reasons."""


@dataclass(frozen=True)
class Held:
    """What the depot's own models take, and what of them must stay."""

    own_bytes: int
    kept: tuple[str, ...] = ()


class Evictor(Protocol):
    """Makes room by evicting models."""

    def make_room(self, *, device: int, bytes_on_device: int, max_size: int | None,
                  coming: frozenset[str]) -> Held:
        """Evict until `bytes_on_device` more bytes are free there and the own models take at most `max_size`,
        as far as that goes. Files in `coming` are not counted: their room is promised.
        """


class NoEvictor:
    """Nothing may be evicted, and nothing counts."""

    def make_room(self, *, device: int, bytes_on_device: int, max_size: int | None,
                  coming: frozenset[str]) -> Held:
        """Nothing."""
        return Held(0)


class Room:
    """The promises of one process. Every method may be called from any thread."""

    def __init__(self, reserve: int, neighbours: Neighbours, *, max_size: int | None = None,
                 evictor: Evictor | None = None) -> None:
        self.reserve = reserve
        self.max_size = max_size
        self._neighbours = neighbours
        self._evictor = evictor or NoEvictor()
        self._sizes: dict[Path, int] = {}

    def promise(self, partial: Path, size: int, *, may_evict: bool = True) -> Shortage | None:
        """Promise room for a file of `size` bytes that grows at `partial`, evicting for it if that may be;
        says why there is none.
        """
        with self._neighbours.alone():
            others = {path: wanted for path, wanted in {**self._neighbours.promises(), **self._sizes}.items()
                      if path != partial}
            shortage = self._on_disk(partial, size, others)
            if shortage is not None or self.max_size is not None:
                held = self._evict(partial, size, others, shortage, may_evict)
                shortage = self._on_disk(partial, size, others, kept=held.kept)
                if shortage is None:
                    shortage = self._in_budget(size, others, held)
            if shortage is None:
                self._sizes[partial] = size
                self._neighbours.tell(self._sizes)
            return shortage

    def give_back(self, partial: Path) -> None:
        """The transfer has ended, however it did."""
        if partial in self._sizes:
            with self._neighbours.alone():
                self._sizes.pop(partial, None)
                self._neighbours.tell(self._sizes)

    def _on_disk(self, partial: Path, size: int, others: dict[Path, int],
                 kept: tuple[str, ...] = ()) -> Shortage | None:
        device = os.stat(partial.parent).st_dev
        promised = sum(still_to_come(path, wanted) + OVERHEAD_BYTES for path, wanted in others.items()
                       if _device(path.parent) == device)
        needed = still_to_come(partial, size)
        usage = shutil.disk_usage(partial.parent)
        if needed + OVERHEAD_BYTES + promised + self.reserve <= usage.free:
            return None
        return Shortage(needed, usage.free, promised, size + self.reserve > usage.total, kept=kept)

    def _evict(self, partial: Path, size: int, others: dict[Path, int], shortage: Shortage | None,
               may_evict: bool) -> Held:
        over = 0
        if may_evict and shortage is not None and not shortage.fits_never:
            over = shortage.needed + OVERHEAD_BYTES + shortage.promised + self.reserve - shortage.free
        left = self.max_size if may_evict else None
        if left is not None and _in_all(size, others) <= left:  # else nothing would help
            left -= _in_all(size, others)
        return self._evictor.make_room(
            device=os.stat(partial.parent).st_dev, bytes_on_device=over, max_size=left,
            coming=frozenset(name for path in (partial, *others) for name in _names(path)),
        )

    def _in_budget(self, size: int, others: dict[Path, int], held: Held) -> Shortage | None:
        if self.max_size is None:
            return None
        if held.own_bytes + _in_all(size, others) <= self.max_size:
            return None
        return Shortage(
            size, max(0, self.max_size - held.own_bytes), sum(others.values()),
            size + OVERHEAD_BYTES > self.max_size, self.max_size, held.kept)


def explain(
    shortage: Shortage, key: str, folder: Path, *, reserve: int, given_up: int | None = None
) -> str:
    """What lacks room for a model, what stands in the way, and what to do.

    `given_up` is what had arrived of a file whose size the source does not tell.
    """
    promised = shortage.promised
    taken = f", {_megabytes(promised)} of it are promised to other downloads" if promised else ""
    kept = f" These must stay: {'; '.join(shortage.kept)}." if shortage.kept else ""
    least, arrived = "", "what has arrived is kept if it can fit"
    if given_up is not None:
        least = "at least "
        arrived = (f"its source does not tell the size, so the {_megabytes(given_up)} that had arrived are "
                   'not kept: "size" in the manifest tells it beforehand')
    needs = f"'{key}' needs {least}{_megabytes(shortage.needed)} more"
    free = f"{_megabytes(shortage.free)} are free"
    if shortage.max_size is not None:
        return (f"{needs}, and of --depot-max-size {_megabytes(shortage.max_size)} only {free}{taken}. "
                f"Raise it, unpin models, or wait until those in use are idle; {arrived}.{kept}")
    return (f"{needs} in {folder}, where {free}{taken} and {_megabytes(reserve)} are kept in reserve. Delete "
            f"models there, lower --depot-reserve, or choose another disk; {arrived}.{kept}")


def _megabytes(count: int) -> str:
    return f"{count / 1_000_000:,.1f} MB"


def _in_all(size: int, others: dict[Path, int]) -> int:
    """What a transfer and the others will take in the end."""
    return size + sum(others.values()) + OVERHEAD_BYTES * (len(others) + 1)


def still_to_come(partial: Path, size: int) -> int:
    """Bytes that a sparse file does not occupy yet."""
    try:
        return max(0, size - partial.stat().st_blocks * 512)
    except OSError:
        return size


def _names(partial: Path) -> tuple[str, ...]:
    """The real paths under which a transfer's file is seen."""
    return tuple(os.path.realpath(path) for path in (partial, owner_of(partial)))


def _device(folder: Path) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None

"""Room on the disk, promised to each transfer before it begins, so that together they fit.

Without this two downloads that fit alone, but not both, fill the disk, and neither can ever be finished.
What a transfer has written already is seen in its partial, so nothing has to be kept up to date here.
Other processes are not known: what they take shows as used, and a disk that is full in the end stops both.
"""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shortage:
    """Why there is no room, in bytes."""

    needed: int
    free: int
    promised: int
    """Of the free bytes: what other transfers will still write."""
    fits_never: bool
    """Whether the whole disk is too small."""


class Room:
    """The promises of one process. Every method may be called from any thread."""

    def __init__(self, reserve: int) -> None:
        self.reserve = reserve
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] = {}

    def promise(self, partial: Path, size: int) -> Shortage | None:
        """Promise room for a file of `size` bytes that grows at `partial`; says why when there is none."""
        with self._lock:
            usage, device = shutil.disk_usage(partial.parent), os.stat(partial.parent).st_dev
            others = [
                still_to_come(path, wanted)
                for path, wanted in self._sizes.items()
                if path != partial and _device(path.parent) == device
            ]
            needed = still_to_come(partial, size)
            if needed + sum(others) + self.reserve > usage.free:
                return Shortage(needed, usage.free, sum(others), size + self.reserve > usage.total)
            self._sizes[partial] = size
            return None

    def give_back(self, partial: Path) -> None:
        """The transfer has ended, however it did."""
        with self._lock:
            self._sizes.pop(partial, None)


def still_to_come(partial: Path, size: int) -> int:
    """Bytes that a sparse file does not occupy yet."""
    try:
        return max(0, size - partial.stat().st_blocks * 512)
    except OSError:
        return size


def _device(folder: Path) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None

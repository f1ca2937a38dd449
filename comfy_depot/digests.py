"""Which sha256 a file on the disk has, where a download, `verify --hash` or idle time has computed it.

It stands in the index (`database.py`) under the file's stamp: a file that was replaced or written to has
another one, so what was computed before says nothing about it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from comfy_depot.database import Database, numbers_of
from comfy_depot.eviction import Stamp

SECONDS_PER_TICK = 0.01  # of the clock by which file systems date


@dataclass(frozen=True)
class KnownFile:
    """A file whose sha256 was noted."""

    path: Path
    stamp: Stamp
    is_untouched: bool
    """Whether nothing at all has happened to it since, so that it is that content for certain: the time of
    the last change of status cannot be set back. Else it may have been renamed only.
    """


class Digests:
    """The digests of one state folder. Every method may be called from any thread."""

    def __init__(self, state_dir: Path) -> None:
        self._database = Database(state_dir)

    def note(self, stamp: Stamp, sha256: str) -> bool:
        """A file was read: the one with this stamp has this sha256. Whether that is written down."""
        return self._database.note_sha256(stamp, sha256)

    def of(self, stamp: Stamp) -> str | None:
        """The sha256 of the file with this stamp, or None where nobody has computed it."""
        return self._database.sha256_of(stamp)

    def forget(self, stamp: Stamp) -> None:
        """What was noted of the file with this stamp has turned out to be wrong."""
        self._database.forget_sha256(stamp)

    def files_with(self, sha256: str) -> list[KnownFile]:
        """The files of the model folders that have this sha256 (64 digits), as they are on the disk now."""
        found = []
        for path, noted in self._database.with_sha256(sha256.lower()).items():
            with contextlib.suppress(OSError):  # gone, or out of reach
                status = os.stat(path)
                stamp = Stamp.of(status)
                if numbers_of(stamp) == noted and stat.S_ISREG(status.st_mode):
                    noted_at = self._database.noted_at(stamp)
                    is_untouched = status.st_ctime < noted_at - SECONDS_PER_TICK
                    found.append(KnownFile(Path(path), stamp, is_untouched))
        return found

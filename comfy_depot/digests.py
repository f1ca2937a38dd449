"""Which sha256 a file on the disk has, where a download, `verify --hash` or idle time has computed it.

It stands in the index (`database.py`) under the file's stamp: a file that was replaced or written to has
another one, so what was computed before says nothing about it.
"""

from __future__ import annotations

from pathlib import Path

from comfy_depot.database import Database
from comfy_depot.eviction import Stamp


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

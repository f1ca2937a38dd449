"""Which sha256 a file on the disk has, where a download has verified it, without reading the file again.

A line of `digests.jsonl` in the state folder is a file's stamp (device, inode, size, time of change) with its
sha256. A file that was replaced or written to has another stamp, so an old line says nothing about it.
Lines are short and only appended, so processes can share the file; a line that cannot be read is passed over.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

from comfy_depot.eviction import Stamp

log = logging.getLogger(__name__)

FILE_NAME = "digests.jsonl"


class Digests:
    """The digests of one state folder. Every method may be called from any thread."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / FILE_NAME
        self._lock = threading.Lock()
        self._bytes_read = 0
        self._known: dict[Stamp, str] = {}

    def note(self, stamp: Stamp, sha256: str) -> None:
        """A file was verified: the one with this stamp has this sha256."""
        line = json.dumps([stamp.device, stamp.inode, stamp.size, stamp.changed_ns, sha256.lower()])
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open(self._file, "a", encoding="ascii") as file:
                file.write(line + "\n")
        except OSError as error:  # the model is there and good; only its twins are not recognised
            log.warning("A model's sha256 could not be noted in %s: %s", self._file, error)

    def of(self, stamp: Stamp) -> str | None:
        """The sha256 of the file with this stamp, or None where nobody has verified it."""
        with self._lock:
            self._read_on()
            return self._known.get(stamp)

    def _read_on(self) -> None:
        """Take in the lines that were appended since the last look."""
        try:
            with open(self._file, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._bytes_read:  # somebody began it anew
                    self._bytes_read, self._known = 0, {}
                file.seek(self._bytes_read)
                whole, end, _ = file.read().rpartition(b"\n")  # a line may be half written
        except OSError:
            return
        self._bytes_read += len(whole) + len(end)
        for line in whole.splitlines():
            try:
                device, inode, size, changed_ns, sha256 = json.loads(line)
                self._known[Stamp(device, inode, size, changed_ns)] = str(sha256)
            except (ValueError, TypeError):
                continue

"""The sha256 of a file while it arrives: of what is complete from its start on.

A thread reads from the page cache what the journal calls complete; what is left at the end is done by the one
who waits for it. It has a low priority unless somebody waits for the file. Complete pieces are never written
again: whoever begins the partial anew throws this away.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 1 << 20
NICENESS = 5


class PrefixDigest:
    """Give it way with `allow`, and take the digest with `finish`."""

    def __init__(self, path: Path, *, niceness: int = NICENESS) -> None:
        self._niceness = niceness
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._digest = hashlib.sha256()
        self._change = threading.Condition()
        self._allowed = 0
        self._is_over = False
        self.position = 0
        """Bytes from the start that are in the digest."""
        self._thread = threading.Thread(target=self._follow, name="sha256", daemon=True)
        self._thread.start()

    def allow(self, size: int) -> None:
        """The first `size` bytes will not change any more."""
        with self._change:
            self._allowed = max(self._allowed, size)
            self._change.notify()

    def finish(self, path: Path, check: Callable[[], None]) -> str | None:
        """The digest of the whole file, or None when another file stands there by now."""
        self._end()
        with self._file as file:
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return None
            buffer = memoryview(bytearray(CHUNK_BYTES))
            while count := file.readinto(buffer):
                self._digest.update(buffer[:count])
                check()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Throw it away."""
        self._end()
        self._file.close()

    def _end(self) -> None:
        with self._change:
            self._is_over = True
            self._change.notify()
        self._thread.join()

    def _follow(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # Linux can do this for a single thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        with contextlib.suppress(OSError):  # of the disk: who reads the rest at the end meets it again
            self._digest_what_is_ready(memoryview(bytearray(CHUNK_BYTES)))

    def _digest_what_is_ready(self, buffer: memoryview) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_over or self._allowed > self.position)
                if self._is_over:
                    return
                ready = min(self._allowed - self.position, CHUNK_BYTES)
            count = self._file.readinto(buffer[:ready])
            self._digest.update(buffer[:count])
            self.position += count or 0
            if not count:  # shorter than was said: the end will show it
                return

"""A file that one process at a time holds: the right to use a journal, its last sign of life, the node in
work, and which ends clients were told. All survive a process that is killed.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path

from comfy_execution.queueing.kept_file import write_at
from comfy_execution.told_clients import ToldClients

SIZE = 4096
LONGEST_NOTE = 250
START_OF_TOLD = 256
SECONDS_BETWEEN_SIGNS = 0.25


def _lock(file: int) -> bool:
    """Lock an open file for this process, until it ends. False if another one has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, SIZE, os.SEEK_SET)  # a locked byte cannot be read by others, so lock one behind
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class JournalLock:
    """Holds `path` until `close` or the end of the process. `held` is False when another process has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said_alive = 0.0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.held = _lock(self._file)
        if not self.held:
            os.close(self._file)
            return
        if os.fstat(self._file).st_size < SIZE:
            write_at(self._file, bytes(SIZE), 0)  # with its room on the disk: see kept_file.py
        self.last_sign_of_life = os.fstat(self._file).st_mtime
        """When the process before was alive for the last time while it ran a prompt, in seconds."""
        self._memory = mmap.mmap(self._file, SIZE)
        self.last_note = self._memory[1 : 1 + self._memory[0]].decode("utf-8", "replace")
        """What the process before noted last."""
        self.told = ToldClients(self._memory, START_OF_TOLD, SIZE)

    def note(self, text: str) -> None:
        """Keep a short text. No system call: this may be called for each node."""
        data = text.encode("utf-8", "replace")[:LONGEST_NOTE]
        self._memory[: 1 + len(data)] = bytes((len(data),)) + data

    def show_life(self) -> None:
        """This process is alive. Said at most a few times a second."""
        now = time.monotonic()
        if now - self._said_alive > SECONDS_BETWEEN_SIGNS:
            self._said_alive = now
            os.utime(self._file)

    def close(self) -> None:
        """Let others have it."""
        if self.held:
            self.held = False
            self._memory.close()
            os.close(self._file)

"""A file whose bytes survive the death of the process as soon as they are written.

Writing copies them into memory that the system shares with the file: no system call, so the interpreter's
lock is not given up. Where a page without room on the disk would kill the process (SIGBUS) each write is a
system call instead: on file systems that write changed pages to another place, and on those of other
machines.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

SAFE_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs"})
"""They keep the room that was allocated, and write changed pages where they were. What lies below an overlay
cannot be seen.
"""
LEAST_BYTES = 64 << 10
EMPTY = b"\0"


def file_system_of(path: Path) -> str:
    """The kind of file system that holds a path; "" if the system does not tell."""
    import psutil

    real, found, longest = os.path.realpath(path), "", -1
    for mounted in psutil.disk_partitions(all=True):
        point = mounted.mountpoint
        if os.path.join(real, "").startswith(os.path.join(point, "")) and len(point) >= longest:
            found, longest = mounted.fstype, len(point)
    return found


class KeptFile:
    """One open file. Errors are OSError; a write that fails changes nothing."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._can_map = hasattr(os, "posix_fallocate") and file_system_of(path) in SAFE_FILE_SYSTEMS
        self._memory: mmap.mmap | None = None
        self._size = 0

    def write(self, content: bytes, place: int) -> None:
        """Write at a place. A process that is killed meanwhile leaves all of it, or EMPTY as its first byte.
        """
        if place + len(content) > self._size and self._can_map:
            self._grow(place + len(content))
        if self._memory is None:
            write_at(self._file, content, place)
            return
        self._memory[place : place + 1] = EMPTY
        self._memory[place + 1 : place + len(content)] = content[1:]
        self._memory[place : place + 1] = content[:1]

    def _grow(self, needed: int) -> None:
        size = max(LEAST_BYTES, os.fstat(self._file).st_size, 1 << (needed - 1).bit_length())
        os.posix_fallocate(self._file, 0, size)  # a page that has no room yet would be noticed too late
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._memory = mmap.mmap(self._file, size)
        self._size = size

    def flush(self) -> None:
        """Wait until the disk has all of it."""
        if self._memory is not None:
            self._memory.flush()
        os.fsync(self._file)

    def close(self) -> None:
        """Write no more."""
        if self._memory is not None:
            self._memory.close()
        os.close(self._file)


def write_at(file: int, content: bytes, place: int) -> None:
    """Write all at a place of an open file."""
    if hasattr(os, "pwrite"):
        written = os.pwrite(file, content, place)
    else:
        os.lseek(file, place, os.SEEK_SET)
        written = os.write(file, content)
    if written < len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

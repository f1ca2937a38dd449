"""The sha256 of a file, a portion at a time: it can be left, and gone on with while the file stays as it is.

Whoever reads a whole library must not push the models that are in use out of the page cache. So it is read
past that cache (O_DIRECT), where the file system can.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import stat
from typing import NamedTuple

from comfy_depot.eviction import Stamp

PORTION_BYTES = 1 << 20
"""A disk that others use as well gives so much in a moment. Direct reading wants whole blocks."""
_DIRECT = getattr(os, "O_DIRECT", 0)


class FileChanged(Exception):
    """The file is not the one any more that was begun; what was read of it counts for nothing."""


class _Identity(NamedTuple):
    """The time of the last change of status tells also of bytes that were written under an old date."""

    stamp: Stamp
    status_changed_ns: int


class FileDigest:
    """One file. Between `release` and `advance` it is not open: an open file is not evicted."""

    def __init__(self, path: str) -> None:
        """OSError when it cannot be read, FileChanged when it is no plain file."""
        self.path = path
        self.position = 0
        """Bytes from the start that are in the digest."""
        self._digest = hashlib.sha256()
        self._buffer = memoryview(mmap.mmap(-1, PORTION_BYTES))  # at a page's start, as direct reading wants
        self._fd, self._direct = -1, _DIRECT
        self._identity: _Identity | None = None
        self._open()

    @property
    def stamp(self) -> Stamp:
        """The file that was begun."""
        assert self._identity is not None
        return self._identity.stamp

    @property
    def is_complete(self) -> bool:
        """Whether all of it is in the digest."""
        return self.position >= self.stamp.size

    @property
    def sha256(self) -> str:
        """Of what was read, lower case."""
        return self._digest.hexdigest()

    def advance(self) -> int:
        """Read the next portion; its length. FileChanged when the file was written to, replaced or deleted.
        """
        if self._fd < 0:
            self._open()
        count = self._read()
        self._digest.update(self._buffer[:count])
        self.position += count
        is_whole = count == PORTION_BYTES or self.position == self.stamp.size
        if not is_whole or self._look() != self._identity:
            self.release()
            raise FileChanged
        return count

    def release(self) -> None:
        """Close the file; `advance` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags | self._direct)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._fd, self._direct = os.open(self.path, flags), 0
        found = self._look()
        if found is None or self._identity not in (None, found):
            self.release()
            raise FileChanged
        self._identity = found

    def _look(self) -> _Identity | None:
        """What the open file is now; None for one that is deleted or no plain file."""
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode) or not status.st_nlink:
            return None
        return _Identity(Stamp.of(status), status.st_ctime_ns)

    def _read(self) -> int:
        """Fill the buffer as far as the file goes."""
        try:
            count = os.preadv(self._fd, [self._buffer], self.position)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
            self.release()
            self._direct = 0
            self._open()
            count = os.preadv(self._fd, [self._buffer], self.position)
        if not self._direct:
            with contextlib.suppress(OSError, AttributeError):
                os.posix_fadvise(self._fd, self.position, count, os.POSIX_FADV_DONTNEED)
        return count

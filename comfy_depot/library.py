"""A model from a mounted library into its folder: a reflink, else a hard link, else a copy.

A reflink shares the bytes until one side is written, a hard link is the same file under a second name, and a
copy works across file systems. The partial that results is verified like a download before it gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from comfy_depot.errors import DownloadFailed
from comfy_depot.eviction import Stamp

CHUNK_BYTES = 1 << 24
FICLONE = 0x40049409  # Linux: ioctl_ficlone(2)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def bring(
    key: str, source: Path, partial: Path, *, promise: Callable[[int], None],
    tell: Callable[[int, int], None], known: Stamp | None = None,
) -> str:
    """Make `partial` hold what `source` holds; returns how ("reflink", "hard link", "copy").

    `promise(size)` is called before a copy and may raise DiskFull; `tell(done, total)` between chunks of
    16 MiB and may raise to stop. With `known` it must be the file with this stamp, which is somebody's own:
    it is not linked to. Raises DownloadFailed when the library's file cannot be read.
    """
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DownloadFailed(
            f"'{key}': the library's file {source} cannot be read ({error.strerror}). "
            "Mount the library, or correct the path in the manifest."
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise DownloadFailed(f"'{key}': {source} is no plain file. Correct the path in the manifest.")
        if known is not None and Stamp.of(status) != known:
            raise DownloadFailed(f"'{key}': {source} is another file by now.")
        tell(0, status.st_size)
        if _reflink(fd, partial):
            how = "reflink"
        elif known is None and _hard_link(source, fd, partial):
            how = "hard link"
        else:
            how = "copy"
            promise(status.st_size)
            _copy(fd, partial, status.st_size, tell)
        if (how == "copy" or known is not None) and Stamp.of(os.fstat(fd)) != Stamp.of(status):
            raise DownloadFailed(f"'{key}': {source} changed while it was copied. Try again later.")
        tell(status.st_size, status.st_size)
        return how
    except OSError as error:
        if isinstance(error, DownloadFailed) or error.errno in _NO_ROOM:
            raise
        raise DownloadFailed(
            f"'{key}': {source} could not be brought from the library ({error.strerror or error}). "
            "Check that the library is still mounted; another url in the manifest is tried as well."
        ) from None
    finally:
        os.close(fd)


def _reflink(fd: int, partial: Path) -> bool:
    """Whether the file system shares the bytes of the two files from now on."""
    target = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        fcntl.ioctl(target, FICLONE, fd)
        return True
    except OSError:
        partial.unlink()
        return False
    finally:
        os.close(target)


def _hard_link(source: Path, fd: int, partial: Path) -> bool:
    """Whether the opened file has `partial` as a second name now."""
    try:
        os.link(os.path.realpath(source), partial)
    except OSError:
        return False
    if os.path.samestat(os.fstat(fd), os.stat(partial)):
        return True
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()  # somebody has put another file into the place of the one that was looked at
    return False


def _copy(fd: int, partial: Path, size: int, tell: Callable[[int, int], None]) -> None:
    """Copy in chunks; the kernel does it where it can."""
    target = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        done = 0
        while done < size:
            count = _copy_chunk(fd, target, done, min(CHUNK_BYTES, size - done))
            if count == 0:
                break  # the file became shorter; the caller sees that it changed
            done += count
            tell(done, size)
    finally:
        os.close(target)


def _copy_chunk(fd: int, target: int, offset: int, count: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(fd, target, count, offset, offset)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
    return os.pwrite(target, os.pread(fd, count, offset), offset)

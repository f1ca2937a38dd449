"""A lock file that processes share; it vanishes with its holder, however the holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def file_lock(path: Path, *, on_wait: Callable[[], None], pause: float = 0.1) -> Iterator[None]:
    """Hold the lock at `path`; while another holds it, `on_wait` is called again and again and may raise.

    The file is removed at the end; whoever opened it before notices that and opens the new one.
    """
    fd = _take(path)
    while fd is None:
        on_wait()
        time.sleep(pause)
        fd = _take(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(fd)


def _take(path: Path) -> int | None:
    """The open lock file when it is ours now; None when another holds it or has just removed it."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass  # held by another, or removed between our open and our lock
    os.close(fd)
    return None


@contextlib.contextmanager
def shared_mark(path: Path, *, when_last: Callable[[], None]) -> Iterator[None]:
    """Be one of those, over threads and processes, who need something; the last to go calls `when_last`."""
    fd = _share(path)
    while fd is None:
        fd = _share(path)
    try:
        yield
    finally:
        try:
            with contextlib.suppress(BlockingIOError):  # somebody else still needs it
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                when_last()
                with contextlib.suppress(OSError):
                    path.unlink()
        finally:
            os.close(fd)


def is_marked(path: Path) -> bool:
    """Whether anybody holds this file: is inside a `shared_mark`, or has locked it otherwise."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _share(path: Path) -> int | None:
    """The open file when the mark is ours now; None when the last one has just removed it."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except FileNotFoundError:
        pass
    os.close(fd)
    return None

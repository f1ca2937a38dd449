"""Which folders changed, from the kernel (inotify), without looking at them.

The kernel puts an event into the queue before the call that made the change returns. So whoever empties the
queue first and answers then never answers from before a change that was finished. That is why no library with
a thread of its own is used: it would tell some time later.

Only file systems on which every change passes this kernel are watched. On all others, where the limits of the
system are reached, and outside Linux, `Watcher.add` gives None, and the folder's time of change must do.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import selectors
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

log = logging.getLogger(__name__)

LOCAL_FILE_SYSTEMS = frozenset("ext2 ext3 ext4 xfs btrfs f2fs bcachefs zfs tmpfs ramfs overlay".split())
MOUNTS = "/proc/self/mountinfo"

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
_UNMOUNT, _OVERFLOW, _IGNORED = 0x2000, 0x4000, 0x8000
_ONLY_FOLDERS = 0x1000000
_MASK = (_MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF
         | _MOVE_SELF | _ONLY_FOLDERS)
_HEADER = struct.Struct("iIII")
_READ_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Event:
    """Something happened to `name` in the folder that is watched as `watch`; "" is the folder itself."""

    watch: int
    name: str
    is_last: bool = False
    """The kernel watches this folder no more: it is gone, and another may have its path, even its inode."""


class Overflow(Exception):
    """More happened than the kernel keeps: what changed is not known."""


class Watcher:
    """One queue of the kernel. Its owner holds a lock around every method."""

    def __init__(self) -> None:
        self._queue = -1
        self._libc = _libc()
        if self._libc is not None:
            self._queue = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waiter: _Waiter | None = None
        self._is_full = False
        self._file_systems: dict[int, bool] = {}

    @property
    def is_on(self) -> bool:
        """Whether folders can be watched at all."""
        return self._queue >= 0

    def add(self, path: str, device: int) -> int | None:
        """Watch a folder that lies on `device`; its number, or None where it cannot be relied on."""
        if not self.is_on or not self._is_local(path, device):
            return None
        assert self._libc is not None
        watch = int(self._libc.inotify_add_watch(self._queue, os.fsencode(path), _MASK))
        if watch >= 0:
            return watch
        if ctypes.get_errno() == errno.ENOSPC and not self._is_full:
            self._is_full = True
            log.warning("No more folders can be watched, so lists of models take longer. To allow more: "
                        "sysctl fs.inotify.max_user_watches=1048576")
        return None

    def remove(self, watch: int) -> None:
        """Watch a folder no longer; harmless when it is gone."""
        if self._libc is not None:
            self._libc.inotify_rm_watch(self._queue, watch)

    def drain(self) -> set[Event]:
        """What happened since the last time; Overflow where that is not known."""
        found: set[Event] = set()
        while self.is_on:
            try:
                chunk = os.read(self._queue, _READ_AT_ONCE)
            except BlockingIOError:
                break
            found.update(_events(chunk))
        return found

    def wait(self, *, seconds: float) -> bool:
        """Sleep until something happens or somebody wakes; whether it did. For one thread."""
        if self._waiter is None:
            self._waiter = _Waiter(self._queue)
        return self._waiter.wait(seconds)

    def wake(self) -> None:
        """Let the one who waits go on: what happened was taken by somebody else."""
        if self._waiter is not None:
            self._waiter.wake()

    def close(self) -> None:
        """Watch nothing any more."""
        if self._waiter is not None:
            self._waiter.close()
        if self._queue >= 0:
            os.close(self._queue)
        self._queue = -1

    def _is_local(self, path: str, device: int) -> bool:
        if device not in self._file_systems:
            self._file_systems[device] = file_system(path) in LOCAL_FILE_SYSTEMS
        return self._file_systems[device]


class _Waiter:
    """Sleeps until the queue has an event or the bell was rung."""

    def __init__(self, queue: int) -> None:
        self._bell, self._cord = socket.socketpair()
        self._bell.setblocking(False)
        self._cord.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        if queue >= 0:
            self._selector.register(queue, selectors.EVENT_READ)

    def wait(self, seconds: float) -> bool:
        found = bool(self._selector.select(seconds))
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(64):
                pass
        return found

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # it has been rung often enough, or nobody waits any more
            self._cord.send(b"x")

    def close(self) -> None:
        self._selector.close()
        self._bell.close()
        self._cord.close()


def _libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.inotify_init1, libc.inotify_add_watch, libc.inotify_rm_watch  # noqa: B018 - is it there?
    except (OSError, AttributeError):
        return None
    return libc


def _events(chunk: bytes) -> Iterator[Event]:
    position = 0
    while position < len(chunk):
        watch, mask, _, length = _HEADER.unpack_from(chunk, position)
        position += _HEADER.size
        name = os.fsdecode(chunk[position:position + length].rstrip(b"\0"))
        position += length
        if mask & _OVERFLOW:
            raise Overflow
        yield Event(watch, name, bool(mask & _IGNORED))


def file_system(path: str) -> str | None:
    """The kind of file system that holds a path: the last of the longest mount points above it."""
    real, longest, kind = os.path.realpath(path), -1, None
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split()
                point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
                inside = real == point or real.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= longest:
                    longest, kind = len(point), fields[fields.index("-") + 1]
    except (OSError, ValueError, IndexError):
        return None
    return kind

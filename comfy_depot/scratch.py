"""`--depot-scratch`: a fast place, such as /dev/shm, for archives that are being unpacked.

Only archives go there. A model's own partial must lie on the disk of its destination, because its last step
is a rename; a member is written there while it is unpacked, so the way through the scratch costs no copy of
its own.

    <scratch>/comfyui-depot-5f1c0e2a/         of one state folder; for its owner only
    ├── .depot/KEY.archive.*.part             an archive (see layout.py)
    ├── KEY.claim                             how many bytes it may take in the end
    └── lock                                  held while somebody looks and claims

The guard: all claims together take at most SHARE of the file system, what is not written yet fits into what
is free, and a tmpfs gets at most SHARE of the memory that is available. What does not fit goes to the state
folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import stat
from pathlib import Path

from comfy_depot.inotify import file_system
from comfy_depot.layout import Layout, Place
from comfy_depot.locks import file_lock, is_marked
from comfy_depot.replacing import beside

SHARE = 0.5
MARGIN_BYTES = 1 << 20
log = logging.getLogger(__name__)


class Scratch:
    """The scratch of one state folder; `folder` None is none at all."""

    def __init__(self, folder: Path | None, state_dir: Path) -> None:
        self._parent = folder
        self._of_state = Layout(state_dir)
        self._has_complained = False
        digest = hashlib.sha256(os.fsencode(state_dir.absolute())).hexdigest()[:8]
        self._folder = None if folder is None else folder / f"comfyui-depot-{digest}"

    def place(self, key: str) -> Place | None:
        """Where an archive lies in it; None without a scratch that can be used."""
        if self._folder is None or not self._is_usable(self._folder):
            return None
        return Layout(self._folder).place(self._folder / f"{key}.archive")

    def claim(self, key: str, place: Place, size: int) -> bool:
        """Whether an archive may take `size` bytes in all."""
        assert self._folder is not None
        own = self._folder / f"{key}.claim"
        try:
            with file_lock(self._folder / "lock", on_wait=lambda: None, pause=0.01):
                own.unlink(missing_ok=True)
                problem = self._why_not(self._folder, place, size)
                if problem is None:
                    own.write_text(str(size))
        except OSError as error:  # not even a claim fits, or the folder has just gone
            problem = error.strerror or str(error)
        if problem is not None:
            log.info("An archive (%.1f MB) goes through the state folder instead of --depot-scratch: %s.",
                     size / 1e6, problem)
        return problem is None

    def release(self, key: str) -> None:
        """The archive is gone."""
        if self._folder is not None:
            (self._folder / f"{key}.claim").unlink(missing_ok=True)

    def sweep(self) -> None:
        """Give back what dead processes have left: it is memory."""
        for key in self.keys():
            place = self.place(key)
            if place is not None and not is_marked(self._of_state.archive_mark(key)):
                remove(place)
                self.release(key)

    def keys(self) -> list[str]:
        """The archives that have a claim."""
        if self._folder is None or not self._folder.is_dir() or not self._is_usable(self._folder):
            return []
        return [file.stem for file in self._folder.glob("*.claim")]

    def _why_not(self, folder: Path, place: Place, size: int) -> str | None:
        claims = {file.stem: _number_in(file) for file in folder.glob("*.claim")}
        layout = Layout(folder)
        written = {key: occupied(layout.place(folder / f"{key}.archive").partial) for key in claims}
        total, _, free = shutil.disk_usage(folder)
        most, claimed = int(total * SHARE), sum(claims.values())
        if claimed + size > most:
            return f"it may take {most / 1e6:.1f} MB there, of which {claimed / 1e6:.1f} MB are taken"
        to_come = sum(max(0, claims[key] - written[key]) for key in claims)
        to_come += max(0, size - occupied(place.partial))
        if to_come + MARGIN_BYTES > free:
            return f"{free / 1e6:.1f} MB are free there, and {to_come / 1e6:.1f} MB are to come"
        memory = _memory_available() if file_system(str(folder)) in ("tmpfs", "ramfs") else None
        if memory is not None and to_come > memory * SHARE:
            return f"{memory / 1e6:.1f} MB of memory are available, and it may take half of that"
        return None

    def _is_usable(self, folder: Path) -> bool:
        """Whether the folder is there and nobody else's: /dev/shm belongs to all users."""
        problem: object = "it belongs to another user or others may write into it"
        try:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            status = os.lstat(folder)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
                (folder / ".depot").mkdir(exist_ok=True)
                return True
        except OSError as error:
            problem = error.strerror
        if not self._has_complained:
            self._has_complained = True
            log.warning("--depot-scratch %s cannot be used (%s: %s); archives go through the state folder. "
                        "Create the folder, correct its rights, or choose another.",
                        self._parent, folder, problem)
        return False


def remove(place: Place) -> None:
    """Delete an archive and what stands beside it."""
    for path in (place.partial, place.control, place.record, beside(place.record)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _number_in(file: Path) -> int:
    try:
        return int(file.read_text() or 0)
    except (OSError, ValueError):  # gone since, or written just now
        return 0


def occupied(file: Path) -> int:
    """Bytes that a file takes on its disk; 0 when it is gone."""
    try:
        return file.stat().st_blocks * 512
    except OSError:
        return 0


def _memory_available() -> int:
    import psutil

    return int(psutil.virtual_memory().available)

"""Which files are open or memory-mapped now, by any process that this one may look into.

Linux tells it under /proc. Elsewhere nothing is known: Windows refuses to delete an open file by itself, and
the other systems keep its content until the last user closes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class OpenFiles:
    """The open files of one moment, each with the process that has it."""

    paths: dict[str, int] = field(default_factory=dict)
    numbers: dict[tuple[int, int], int] = field(default_factory=dict)
    """{(device, inode): process}. Some file systems give mappings other numbers, so paths count as well."""

    def holder(self, path: str | Path) -> int | None:
        """The process that has a file open or mapped, or None."""
        try:
            status = os.stat(path)
        except OSError:
            return None
        by_path = self.paths.get(os.path.realpath(path))
        return by_path if by_path is not None else self.numbers.get((status.st_dev, status.st_ino))


def look(proc: Path = PROC) -> OpenFiles:
    """What is open now. Processes of other users are passed over unless we may look into them."""
    found = OpenFiles()
    own = os.getpid()
    try:
        processes = [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError:  # no Linux
        return found
    for process in sorted(processes, key=lambda number: number != own):
        for path, number in (*_mapped(proc / str(process)), *_opened(proc / str(process))):
            found.paths.setdefault(path, process)
            found.numbers.setdefault(number, process)
    return found


def name_of(process: int, proc: Path = PROC) -> str:
    """A process for people: "this process" or "process 12 (python)"."""
    if process == os.getpid():
        return "this process"
    try:
        return f"process {process} ({(proc / str(process) / 'comm').read_text().strip()})"
    except OSError:  # it has ended
        return f"process {process}"


def _mapped(process: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(path, (device, inode)) of each mapped file: the lines are `range rights offset device inode path`."""
    try:
        lines = (process / "maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # ended, or another user's
        return
    for line in lines:
        parts = line.split(None, 5)
        if len(parts) == 6 and parts[4] != "0":
            major, minor = parts[3].split(":")
            yield parts[5], (os.makedev(int(major, 16), int(minor, 16)), int(parts[4]))


def _opened(process: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """(path, (device, inode)) of each file behind a descriptor."""
    try:
        descriptors = list(os.scandir(process / "fd"))
    except OSError:  # ended, or another user's
        return
    for descriptor in descriptors:
        try:
            path = os.readlink(descriptor.path)
            if path.startswith("/") and not path.startswith("/dev/"):
                status = os.stat(descriptor.path)
                yield path, (status.st_dev, status.st_ino)
        except OSError:  # closed since
            continue

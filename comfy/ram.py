"""How much RAM there is for this process: of the machine, and of its control group (container).

    version 2   memory.max, memory.current, memory.stat: inactive_file
    version 1   memory/memory.limit_in_bytes, memory/memory.usage_in_bytes, memory.stat: total_inactive_file

A group is limited by each group above it as well, so all on the way are read. Cached file pages that nobody
uses (inactive_file) are given up by the kernel before anything fails: they count as free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NO_LIMIT = 2**60
"""Version 1 writes a number like this where there is no limit."""


@dataclass(frozen=True)
class Ram:
    """In bytes."""

    total: int
    available: int


def read_ram(root: Path = Path("/")) -> Ram:
    """What this process can use. `root` holds `proc` and `sys`."""
    import psutil

    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    for limit, used in group_limits(root):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return Ram(total, available)


def group_limits(root: Path = Path("/")) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use) of each control group of this process that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    groups = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            names = ("memory.max", "memory.current", "inactive_file")
            yield from _limits(groups, path, names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limits(groups / "memory", path, names)


def _limits(top: Path, path: str, names: tuple[str, str, str]) -> Iterator[tuple[int, int]]:
    group = PurePosixPath(path.lstrip("/"))
    # Inside a container the path of the host may be shown, of which only the top is there.
    for directory in dict.fromkeys((top / group, *(top / above for above in group.parents), top)):
        limit = _number(directory / names[0])
        used = _number(directory / names[1])
        if limit is not None and used is not None and limit < NO_LIMIT:
            yield limit, max(0, used - _unused_cache(directory / "memory.stat", names[2]))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # the file is not there, or says "max"
        return None


def _unused_cache(file: Path, name: str) -> int:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
    except (OSError, ValueError, IndexError):
        return 0

"""How much memory this process may use: what the machine has, or less where a container limits it."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def bytes_allowed(*, groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> int:
    """Bytes of memory that this process may use at most, everything that it uses already included."""
    import psutil

    return min([psutil.virtual_memory().total, *_limits(groups, own)])


def _limits(groups: Path, own: Path) -> list[int]:
    """The limits of the own control group and of all groups around it; "max" is none."""
    found = []
    for folder in _folders(groups, own):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                text = (folder / name).read_text().strip()
            except OSError:  # no such group, no such version, no Linux
                continue
            if text.isdigit() and int(text) > 0:
                found.append(int(text))
    return found


def _folders(groups: Path, own: Path) -> list[Path]:
    """Where limits may stand. Inside a container the own path often leads nowhere, and the root counts."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    found = [groups, groups / "memory"]
    for line in lines:  # "0::/a/b" (version 2) or "9:memory:/a/b" (version 1)
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if number == "0" or "memory" in kinds.split(","):
            root = groups if number == "0" else groups / "memory"
            inside = Path(path.lstrip("/"))
            found += [root / inside, *(root / above for above in inside.parents)]
    return list(dict.fromkeys(found))

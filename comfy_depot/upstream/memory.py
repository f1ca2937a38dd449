"""How much memory there is: of the machine, of this process's control group (container), of the devices.

Our own core has `comfy/ram.py`, which knows control groups better; upstream has none, and `comfy` may not
import the depot, so this is a small one: the limit of the own group and of those above it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from comfy_depot.upstream import core

NO_LIMIT = 2**60
"""Version 1 of control groups writes a number like this where there is none."""
CHOICES = ("get_torch_device", "unet_offload_device", "text_encoder_device", "text_encoder_offload_device",
           "vae_device", "vae_offload_device", "intermediate_device")
STATISTICS = {"allocated": "allocated_bytes.all.current", "reserved": "reserved_bytes.all.current",
              "peak": "allocated_bytes.all.peak"}  # fmt: skip


def bytes_allowed(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use."""
    import psutil

    return min(int(psutil.virtual_memory().total), *_limits(root), NO_LIMIT)


def _limits(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    top = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        is_new = number == "0"
        if not is_new and "memory" not in controllers.split(","):
            continue
        base, name = (top, "memory.max") if is_new else (top / "memory", "memory.limit_in_bytes")
        group = PurePosixPath(path.lstrip("/"))
        # Inside a container the path of the host may be shown, of which only the top is there.
        for directory in (group, *group.parents):
            try:
                yield int((base / directory / name).read_text(encoding="ascii"))
            except (OSError, ValueError):  # not there, or "max"
                continue


def load_settings() -> tuple[str, ...]:
    """The devices on which a model that is loaded now would work and rest."""
    management = core.model_management()
    return tuple(str(getattr(management, choice)()) for choice in CHOICES if hasattr(management, choice))


def bytes_free(device: Any) -> float:
    """Bytes that are free on a device."""
    return float(core.model_management().get_free_memory(device))


def bytes_of_device() -> int:
    """Bytes of memory of the device that models work on."""
    management = core.model_management()
    return int(management.get_total_memory(management.get_torch_device()))


def memory_report() -> list[dict[str, Any]]:
    """{"device", "total", "free", "allocated", "reserved", "peak"} of the device that models work on and of
    the machine, in bytes; None where a device does not tell.
    """
    import psutil

    memory, process = psutil.virtual_memory(), psutil.Process().memory_info()
    total = bytes_allowed()
    host = {"device": "cpu", "total": total, "free": min(int(memory.available), total),
            "allocated": process.rss, "reserved": process.vms, "peak": _peak(process.rss)}
    management = core.model_management()
    device = management.get_torch_device()
    if str(device).startswith("cpu"):
        return [host]
    return [{"device": str(device), "total": int(management.get_total_memory(device)),
             "free": int(management.get_free_memory(device)), **_statistics(device)}, host]


def _statistics(device: Any) -> dict[str, int | None]:
    torch = sys.modules["torch"]  # the device is one of torch's
    accelerator: Any = getattr(torch, str(device).partition(":")[0], None)
    told = accelerator.memory_stats(device) if hasattr(accelerator, "memory_stats") else {}
    return {name: told.get(key) for name, key in STATISTICS.items()}


def _peak(least: int) -> int:
    """The most that this process has had in memory."""
    try:
        import resource
    except ImportError:  # Windows
        return least
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return max(least, most if sys.platform == "darwin" else most * 1024)

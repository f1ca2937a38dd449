"""How full the memory of each device is: what monitoring of models in memory shows."""

from __future__ import annotations

import sys
from typing import Any

from comfy import ram

STATISTICS = {"allocated": "allocated_bytes.all.current", "reserved": "reserved_bytes.all.current",
              "peak": "allocated_bytes.all.peak"}  # fmt: skip


def memory_report() -> list[dict[str, Any]]:
    """{"device", "total", "free", "allocated", "reserved", "peak"} of each device, in bytes; None where a
    device does not tell. Accelerators come first, and only once torch is loaded: a question does not load it.
    Of the CPU, allocated is what the process has in memory, and peak the most that it had.
    """
    return [*_accelerators(imported("comfy.model_management")), _host()]


def imported(name: str) -> Any:
    """A module, if it is there in full: another thread may be importing it now."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


def _accelerators(management: Any) -> list[dict[str, Any]]:
    if management is None or management.is_device_cpu(management.get_torch_device()):
        return []
    import torch

    kind = management.get_torch_device().type
    module = torch.get_device_module(kind)
    count = module.device_count() if hasattr(module, "device_count") else 1
    return [_device(management, torch.device(kind, number)) for number in range(count)]


def patched_weights() -> dict[str, int]:
    """What was computed from LoRAs and other patches so far, and what is kept of it; empty before torch is
    loaded.
    """
    module = imported("comfy.patched_weights")
    return {} if module is None else module.stats()


def _device(management: Any, device: Any) -> dict[str, Any]:
    statistics = management.memory_statistics(device)
    return {
        "device": str(device), "total": int(management.get_total_memory(device)),
        "free": int(management.get_free_memory(device)),
        **{name: statistics.get(key) for name, key in STATISTICS.items()},
    }


def _host() -> dict[str, Any]:
    import psutil

    found, process = ram.read_ram(), psutil.Process().memory_info()
    return {"device": "cpu", "total": found.total, "free": found.available, "allocated": process.rss,
            "reserved": process.vms, "peak": max(process.rss, getattr(process, "peak_wset", 0), _peak())}


def _peak() -> int:
    """The most that this process has had in memory; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024

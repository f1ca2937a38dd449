"""How work in the background stays out of everybody's way: priorities of a thread, and power."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

LOWEST_NICENESS = 19


def lower_priority() -> None:
    """Give the calling thread the processor and the disk only where nobody else wants them.

    Linux can do this for a single thread; elsewhere nothing happens. Not every disk scheduler looks at it.
    """
    if not sys.platform.startswith("linux"):
        return
    import psutil

    thread = threading.get_native_id()
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, LOWEST_NICENESS)
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process(thread).ionice(psutil.IOPRIO_CLASS_IDLE)


def is_on_battery() -> bool:
    """Whether this machine has a battery and lives on it now."""
    import psutil

    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, psutil.Error):  # a system that does not tell
        return False
    return battery is not None and battery.power_plugged is False

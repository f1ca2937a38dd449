"""What a download is given: the services that all share, patience, and somebody to tell how far it is."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comfy_depot.aria2 import Daemon
from comfy_depot.errors import TransferCancelled
from comfy_depot.leases import Leases
from comfy_depot.limits import Limits
from comfy_depot.options import Options
from comfy_depot.rate import ByteRate
from comfy_depot.room import Room
from comfy_depot.speeds import Speeds
from comfy_depot.stream import Streams


class Priority(enum.IntEnum):
    """Who waits for a file; smaller is more urgent."""

    DEMAND = 0
    PRELOAD = 1
    WARM = 2


@dataclass(frozen=True)
class Patience:
    """How long a source that fails is tried. A try that brings bytes does not count."""

    tries: int = 5
    first_pause: float = 1.0
    longest_pause: float = 60.0
    silence: float = 20.0
    """A connection that brings nothing for so long is closed and opened again."""
    stall: float = 90.0
    """A transfer to which nothing comes for so long begins anew."""

    def pause(self, fruitless: int) -> float:
        """Seconds before the next try; a source that has brought something is asked again almost at once."""
        return self.first_pause * (2 ** (fruitless - 1) if fruitless else 0.1)


@dataclass(frozen=True)
class Services:
    """What all downloads of a process share."""

    options: Options
    daemon: Daemon
    room: Room
    leases: Leases
    limits: Limits
    speeds: Speeds
    patience: Patience = field(default_factory=Patience)
    streams: Streams = field(default_factory=Streams)


@dataclass
class Progress:
    """What a download tells while it runs; `changed` is called after every update, `stopped` asks to stop."""

    changed: Callable[[], None]
    stopped: Callable[[], bool]
    priority: Callable[[], Priority] = lambda: Priority.DEMAND
    woken: threading.Event = field(default_factory=threading.Event)
    """Set when the priority has changed: a pause ends at once."""
    state: str = "waiting"
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_per_second: int = 0
    source: str | None = None
    rate: ByteRate = field(default_factory=ByteRate)

    def tell(self, **values: Any) -> None:
        """Set fields and say so."""
        for name, value in values.items():
            setattr(self, name, value)
        self.changed()

    def tell_bytes(self, bytes_done: int, **values: Any) -> None:
        """So many bytes are there now; the rate follows from it."""
        self.rate.see(time.monotonic(), bytes_done)
        rate = int(self.rate.bytes_per_second)
        self.tell(bytes_done=bytes_done, bytes_per_second=rate, **values)

    def check(self) -> None:
        """Raise TransferCancelled when somebody asked to stop."""
        if self.stopped():
            raise TransferCancelled(
                "The transfer was stopped. What has arrived is kept; fetch it again to go on."
            )

    def pause(self, seconds: float) -> None:
        """Sleep, and stop when asked to. A change of the priority ends it."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            if self.woken.wait(min(left, 0.1)):
                self.woken.clear()
                return

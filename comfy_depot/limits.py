"""How much sources are asked for: bytes per second and requests per minute, in total and by source.

A source is a host name. Requests are counted in a moving window of a minute (the `limits` library), which
also exists over Redis; bytes are shared among the transfers of a source, and aria2 keeps each to its share.
The total of bytes is a setting of aria2 itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

WINDOW_SECONDS = 60
FLOOR_PARTS = 20


@dataclass(frozen=True)
class Quota:
    """So much in total and so much per host; 0 is no limit, and "*" means each host that is not named."""

    total: int = 0
    hosts: tuple[tuple[str, int], ...] = ()

    def of(self, source: str) -> int:
        """What this host alone may have."""
        named = dict(self.hosts)
        return named.get(source.lower(), named.get("*", 0))

    def least(self, source: str) -> int:
        """The narrowest of all limits that hold for a host; 0 when there is none."""
        return min((limit for limit in (self.total, self.of(source)) if limit), default=0)


def _of_somebody_who_waits() -> int:
    return 0


class Limits(Protocol):
    """What transfers ask before they go to a source. Every method may be called from any thread."""

    def take(self, source: str, requests: int) -> float:
        """Take so many requests now and return 0, or none and return seconds after which to ask again."""

    def most_requests(self, source: str) -> int:
        """As many requests as can ever be taken at once; 0 for any number."""

    def share(
        self, source: str, urgency: Callable[[], int] = _of_somebody_who_waits
    ) -> contextlib.AbstractContextManager[None]:
        """While it stands, one more transfer shares the source's bytes. A smaller `urgency` goes first."""

    def bytes_per_second(self, source: str, urgency: int = 0) -> int:
        """The share of one transfer now; 0 for no limit."""


class MemoryLimits:
    """The limits of one process."""

    def __init__(self, rate: Quota = Quota(), requests: Quota = Quota()) -> None:
        self._rate, self._requests = rate, requests
        self._lock = threading.Lock()
        self._sharing: dict[str, list[Callable[[], int]]] = defaultdict(list)
        self._windows: Any = None

    def take(self, source: str, requests: int) -> float:
        """See `Limits`."""
        asked = [(key, limit) for key, limit in (("total", self._requests.total),
                                                  (f"host:{source}", self._requests.of(source))) if limit]
        if not asked:
            return 0.0
        from limits import RateLimitItemPerMinute

        with self._lock:
            windows = self._open_windows()
            items = [(RateLimitItemPerMinute(limit), key, min(requests, limit)) for key, limit in asked]
            full = [(item, key) for item, key, cost in items if not windows.test(item, key, cost=cost)]
            if full:
                ends: float = max(windows.get_window_stats(item, key).reset_time for item, key in full)
                return min(max(ends - time.time(), 0.05), WINDOW_SECONDS)
            for item, key, cost in items:
                windows.hit(item, key, cost=cost)
            return 0.0

    def most_requests(self, source: str) -> int:
        """See `Limits`."""
        return self._requests.least(source)

    @contextlib.contextmanager
    def share(
        self, source: str, urgency: Callable[[], int] = _of_somebody_who_waits
    ) -> Iterator[None]:
        """See `Limits`."""
        with self._lock:
            self._sharing[source].append(urgency)
        try:
            yield
        finally:
            with self._lock:
                self._sharing[source].remove(urgency)

    def bytes_per_second(self, source: str, urgency: int = 0) -> int:
        """See `Limits`. The most urgent transfers share all of it but a twentieth, which the others share."""
        limit = self._rate.of(source)
        if not limit:
            return 0
        with self._lock:
            classes = [ask() for ask in self._sharing[source]]
        first = min(classes, default=urgency)
        if urgency > first:
            limit //= FLOOR_PARTS
        elif any(one > first for one in classes):
            limit -= limit // FLOOR_PARTS
        return max(1, limit // max(1, sum((one > first) == (urgency > first) for one in classes)))

    def _open_windows(self) -> Any:
        """The counters; the library is loaded when somebody has set a limit."""
        if self._windows is None:
            from limits.storage import MemoryStorage
            from limits.strategies import MovingWindowRateLimiter

            self._windows = MovingWindowRateLimiter(MemoryStorage())
        return self._windows

"""How fast each host was, so that the mirrors of a file are tried in that order.

What was measured counts for less as time goes by (half after HALF_LIFE_SECONDS), and what is not known
counts as UNKNOWN. So a mirror that failed is asked last today and has another chance next week, and a new
mirror is tried as soon as the known ones are slower than an ordinary line.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from comfy_depot.replacing import replace_file

FILE_NAME = "speeds.json"
UNKNOWN = 4 << 20  # bytes per second
HALF_LIFE_SECONDS = 24 * 3600.0
FAILED = 1 << 10
WEIGHT = 0.5  # of a new measurement against the ones before
LEAST_BYTES = 1 << 20  # less says nothing about a line
MOST_HOSTS = 500


class Speeds:
    """Bytes per second by host, kept in the state folder. Every method may be called from any thread."""

    def __init__(self, state_dir: Path, clock: Callable[[], float] = time.time) -> None:
        self.file = state_dir / FILE_NAME
        self._clock = clock
        self._lock = threading.Lock()

    def note(self, host: str, byte_count: int, seconds: float) -> None:
        """A download of so many bytes took so long."""
        if byte_count >= LEAST_BYTES and seconds > 0:
            self._enter(host, byte_count / seconds)

    def note_failure(self, host: str) -> None:
        """The host did not give what it promised, however fast it was."""
        self._enter(host, FAILED, weight=1.0)

    def of(self, host: str) -> float:
        """What is expected of a host now, in bytes per second."""
        return self._expected(self._read().get(host))

    def in_order(self, urls: Sequence[str], host_of: Callable[[str], str]) -> list[str]:
        """Urls, those of fast hosts first; equal ones stay as they are."""
        if len(urls) < 2:
            return list(urls)
        known = self._read()
        return sorted(urls, key=lambda url: -self._expected(known.get(host_of(url))))

    def _expected(self, entry: tuple[float, float] | None) -> float:
        if entry is None:
            return UNKNOWN
        speed, measured_at = entry
        trust: float = 0.5 ** (max(self._clock() - measured_at, 0.0) / HALF_LIFE_SECONDS)
        return UNKNOWN + (speed - UNKNOWN) * trust

    def _enter(self, host: str, speed: float, weight: float = WEIGHT) -> None:
        with self._lock:
            known = self._read()
            before = known.pop(host, None)
            mean = speed if before is None else weight * speed + (1 - weight) * self._expected(before)
            known[host] = (mean, self._clock())
            kept = dict(sorted(known.items(), key=lambda item: -item[1][1])[:MOST_HOSTS])
            with contextlib.suppress(OSError):  # a full disk must not fail a download; the order is a wish
                self.file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self.file, json.dumps(kept), tag=str(os.getpid()))

    def _read(self) -> dict[str, tuple[float, float]]:
        try:
            data = json.loads(self.file.read_text(encoding="utf-8"))
            return {str(host): (float(speed), float(at)) for host, (speed, at) in data.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

"""What stored results cost in RAM, and how much they may cost.

`Ledger` keeps the sum up to date as results come and go. A limit says how many bytes may stay:

    Budget     a fixed number of bytes for all results; those of the running prompt always stay
    Pressure   as many as leave so much RAM available; below a second threshold results of the running
               prompt go too, when the nodes that wait for them have taken them
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from comfy.ram import Ram, read_ram
from comfy_execution.results.budget import Kept, Key

SHARE_OF_FREE_RAM = 0.25
"""The default budget. The rest is for loading models, for the work of nodes, and for the system."""
SLACK = 0.05
"""So much more than necessary is dropped when a budget is reached, so that not each result drops another."""
GIGABYTE = 1024**3
DEVICE_BYTES = GIGABYTE
"""How much results may hold on other devices, weights of models aside. With `--gpu-only` all pictures do."""
LARGE = GIGABYTE // 2
"""Results of the running prompt go in two steps: first those of this size, then all."""


class Limit(Protocol):
    """How many bytes of results may stay, of `total` that there are."""

    name: str
    step: int
    """Ask again when this many bytes more were stored."""

    def others(self, total: int) -> float:
        """While results are left that the running prompt does not use."""

    def active(self, total: int) -> float:
        """When only results of the running prompt are left."""

    @property
    def size(self) -> int | None:
        """The budget, if it is a number."""


@dataclass
class Budget:
    """A fixed number of bytes."""

    bytes: int
    name = "budget"
    step = 0

    def others(self, total: int) -> float:
        """Less than the budget when it is exceeded: see SLACK."""
        return self.bytes if total <= self.bytes else self.bytes * (1 - SLACK)

    def active(self, total: int) -> float:
        """What the running prompt uses stays."""
        return math.inf

    @property
    def size(self) -> int | None:
        return self.bytes


class Pressure:
    """Drops results of the running prompt when less than `active_bytes` of RAM are free, and others when
    less than `inactive_bytes` are.
    """

    name = "ram"
    step = 1024**2

    def __init__(
        self, active_bytes: float, inactive_bytes: float, read: Callable[[], Ram] = read_ram
    ) -> None:
        self.active_bytes = active_bytes
        self.inactive_bytes = max(active_bytes, inactive_bytes)
        self._read = read

    def others(self, total: int) -> float:
        return self._stays(total, self.inactive_bytes)

    def active(self, total: int) -> float:
        return self._stays(total, self.active_bytes)

    def _stays(self, total: int, free: float) -> float:
        missing = free - self._read().available
        return math.inf if missing <= 0 else total - missing

    @property
    def size(self) -> int | None:
        return None


def make_limit(arguments: dict[str, Any], *, pressure: bool, read: Callable[[], Ram] = read_ram) -> Limit:
    """The limit in the arguments of a cache.

    "budget": bytes, or a fraction of free RAM, or None for the default share. With `pressure`, "ram":
    gigabytes to leave free for results of the running prompt and for others; each has a default.
    """
    read = arguments.get("read_ram", read)
    if pressure:
        given = arguments.get("ram")
        thresholds = [given] if isinstance(given, (int, float)) else list(given or ())
        default = min(max(read().total * 0.1, 2 * GIGABYTE), 10 * GIGABYTE)
        active = thresholds[0] * GIGABYTE if thresholds else default
        inactive = thresholds[1] * GIGABYTE if len(thresholds) > 1 else active
        return Pressure(active, inactive, read)
    return Budget(budget_bytes(arguments.get("budget"), read))


def budget_bytes(budget: int | float | None, read: Callable[[], Ram] = read_ram) -> int:
    """Bytes as they are (int); a fraction of the RAM that is free now (float); None: the default share."""
    if isinstance(budget, int):
        return budget
    return int(read().available * (SHARE_OF_FREE_RAM if budget is None else budget))


class Ledger:
    """The costs of all stored results. `bytes` is their sum, shared memory blocks counted once."""

    def __init__(self) -> None:
        self.kept: dict[Key, Kept] = {}
        self.bytes = 0
        self.device_bytes = 0
        self._blocks: dict[int, tuple[int, int]] = {}
        """(size, how many hold it) by address"""

    def add(self, key: Key, kept: Kept) -> None:
        """A result is stored, perhaps in the place of another one."""
        if key in self.kept:
            self.remove(key)
        self.kept[key] = kept
        self.bytes += kept.own_bytes
        self.device_bytes += kept.device_bytes
        for address, size in kept.blocks.items():
            known, holders = self._blocks.get(address, (0, 0))
            # Freed memory is used again: an address may come back with another size.
            self.bytes += max(0, size - known)
            self._blocks[address] = (max(size, known), holders + 1)

    def remove(self, key: Key) -> int:
        """A result is gone. Returns the bytes that went with it."""
        kept = self.kept.pop(key, None)
        if kept is None:
            return 0
        before = self.bytes
        self.bytes -= kept.own_bytes
        self.device_bytes -= kept.device_bytes
        for address in kept.blocks:
            size, holders = self._blocks.pop(address)
            if holders > 1:
                self._blocks[address] = (size, holders - 1)
            else:
                self.bytes -= size
        return before - self.bytes

    def clear(self) -> None:
        """All results are gone."""
        self.kept.clear()
        self._blocks.clear()
        self.bytes = self.device_bytes = 0

"""Which stored results go first when they need more RAM than they may: one pure function.

A result is worth the seconds that it takes to bring it back, per byte that it keeps, and 1.3 times less with
each prompt that did not use it. What is worth least goes first: cheap to recompute, large, long unused.

The seconds are those that the node took when it ran, and those of the longest path of results above it that
are gone as well: to bring it back they must run too. So a result becomes dearer when what it was made from
is dropped, by the seconds that this one was worth then. Only the longest path counts, not the sum over all
paths: a sum would count what two paths share many times over.

A memory block that several results share (weights of a model and of its LoRA clone) is counted once in the
sum, and goes when the last of them goes. To rank one of them it counts in full, unless a result that must
stay holds it too: then dropping the other would free nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

Key = bytes

LEAST_SECONDS = 1e-5
"""Nodes that took no measurable time are told apart by their bytes."""
DECAY_PER_PROMPT = 1.3


@dataclass(slots=True)
class Kept:
    """A stored result as the rule sees it."""

    own_bytes: int
    seconds: float
    """How long its node took."""
    blocks: Mapping[int, int] = field(default_factory=dict)
    """Bytes of the memory blocks that it holds, by address; others may hold them too."""
    used: int = 0
    """The number of the prompt that used it last."""
    sources: tuple[Key, ...] = ()
    """The results that it was made from."""
    gone: dict[Key, float] | None = None
    """Seconds to bring back those of them that were dropped."""
    device_bytes: int = 0
    """Bytes on other devices, which are no RAM. The rule does not look at them."""


    @property
    def total_bytes(self) -> int:
        """All that it holds, whoever else holds it."""
        return self.own_bytes + sum(self.blocks.values())


@dataclass
class Plan:
    """What to drop, in this order, and how many bytes are left then."""

    drops: list[Key]
    bytes_after: int
    seconds: dict[Key, float]
    """What it will take to bring each dropped result back."""


def total_bytes(entries: Mapping[Key, Kept]) -> int:
    """The bytes of all results, shared blocks once."""
    blocks: dict[int, int] = {}
    for kept in entries.values():
        blocks.update(kept.blocks)
    return sum(kept.own_bytes for kept in entries.values()) + sum(blocks.values())


def plan_drops(
    entries: Mapping[Key, Kept],
    budget: float,
    *,
    in_use: Collection[Key] = frozenset(),
    now: int = 0,
    most: float = float("inf"),
) -> Plan:
    """What to drop so that at most `budget` bytes and `most` results stay.

    Results `in_use` stay, even if they alone are too much. `now` is the number of the running prompt.
    """
    return _Planning(entries, in_use, now).run(budget, most)


class _Planning:
    """One run of the rule. Worths only rise while it goes on, so a heap with late corrections is enough."""

    def __init__(self, entries: Mapping[Key, Kept], in_use: Collection[Key], now: int) -> None:
        self.entries = entries
        self.now = now
        self.above: dict[Key, float] = {}
        self.consumers: dict[Key, list[Key]] = {}
        self.holders: dict[int, int] = {}
        self.block_bytes: dict[int, int] = {}
        self.fixed: set[int] = set()
        for key, kept in entries.items():
            for address, size in kept.blocks.items():
                self.holders[address] = self.holders.get(address, 0) + 1
                self.block_bytes[address] = size
            if key in in_use:
                self.fixed.update(kept.blocks)
        self.heap = []
        for key, kept in entries.items():
            if key not in in_use:
                gone = [seconds for source, seconds in (kept.gone or {}).items() if source not in entries]
                self.above[key] = max(gone, default=0.0)
                for source in kept.sources:
                    self.consumers.setdefault(source, []).append(key)
                self.heap.append(self._rank(key))
        heapq.heapify(self.heap)

    def _rank(self, key: Key) -> tuple[float, int, int, Key]:
        kept = self.entries[key]
        size = kept.own_bytes + sum(s for address, s in kept.blocks.items() if address not in self.fixed)
        seconds = max(LEAST_SECONDS, kept.seconds + self.above[key])
        worth = seconds / max(1, size) / DECAY_PER_PROMPT ** min(500, self.now - kept.used)
        return worth, kept.used, -size, key

    def run(self, budget: float, most: float) -> Plan:
        """Drop the least worth until the rest fits."""
        size, count = sum(kept.own_bytes for kept in self.entries.values()), len(self.entries)
        size += sum(self.block_bytes.values())
        plan = Plan([], size, {})
        while self.heap and (plan.bytes_after > budget or count > most):
            rank = heapq.heappop(self.heap)
            key = rank[-1]
            current = self._rank(key)
            if current > rank:
                heapq.heappush(self.heap, current)
                continue
            count -= 1
            plan.drops.append(key)
            plan.bytes_after -= self._free(key)
            plan.seconds[key] = self.entries[key].seconds + self.above[key]
            for consumer in self.consumers.get(key, ()):
                self.above[consumer] = max(self.above[consumer], plan.seconds[key])
        return plan

    def _free(self, key: Key) -> int:
        """The bytes that go with a result."""
        freed = self.entries[key].own_bytes
        for address in self.entries[key].blocks:
            self.holders[address] -= 1
            if self.holders[address] == 0:
                freed += self.block_bytes[address]
        return freed

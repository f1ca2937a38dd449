"""In which order models leave the disk.

A policy is a plain object that is fed with (time, key, size): a trace is replayed through the very class that
production uses. It never looks at a file or a clock. `SERVING` names those that `--depot-policy` takes; the
rest of `POLICIES` are references for `replay`.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

Key = tuple[str, str]
"""(folder type, name with "/")"""


class Policy(Protocol):
    """Decides in which order models go."""

    def use(self, time: float, key: Key, size: int) -> None:
        """A model was used, and is on the disk now. Times never go back."""

    def gone(self, key: Key) -> None:
        """A model left the disk; one that is not known is no error."""

    def first_to_go(self) -> Iterator[Key]:
        """The keys on the disk, in the order in which they should go. Looking changes no later answer."""


class LRU:
    """The least recently used one goes first."""

    def __init__(self) -> None:
        self._by_last_use: OrderedDict[Key, None] = OrderedDict()

    def use(self, time: float, key: Key, size: int) -> None:
        """A model was used."""
        self._by_last_use[key] = None
        self._by_last_use.move_to_end(key)

    def gone(self, key: Key) -> None:
        """A model left the disk."""
        self._by_last_use.pop(key, None)

    def first_to_go(self) -> Iterator[Key]:
        """The keys, longest unused first."""
        return iter(self._by_last_use)


class SIEVE:
    """A hand walks from old arrivals to new ones and takes the first that was not used since it last passed
    (Zhang and others, NSDI 2024). A hit only sets a mark.
    """

    def __init__(self) -> None:
        self._newer: dict[Key | None, Key | None] = {None: None}  # a ring through None, which is the end
        self._older: dict[Key | None, Key | None] = {None: None}
        self._is_marked: dict[Key, bool] = {}
        self._hand: Key | None = None

    def use(self, time: float, key: Key, size: int) -> None:
        """A model was used: a known one gets the mark, a new one stands behind all others."""
        if key in self._is_marked:
            self._is_marked[key] = True
            return
        self._is_marked[key] = False
        newest = self._older[None]
        self._newer[newest], self._older[key] = key, newest
        self._newer[key], self._older[None] = None, key

    def gone(self, key: Key) -> None:
        """A model left the disk: the hand goes there, and takes the marks on its way."""
        if key not in self._is_marked:
            return
        if self._is_marked[key]:  # the hand found nothing without a mark and went once around
            self._is_marked = dict.fromkeys(self._is_marked, False)
        else:
            for passed in self._walk():
                if passed == key:
                    break
                self._is_marked[passed] = False
        newer, older = self._newer.pop(key), self._older.pop(key)
        self._newer[older], self._older[newer] = newer, older
        del self._is_marked[key]
        self._hand = newer

    def first_to_go(self) -> Iterator[Key]:
        """The keys without a mark from the hand on, then the others."""
        marked = []
        for key in self._walk():
            if self._is_marked[key]:
                marked.append(key)
            else:
                yield key
        yield from marked

    def _walk(self) -> Iterator[Key]:
        """Every key once, from the hand on."""
        here = self._hand
        for _ in range(len(self._is_marked)):
            here = self._newer[None] if here is None else here
            assert here is not None, "the ring holds as many keys as there are marks"
            yield here
            here = self._newer[here]


class GreedyDual:
    """The smallest count of uses (per byte, with `by_size`) goes first; what goes sets the count with which
    the next ones begin, so that old fame fades. By size this is GDSF (Cherkasova 1998), else LFU-DA.
    """

    def __init__(self, *, by_size: bool) -> None:
        self._by_size = by_size
        self._age = 0.0
        self._uses: dict[Key, int] = {}
        self._worth: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def use(self, time: float, key: Key, size: int) -> None:
        """A model was used."""
        self._uses[key] = self._uses.get(key, 0) + 1
        gain = self._uses[key] * (1e9 / max(size, 1) if self._by_size else 1.0)
        self._worth[key] = self._age + gain
        heapq.heappush(self._heap, (self._worth[key], key))
        if len(self._heap) > 8 * len(self._worth) + 64:
            self._heap = [(worth, name) for name, worth in self._worth.items()]
            heapq.heapify(self._heap)

    def gone(self, key: Key) -> None:
        """A model left the disk, and its count with it."""
        if key in self._worth:
            self._age = max(self._age, self._worth.pop(key))
            del self._uses[key]

    def first_to_go(self) -> Iterator[Key]:
        """The keys, least worth first."""
        looked_at = []
        try:
            while self._heap:
                worth, key = heapq.heappop(self._heap)
                if self._worth.get(key) == worth:  # else it was used since, or is gone
                    looked_at.append((worth, key))
                    yield key
        finally:
            for entry in looked_at:
                heapq.heappush(self._heap, entry)


class SimulatedCache:
    """A disk of `size` bytes that holds numbers only: what a policy would keep, and what it would fetch."""

    def __init__(self, policy: Policy, size: int) -> None:
        self.policy = policy
        self.size = size
        self._sizes: dict[Key, int] = {}
        self._bytes_used = 0

    @property
    def bytes_free(self) -> int:
        """Room for which nothing has to go."""
        return self.size - self._bytes_used

    def __contains__(self, key: Key) -> bool:
        return key in self._sizes

    def use(self, time: float, key: Key, size: int) -> bool:
        """Use a model, evicting for it what the policy names; whether it was there."""
        was_there = key in self._sizes
        if not was_there:
            if size > self.size:
                return False
            self._make_room(self._bytes_used + size - self.size)
            self._sizes[key] = size
            self._bytes_used += size
        self.policy.use(time, key, size)
        return was_there

    def _make_room(self, needed: int) -> None:
        if needed <= 0:
            return
        going = []
        for key in self.policy.first_to_go():
            going.append(key)
            needed -= self._sizes[key]
            if needed <= 0:
                break
        for key in going:
            self._bytes_used -= self._sizes.pop(key)
            self.policy.gone(key)


def _forecast(size: int) -> Policy:
    from comfy_depot.forecast import Forecast

    return Forecast(size)


POLICIES: Mapping[str, Callable[[int], Policy]] = {
    "lru": lambda size: LRU(),
    "sieve": lambda size: SIEVE(),
    "forecast": _forecast,
    "gdsf": lambda size: GreedyDual(by_size=True),
    "lfuda": lambda size: GreedyDual(by_size=False),
}
"""Makers of policies by name; each gets the bytes that the models may take together."""

SERVING = ("lru", "sieve", "forecast")
"""The policies of `--depot-policy`."""

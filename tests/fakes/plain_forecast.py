"""The formulas of `comfy_depot/forecast.py` in short and slow, to compare decisions with."""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterator
from operator import mul

from comfy_depot.policies import LRU, Key, Policy, SimulatedCache

_SUMS = tuple(2.0**power for power in (6, 10, 14, 18))  # half-lives, in uses
_LASTS = tuple(2.0**power for power in (3, 6, 9, 12, 15))
_HALF_LIVES = (*_SUMS, *_LASTS)
_MEMORY = 5000  # uses after which what was learned counts 1/e
_PRIOR = 20.0  # uses that the even weights of the beginning are worth
_USES_BETWEEN_LESSONS = 64
_SIZE_POWER = 0.1
_MOST_REMEMBERED = 50_000
_GUARD_MEMORY = 3000  # uses after which a missed byte counts 1/e

Sums = tuple[float, float, float, float]
"""What is left of all uses of a model together, for each half-life of `_SUMS`."""


@functools.lru_cache(maxsize=1 << 14)
def _left_after(uses: int) -> tuple[float, ...]:
    """What is left of a use after so many others, for each half-life."""
    return tuple(2.0 ** (-uses / half_life) for half_life in _HALF_LIVES)


class Rates:
    """What was learned of how models are used, and the rate that follows for each."""

    def __init__(self) -> None:
        count = len(_HALF_LIVES)
        self.now = 0
        """Uses so far."""
        self.last_use: dict[Key, int] = {}
        """{key: when it was used last}, longest unused first; also of models that have left the disk."""
        self._sums: dict[Key, Sums] = {}
        self._explained = [_PRIOR * 0.8 / count] * count
        self._emitted = [_PRIOR] * count
        self._weights = self._learned_weights()

    def use(self, key: Key) -> None:
        """A model was used: learn what could have told so."""
        self.now += 1
        emitted = self._emitted
        for index in range(len(emitted)):
            emitted[index] += 1.0
        self._sums[key] = self._learn_from(key) if key in self.last_use else (1.0, 1.0, 1.0, 1.0)
        self.last_use.pop(key, None)
        self.last_use[key] = self.now
        if self.now % _USES_BETWEEN_LESSONS == 0:
            self._fade()

    def rate(self, key: Key) -> float:
        """How likely a model is to be the next one that is used."""
        sum0, sum1, sum2, sum3 = self._sums[key]
        w0, w1, w2, w3, w4, w5, w6, w7, w8 = self._weights
        d0, d1, d2, d3, d4, d5, d6, d7, d8 = _left_after(self.now - self.last_use[key])
        return (w0 * d0 * sum0 + w1 * d1 * sum1 + w2 * d2 * sum2 + w3 * d3 * sum3
                + w4 * d4 + w5 * d5 + w6 * d6 + w7 * d7 + w8 * d8)

    def _learn_from(self, key: Key) -> Sums:
        """Give each half-life its share in the use that has come; the sums of the key after it."""
        left = _left_after(self.now - self.last_use[key])
        sums = tuple(map(mul, self._sums[key], left))
        shares = tuple(map(mul, self._weights, sums + left[len(sums):]))
        total = sum(shares)
        if total > 0:
            explained = self._explained
            for index, share in enumerate(shares):
                explained[index] += share / total
        for index in range(len(sums), len(left)):  # the use before ends here: the rest of it will not come
            self._emitted[index] -= left[index]
        sum0, sum1, sum2, sum3 = sums
        return sum0 + 1.0, sum1 + 1.0, sum2 + 1.0, sum3 + 1.0

    def _fade(self) -> None:
        """Forget a little of what was learned, and the models that were not used for longest."""
        keep = 1 - _USES_BETWEEN_LESSONS / _MEMORY
        self._explained = [one * keep for one in self._explained]
        self._emitted = [max(one * keep, 1e-3) for one in self._emitted]
        self._weights = self._learned_weights()
        while len(self.last_use) > _MOST_REMEMBERED:
            forgotten = next(iter(self.last_use))
            del self.last_use[forgotten], self._sums[forgotten]

    def _learned_weights(self) -> tuple[float, ...]:
        return tuple(explained / emitted / half_life for explained, emitted, half_life
                     in zip(self._explained, self._emitted, _HALF_LIVES, strict=True))


class ByRate:
    """The models of one disk, least likely to be used first. `rates` must have been told of a use before.

    An order serves for a few uses before it is made anew.
    """

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._scales: dict[Key, float] = {}
        """{key: 1 / size to the power}, of the models on the disk."""
        self._order: list[Key] = []
        self._begin = 0
        self._made_at = -1

    def use(self, time: float, key: Key, size: int) -> None:
        """A model was used."""
        if key not in self._scales:
            self._scales[key] = max(size, 1) ** -_SIZE_POWER

    def gone(self, key: Key) -> None:
        """A model left the disk."""
        self._scales.pop(key, None)

    def first_to_go(self) -> Iterator[Key]:
        """The keys on the disk, least likely to be used first."""
        count, now = len(self._scales), self._rates.now
        if self._begin >= len(self._order) or now - self._made_at > count / 8 - 2:
            self._order, self._begin, self._made_at = self._lowest(count // 8 + 8), 0, now
        given = set()
        last_use, made_at = self._rates.last_use, self._made_at
        for index in range(self._begin, len(self._order)):
            key = self._order[index]
            if key in self._scales and last_use.get(key, 0) <= made_at:
                given.add(key)
                yield key
            elif index == self._begin:
                self._begin += 1
        yield from (key for key in self._lowest(count) if key not in given)

    def _lowest(self, count: int) -> list[Key]:
        """The `count` keys that are least likely to be used; the longest unused one of equals first."""
        last_use, rate = self._rates.last_use, self._rates.rate
        scored = [(rate(key) * scale, last_use[key], key) if key in last_use else (0.0, 0, key)
                  for key, scale in self._scales.items()]
        chosen = sorted(scored) if count >= len(scored) else heapq.nsmallest(count, scored)
        return [key for _, _, key in chosen]


class Forecast:
    """The order of `ByRate` or of `LRU`, whichever missed fewer bytes lately on a disk of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._rates = Rates()
        self._orders: tuple[Policy, Policy] = (ByRate(self._rates), LRU())
        self._simulated = (SimulatedCache(ByRate(self._rates), size), SimulatedCache(LRU(), size))
        self._missed = [0.0, 0.0]
        self._leader = 0

    def use(self, time: float, key: Key, size: int) -> None:
        """A model was used."""
        self._rates.use(key)
        for index, simulated in enumerate(self._simulated):
            missed = 0 if simulated.use(time, key, size) else size
            self._missed[index] += missed - self._missed[index] / _GUARD_MEMORY
        for order in self._orders:
            order.use(time, key, size)
        if self._missed[self._leader] > self._missed[1 - self._leader] + size:
            self._leader = 1 - self._leader

    def gone(self, key: Key) -> None:
        """A model left the disk. What was learned of it stays."""
        for order in self._orders:
            order.gone(key)

    def first_to_go(self) -> Iterator[Key]:
        """The keys on the disk, in the leader's order."""
        return self._orders[self._leader].first_to_go()

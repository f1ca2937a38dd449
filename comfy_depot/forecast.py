"""The policy `forecast`: what is least likely to be used soon goes first, as far as that beats LRU.

*Rates.* Each use of a model makes later uses of it likelier, and this fades. How much and how fast is not
set but learned: the rate is a sum over a few half-lives, each with a weight that says which share of all uses
it has explained so far (a Hawkes process with weights that all models share, fitted on line by its EM step).
There are two kinds of memory: `_SUMS` add up over all uses of a model (popularity), `_LASTS` know its last
use only (recency). With all weight on one of `_LASTS` the order is that of LRU, with all on the slowest of
`_SUMS` that of LFU. Time is counted in uses, so that a quiet night ages nothing. What is remembered of a
model outlives its file.

*Size.* A miss costs bytes and keeping costs bytes, so that for the bytes missed the rate alone counts. It is
divided by a small power of the size: that costs next to no bytes and saves many misses of small files.

*Guard.* Two simulated caches, numbers only, follow the same uses: one ordered by rates, one by LRU. The order
is given by the one that has missed fewer bytes lately, so that where the last use is all there is to know
this policy is LRU.

The formulas are written out number by number, because a log has a million uses;
`tests/fakes/plain_forecast.py` has them in short, and gives the same order.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping

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

State = tuple[float, float, float, float, int]
"""Of one model: for each half-life of `_SUMS` what is left of all its uses at the last one; when that was."""


@functools.lru_cache(maxsize=1)
def _table() -> list[tuple[float, ...]]:
    """What is left of a use after so many others, for each half-life."""
    return [_left_after(uses) for uses in range(1 << 13)]


def _left_after(uses: int) -> tuple[float, ...]:
    """The same of a use that is not in the table."""
    return tuple(2.0 ** (-uses / half_life) for half_life in _HALF_LIVES)


class Rates:
    """What was learned of how models are used, and the rate that follows for each."""

    def __init__(self) -> None:
        count = len(_HALF_LIVES)
        self.now = 0
        """Uses so far."""
        self.states: dict[Key, State] = {}
        """Longest unused first; also of models that have left the disk."""
        self._table = _table()
        self._explained = [_PRIOR * 0.8 / count] * count
        self._emitted = [_PRIOR] * count
        self._weights = self._learned_weights()

    def use(self, key: Key) -> None:
        """A model was used: learn what could have told so."""
        self.now += 1
        state = self.states.pop(key, None)
        self.states[key] = (1.0, 1.0, 1.0, 1.0, self.now) if state is None else self._learn_from(state)
        if self.now % _USES_BETWEEN_LESSONS == 0:
            self._fade()

    def scored(self, scales: Mapping[Key, float]) -> list[tuple[float, int, Key]]:
        """(rate x scale, last use, key), lowest first. A rate says how likely a model is to be used next."""
        w0, w1, w2, w3, w4, w5, w6, w7, w8 = self._weights
        now, table, known, states = self.now, self._table, len(self._table), self.states
        found: list[tuple[float, int, Key]] = []
        for key, scale in scales.items():
            if (state := states.get(key)) is None:
                found.append((0.0, 0, key))
                continue
            sum0, sum1, sum2, sum3, last = state
            uses = now - last
            d0, d1, d2, d3, d4, d5, d6, d7, d8 = table[uses] if uses < known else _left_after(uses)
            rate = (w0 * d0 * sum0 + w1 * d1 * sum1 + w2 * d2 * sum2 + w3 * d3 * sum3
                    + w4 * d4 + w5 * d5 + w6 * d6 + w7 * d7 + w8 * d8)
            found.append((rate * scale, last, key))
        found.sort()
        return found

    def last_use(self, key: Key) -> int:
        """When a model was used last; 0 when that is not known any more."""
        return self.states[key][4] if key in self.states else 0

    def _learn_from(self, state: State) -> State:
        """Give each half-life its share in the use that has come; the state of the model after it."""
        sum0, sum1, sum2, sum3, last = state
        uses = self.now - last
        left = self._table[uses] if uses < len(self._table) else _left_after(uses)
        d0, d1, d2, d3, d4, d5, d6, d7, d8 = left
        sum0, sum1, sum2, sum3 = sum0 * d0, sum1 * d1, sum2 * d2, sum3 * d3
        w0, w1, w2, w3, w4, w5, w6, w7, w8 = self._weights
        s0, s1, s2, s3 = w0 * sum0, w1 * sum1, w2 * sum2, w3 * sum3
        s4, s5, s6, s7, s8 = w4 * d4, w5 * d5, w6 * d6, w7 * d7, w8 * d8
        total = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8
        if total > 0:
            e0, e1, e2, e3, e4, e5, e6, e7, e8 = self._explained
            self._explained = [
                e0 + s0 / total, e1 + s1 / total, e2 + s2 / total, e3 + s3 / total, e4 + s4 / total,
                e5 + s5 / total, e6 + s6 / total, e7 + s7 / total, e8 + s8 / total]
        # The use before ends here: the rest of it will not come.
        e0, e1, e2, e3, e4, e5, e6, e7, e8 = self._emitted
        self._emitted = [e0, e1, e2, e3, e4 - d4, e5 - d5, e6 - d6, e7 - d7, e8 - d8]
        return sum0 + 1.0, sum1 + 1.0, sum2 + 1.0, sum3 + 1.0, self.now

    def _fade(self) -> None:
        """Forget a little of what was learned, and the models that were not used for longest."""
        keep = 1 - _USES_BETWEEN_LESSONS / _MEMORY
        self._explained = [one * keep for one in self._explained]
        self._emitted = [max((one + _USES_BETWEEN_LESSONS) * keep, 1e-3) for one in self._emitted]
        self._weights = self._learned_weights()
        while len(self.states) > _MOST_REMEMBERED:
            del self.states[next(iter(self.states))]

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
            yield from self._order
            given = set(self._order)
        else:
            given = set()
            for index in range(self._begin, len(self._order)):
                key = self._order[index]
                if key in self._scales and self._rates.last_use(key) <= self._made_at:
                    given.add(key)
                    yield key
                elif index == self._begin:
                    self._begin += 1
        yield from (key for key in self._lowest(count) if key not in given)

    def _lowest(self, count: int) -> list[Key]:
        """The `count` keys that are least likely to be used; the longest unused one of equals first."""
        return [key for _, _, key in self._rates.scored(self._scales)[:count]]


class GuardLRU:
    """What LRU would keep on a disk of `size` bytes: numbers only."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._sizes: OrderedDict[Key, int] = OrderedDict()
        self._bytes_used = 0

    def use(self, key: Key, size: int) -> bool:
        """Use a model; whether it was there."""
        sizes = self._sizes
        if key in sizes:
            sizes.move_to_end(key)
            return True
        if size <= self._size:
            self._bytes_used += size
            while self._bytes_used > self._size:
                self._bytes_used -= sizes.popitem(last=False)[1]
            sizes[key] = size
        return False


class Forecast:
    """The order of `ByRate` or of `LRU`, whichever missed fewer bytes lately on a disk of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._rates = Rates()
        self._orders: tuple[Policy, Policy] = (ByRate(self._rates), LRU())
        self._guards = SimulatedCache(ByRate(self._rates), size), GuardLRU(size)
        self._missed = [0.0, 0.0]
        self._leader = 0

    def use(self, time: float, key: Key, size: int) -> None:
        """A model was used."""
        self._rates.use(key)
        missed, (by_rate, lru) = self._missed, self._guards
        missed[0] += (0 if by_rate.use(time, key, size) else size) - missed[0] / _GUARD_MEMORY
        missed[1] += (0 if lru.use(key, size) else size) - missed[1] / _GUARD_MEMORY
        self._orders[0].use(time, key, size)
        self._orders[1].use(time, key, size)
        if self._missed[self._leader] > self._missed[1 - self._leader] + size:
            self._leader = 1 - self._leader

    def gone(self, key: Key) -> None:
        """A model left the disk. What was learned of it stays."""
        for order in self._orders:
            order.gone(key)

    def first_to_go(self) -> Iterator[Key]:
        """The keys on the disk, in the leader's order."""
        return self._orders[self._leader].first_to_go()

"""What is fetched because of a prediction: which guesses are worth it, and what became of them.

A guess is made for a tenant who was there a moment ago, when a model is probable enough, is not on the disk,
and the budget of waste has room for it. The budget is so many bytes per day: what was guessed in the last 24
hours and was not used since. So it bounds what can be lost, and a predictor that is right may go on all day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from comfy_depot.policies import POLICIES, Key, SimulatedCache
from comfy_depot.predict import Predictor

LEAST_PROBABILITY = 0.2
"""Of a model that is fetched because of it."""
MOST_PER_TENANT = 3
SECONDS_PRESENT = 1800.0
"""A tenant counts as present for so long after its last use."""
DAY = 86400.0


class Ledger:
    """What became of guesses."""

    def __init__(self) -> None:
        self.models = self.bytes = self.models_used = self.bytes_used = 0
        self._unused: dict[Key, list[tuple[float, int]]] = {}
        """{model: (when it was guessed, its size), more than once if it was evicted meanwhile}"""

    def guessed(self, now: float, key: Key, size: int) -> None:
        """A model came because of a guess."""
        self.models += 1
        self.bytes += size
        self._unused.setdefault(key, []).append((now, size))

    def used(self, key: Key) -> None:
        """Somebody has used a model."""
        guesses = self._unused.get(key)
        if guesses:
            self.models_used += 1
            self.bytes_used += guesses.pop()[1]

    def at_stake(self, now: float) -> int:
        """Bytes that were guessed within a day and not used so far."""
        return sum(size for one in self._unused.values() for when, size in one if now - when < DAY)

    def wasted(self, now: float) -> int:
        """Bytes of guesses that nobody has used for a day."""
        return sum(size for one in self._unused.values() for when, size in one if now - when >= DAY)

    def as_json(self, now: float) -> dict[str, int]:
        """What is told of it."""
        return {"models": self.models, "bytes": self.bytes, "models_used": self.models_used,
                "bytes_used": self.bytes_used, "bytes_wasted": self.wasted(now),
                "bytes_pending": self.at_stake(now)}


def worth(
    predictor: Predictor, present: Iterable[tuple[str, str]], *, is_missing: Callable[[Key], bool],
    size_of: Callable[[Key], int | None], bytes_left: int,
) -> Iterator[tuple[Key, int, float]]:
    """(model, size, probability) of what should be fetched for the (tenant, folder type) pairs that are
    present, as long as it fits into what is left of the budget. Unknown sizes are no guesses.
    """
    chosen: set[Key] = set()
    for tenant, folder in present:
        for name, probability in predictor.next_of(tenant, folder)[:MOST_PER_TENANT]:
            key = (folder, name)
            if probability < LEAST_PROBABILITY:
                break
            size = size_of(key)
            if size and size <= bytes_left and key not in chosen and is_missing(key):
                chosen.add(key)
                bytes_left -= size
                yield key, size, probability


@dataclass(frozen=True)
class Simulation:
    """What guesses would have changed on a disk of one size."""

    disk_bytes: int
    may_evict: bool
    """Whether guesses took the place of other models, which those of the depot never do."""
    uses: int
    misses_without: int
    misses: int
    bytes_guessed: int
    bytes_wasted: int
    """Of guesses that nobody used within a day, or before they were evicted."""

    def as_json(self) -> dict[str, Any]:
        """As `--json` gives it."""
        return asdict(self)


def simulate(
    uses: Iterable[tuple[float, Key, int, str]], *, disk_bytes: int, budget: int, may_evict: bool = False,
    policy: str = "lru",
) -> Simulation:
    """Replay uses (time, key, size, tenant) with and without guesses, as if downloads took no time."""
    listed = list(uses)
    sizes = {key: size for _, key, size, _ in listed if size}
    without = SimulatedCache(POLICIES[policy](disk_bytes), disk_bytes)
    disk = SimulatedCache(POLICIES[policy](disk_bytes), disk_bytes)
    predictor, ledger, misses_without, misses = Predictor(), Ledger(), 0, 0
    now = 0.0
    for now, key, _, tenant in listed:
        size = sizes.get(key, 0)
        misses_without += not without.use(now, key, size)
        is_hit = disk.use(now, key, size)
        misses += not is_hit
        if is_hit:
            ledger.used(key)
        is_switch = predictor.use(tenant, key) is not None
        left = budget - ledger.at_stake(now) if is_switch else 0  # else the guesses are those of before
        if left <= 0:
            continue
        for guess, bytes_of_guess, _ in worth(
            predictor, [(tenant, key[0])], is_missing=lambda one: one not in disk, size_of=sizes.get,
            bytes_left=left,
        ):
            if not may_evict and disk.bytes_free < bytes_of_guess:
                continue
            disk.use(now, guess, bytes_of_guess)
            ledger.guessed(now, guess, bytes_of_guess)
    return Simulation(disk_bytes, may_evict, len(listed), misses_without, misses, ledger.bytes,
                      ledger.bytes - ledger.bytes_used)

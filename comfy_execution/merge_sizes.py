"""How many calls of one kind are worth being served together: measured, one pure rule."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping

LEAST_GAIN = 0.05
"""Twice as many calls at once must save at least so much of the time of each, else no more are tried."""
WEIGHT_OF_NEW = 0.3
REMEMBERED_KINDS = 1000


def next_size(seconds: Mapping[int, float], limit: int) -> int:
    """How many calls to serve at once. `seconds`: what one call took at each number that was tried.

    At first one, then twice as many each time as long as that pays, and from then on the best of all.
    """
    if 1 not in seconds:
        return 1
    best = min(seconds, key=lambda size: (seconds[size], size))
    largest = max(seconds)
    if best != largest or largest >= limit:
        return min(best, limit)
    smaller = [size for size in seconds if size < largest]
    if smaller and seconds[largest] > (1 - LEAST_GAIN) * seconds[max(smaller)]:
        return min(best, limit)
    return min(2 * largest, limit)


class Profile:
    """What calls took, by kind (class, model, settings, size) and by how many were served at once."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, dict[int, float]] = OrderedDict()

    def next_size(self, kind: Hashable, limit: int) -> int:
        """See `next_size`."""
        return next_size(self._kinds.get(kind, {}), limit)

    def note(self, kind: Hashable, size: int, seconds: float) -> None:
        """So many calls took so long together."""
        known = self._kinds.setdefault(kind, {})
        self._kinds.move_to_end(kind)
        if len(self._kinds) > REMEMBERED_KINDS:
            self._kinds.popitem(last=False)
        each, before = seconds / size, known.get(size)
        if before is not None and before != float("inf"):
            each = before + WEIGHT_OF_NEW * (each - before)
        known[size] = each

    def note_failure(self, kind: Hashable, size: int) -> None:
        """So many at once cannot be served: memory is full, or the class refuses."""
        self._kinds.setdefault(kind, {})[size] = float("inf")

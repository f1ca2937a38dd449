"""Which models leave the memory first: a rule without state. The store (`residency.py`) asks it and acts.

Nothing here knows what a model is: only what it takes and what it costs to bring it back.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

Key = tuple[tuple[Hashable, ...], Hashable, Hashable]
"""(content: of each file a sha256 or a `Stamp`; the loader and its other arguments; devices)"""


@dataclass(frozen=True)
class Standing:
    """What counts when a model may have to go."""

    key: Key
    size: int
    """Bytes of its weights."""
    seconds_to_load: float
    """What it took to load it, so what it will take to bring it back."""
    last_used: float
    is_idle: bool
    is_pinned: bool = False


def plan_drops(models: Iterable[Standing], budget: int) -> list[Standing]:
    """Which models to let go, in this order, so that the others take at most `budget` bytes.

    Pinned ones never go, and what they take does not count: they have a budget of their own. Idle ones go
    first: letting go of one that is in use frees nothing yet. Among them the one that is cheapest to bring
    back for the memory it takes (seconds per byte, where less than about a factor of two is no difference),
    then the least recently used.
    """
    waiting = sorted((model for model in models if not model.is_pinned), key=order)
    over = sum(model.size for model in waiting) - budget
    going = []
    for model in waiting:
        if over <= 0:
            break
        going.append(model)
        over -= model.size
    return going


def order(model: Standing) -> tuple[bool, int, float]:
    """The less, the sooner it goes."""
    cost = model.seconds_to_load / max(1, model.size)
    return not model.is_idle, round(math.log2(max(cost, 1e-15))), model.last_used

"""What leaves a device and how much of a model stays on it: pure, no torch.

    wanted      the models that are about to run, in order
    others      the models that are on the device besides
    Room        what is free there, and what a run needs besides weights

`plan_placement` answers which of the others leave, in which order, and how many bytes of each wanted model
stay on the device. What does not stay is streamed from host memory while the model runs, layer by layer;
`choose_resident` says which layers stay.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

NO_DIFFERENCE_IN_COST = 2.0
"""Costs that are less than about this factor apart count as equal."""
SECONDS_OF_NOISE = 0.05
"""Less than this is not worth a difference, and not well measured."""
BYTES_NOT_WORTH_STREAMING = 64 * 1024
"""A transfer of fewer bytes takes as long as its start."""


@dataclass(frozen=True)
class Standing:
    """What counts of a model when a device is full."""

    name: Hashable
    size: int
    """Bytes of all its weights."""
    on_device: int = 0
    """Bytes of them that are on the device now."""
    seconds_to_return: float = 0.0
    """What it would take to bring back what is there now."""
    last_used: float = 0.0
    """The later, the larger; in any unit."""
    is_pinned: bool = False


@dataclass(frozen=True)
class Room:
    """Memory of a device, in bytes."""

    free: float
    to_run: float = 0.0
    """What a run needs besides the weights."""
    least_to_run: float = 0.0
    """What it needs when it goes in the smallest pieces."""


@dataclass(frozen=True)
class Plan:
    """What to do. Sizes are in bytes."""

    leaving: tuple[Hashable, ...] = ()
    """The others that leave, in this order."""
    resident: dict[Hashable, int] = field(default_factory=dict)
    """Of each wanted model: what stays on the device; the rest is streamed."""
    bytes_missing: int = 0
    """How much is too little for the weights that may not be streamed."""


def plan_placement(
    wanted: Sequence[Standing], others: Iterable[Standing], room: Room, *, share: float = 1.0,
    is_whole: bool = False,
) -> Plan:
    """Which models leave, and how much of each wanted one stays on the device.

    Others leave only until there is room; pinned ones never. First goes what is brought back fastest for its
    size, among equals the least recently used. If that does not suffice, the run goes in the smallest pieces;
    then weights are streamed, of the largest model first.

    Args:
        share: how much of a wanted model may stay at most, 0 to 1.
        is_whole: wanted models are not streamed, as pinned ones never are.
    """
    wholes = {one.name for one in wanted if is_whole or one.is_pinned}
    stay = {one.name: one.size if one.name in wholes else int(one.size * share) for one in wanted}
    there = sum(one.on_device for one in wanted)
    free, leaving = room.free + there, []
    for other in sorted((one for one in others if not one.is_pinned), key=_order):
        if sum(stay.values()) + room.to_run <= free:
            break
        leaving.append(other.name)
        free += other.on_device
    short = sum(stay.values()) + min(room.to_run, room.least_to_run) - free
    if sum(stay.values()) + room.to_run > free:
        for name in sorted((one for one in stay if one not in wholes), key=lambda one: -stay[one]):
            cut = int(min(max(0.0, math.ceil(short)), stay[name]))
            stay[name] -= cut
            short -= cut
    missing = sum(stay[name] for name in wholes) - free
    return Plan(tuple(leaving), stay, max(0, math.ceil(missing)))


def _order(one: Standing) -> tuple[float, float]:
    cost = max(0.0, one.seconds_to_return - SECONDS_OF_NOISE) / max(1, one.on_device)
    return round(math.log(max(cost, 1e-15), NO_DIFFERENCE_IN_COST)), one.last_used


def choose_resident(layers: Sequence[tuple[str, int]], budget: int) -> set[str]:
    """Which layers (name, bytes), in the order of their use, stay on a device in `budget` bytes.

    All, if they fit. Else room for two of the largest is left to those on their way; small layers stay first,
    and of the others so many that between those that are streamed there is always something to compute.
    """
    if sum(size for _, size in layers) <= budget:
        return {name for name, _ in layers}
    left = budget - 2 * max((size for _, size in layers), default=0)
    resident = set()
    large = []
    for name, size in layers:
        if size > BYTES_NOT_WORTH_STREAMING:
            large.append((name, size))
        elif size <= left:
            resident.add(name)
            left -= size
    share = max(0.0, left / max(1, sum(size for _, size in large)))
    credit = 0.0
    for name, size in large:
        credit += size * share
        if credit >= size and size <= left:
            resident.add(name)
            credit -= size
            left -= size
    return resident

"""The prompts that wait, in the order in which they will run:

1. what ran when the server was stopped,
2. higher priorities,
3. inside a priority the tenants in turns; one that comes new begins behind those that wait already,
4. of one tenant lower numbers, equal ones in the order of their arrival.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from comfy_execution.queueing.schedule import schedule_of

_arrivals = itertools.count()


class QueueItem(tuple[Any, ...]):
    """(number, prompt id, graph, extra data, outputs to execute, sensitive data), and its place.

    `arrival` grows with every item. `turn` counts the prompts that had started when it came, and later the
    place of its own start. `sequence` is its row in the journal, None while it has none; `size` is
    the length of that row.
    """

    arrival: int
    turn: int
    sequence: int | None
    priority: float
    tenant: str
    missing_tokens: tuple[str, ...]
    size: int
    job: Any

    def __new__(cls, item: tuple[Any, ...], arrival: int | None = None) -> QueueItem:
        self = super().__new__(cls, item)
        self.arrival = next(_arrivals) if arrival is None else arrival
        self.turn = -1
        self.sequence = None
        self.missing_tokens = ()
        self.size = 0
        self.job = None
        schedule = schedule_of(self)
        self.priority, self.tenant = schedule.priority, schedule.tenant
        return self

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, QueueItem):
            return NotImplemented
        return bool((self[0], self.arrival) < (other[0], other.arrival))


class _Line:
    """The prompts of one priority: a heap per tenant, and whose turn it is."""

    def __init__(self) -> None:
        self.heaps: dict[str, list[QueueItem]] = {}
        self.turns: dict[str, tuple[int, int]] = {}
        self.order: list[tuple[tuple[int, int], str]] = []

    def push(self, item: QueueItem) -> None:
        heap = self.heaps.get(item.tenant)
        if heap is not None:
            heapq.heappush(heap, item)
            return
        self.heaps[item.tenant] = [item]
        self.set_turn(item.tenant, (item.turn, item.arrival))

    def set_turn(self, tenant: str, turn: tuple[int, int]) -> None:
        """The tenant's next prompt comes after those of smaller turns."""
        self.turns[tenant] = turn
        if len(self.order) > 2 * len(self.heaps) + 64:  # turns of tenants that have left
            self.order = [(self.turns[name], name) for name in self.heaps]
            heapq.heapify(self.order)
        else:
            heapq.heappush(self.order, (turn, tenant))

    def pop(self, turn: int) -> QueueItem:
        """The next prompt; there must be one."""
        while True:
            key, tenant = heapq.heappop(self.order)
            if self.turns.get(tenant) == key:
                break
        item = heapq.heappop(self.heaps[tenant])
        if self.heaps[tenant]:
            self.set_turn(tenant, (turn, item.arrival))
        else:
            self.forget(tenant)
        return item

    def remove(self, item: QueueItem) -> None:
        """Take one out by identity."""
        heap = self.heaps[item.tenant]
        heap[:] = [other for other in heap if other is not item]
        heapq.heapify(heap)
        if not heap:
            self.forget(item.tenant)

    def forget(self, tenant: str) -> None:
        del self.heaps[tenant], self.turns[tenant]

    def in_order(self, turn: int) -> Iterator[QueueItem]:
        waiting = {tenant: deque(sorted(heap)) for tenant, heap in self.heaps.items()}
        order = [(key, tenant) for tenant, key in self.turns.items()]
        heapq.heapify(order)
        while order:
            _, tenant = order[0]
            item = waiting[tenant].popleft()
            turn += 1
            yield item
            if waiting[tenant]:
                heapq.heapreplace(order, ((turn, item.arrival), tenant))
            else:
                heapq.heappop(order)


class WaitingPrompts:
    """The waiting prompts. Its owner has the lock."""

    def __init__(self, items: Iterable[tuple[Any, ...]] = ()) -> None:
        self.turn = 0
        self._first: list[QueueItem] = []
        self._lines: dict[float, _Line] = {}
        self._priorities: list[float] = []  # a heap of negated priorities; some may be empty by now
        self._in_heap: set[float] = set()
        self._count = 0
        for item in items:
            self.push(item if isinstance(item, QueueItem) else QueueItem(item))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[QueueItem]:
        yield from self._first
        for line in self._lines.values():
            for heap in line.heaps.values():
                yield from heap

    def __getitem__(self, index: int) -> QueueItem:
        return self.in_order()[index]

    def in_order(self) -> list[QueueItem]:
        """The prompts as they will run if no other comes."""
        found = list(self._first)
        for priority in sorted(self._lines, reverse=True):
            found.extend(self._lines[priority].in_order(self.turn))
        return found

    def push(self, item: QueueItem) -> None:
        """Let one more wait."""
        if item.turn < 0:
            item.turn = self.turn
        self._count += 1
        line = self._lines.get(item.priority)
        if line is None:
            line = self._lines[item.priority] = _Line()
            if item.priority not in self._in_heap:
                self._in_heap.add(item.priority)
                heapq.heappush(self._priorities, -item.priority)
        line.push(item)

    def push_first(self, item: QueueItem) -> None:
        """Let this one run before all others."""
        self._count += 1
        self._first.append(item)

    def note_turn(self, priority: float, tenant: str, turn: int) -> None:
        """A tenant had its turn before the prompts in here were read from a journal."""
        self.turn = max(self.turn, turn)
        line = self._lines.get(priority)
        if line is not None and tenant in line.heaps and line.turns[tenant][0] < turn:
            line.set_turn(tenant, (turn, line.turns[tenant][1]))

    def pop(self) -> QueueItem:
        """The next prompt. IndexError when none waits."""
        item = self._first.pop(0) if self._first else self._pop_line()
        self._count -= 1
        self.turn += 1
        item.turn = self.turn
        return item

    def _pop_line(self) -> QueueItem:
        while -self._priorities[0] not in self._lines:
            self._in_heap.discard(-heapq.heappop(self._priorities))
        priority = -self._priorities[0]
        line = self._lines[priority]
        item = line.pop(self.turn + 1)
        if not line.heaps:
            del self._lines[priority]
        return item

    def remove_if(self, wanted: Callable[[Any], bool]) -> QueueItem | None:
        """Take out the first prompt, in the order of running, for which `wanted(item)` is true."""
        found = [item for item in self if wanted(item)]
        if not found:
            return None
        item = found[0] if len(found) == 1 else next(one for one in self.in_order() if wanted(one))
        self._count -= 1
        if any(item is one for one in self._first):
            self._first = [one for one in self._first if one is not item]
        else:
            self._lines[item.priority].remove(item)
            if not self._lines[item.priority].heaps:
                del self._lines[item.priority]
        return item

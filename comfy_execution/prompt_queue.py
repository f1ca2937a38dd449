"""The queue of prompts, and the history of those that have run. Safe to use from any thread."""

from __future__ import annotations

import copy
import heapq
import itertools
import marshal
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from comfy_execution.host import QueueHost

MAXIMUM_HISTORY_SIZE = 10000

HistoryEntry = dict[str, Any]

_arrivals = itertools.count()


class QueueItem(tuple[Any, ...]):
    """(number, prompt id, graph, extra data, outputs to execute, sensitive data).

    Lower numbers run first, equal ones in the order of their arrival.
    """

    arrival: int

    def __new__(cls, item: tuple[Any, ...]) -> QueueItem:
        self = super().__new__(cls, item)
        self.arrival = next(_arrivals)
        return self

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, QueueItem):
            return NotImplemented
        return bool((self[0], self.arrival) < (other[0], other.arrival))


def deep_copy_of(item: tuple[Any, ...]) -> tuple[Any, ...]:
    """A deep copy of a queue item, as a plain tuple. Plain data takes the fast way."""
    try:
        copied: tuple[Any, ...] = marshal.loads(marshal.dumps(tuple(item)))
    except ValueError:
        return copy.deepcopy(tuple(item))
    return copied


class PromptQueue:
    """Waiting prompts by number, running ones, and the history of finished ones."""

    class ExecutionStatus(NamedTuple):
        """How a prompt ended. `messages` are (event, data) pairs."""

        status_str: Literal["success", "error"]
        completed: bool
        messages: list[Any]

    def __init__(self, server: QueueHost) -> None:
        self.server = server
        self.mutex = threading.RLock()
        self.not_empty = threading.Condition(self.mutex)
        self.task_counter = 0
        self.queue: list[Any] = []
        self.currently_running: dict[int, tuple[Any, ...]] = {}
        self.history: dict[str, HistoryEntry] = {}
        self.flags: dict[str, Any] = {}

    def put(self, item: tuple[Any, ...]) -> None:
        """Let a prompt wait for its turn."""
        with self.mutex:
            heapq.heappush(self.queue, QueueItem(item))
            self.server.queue_updated()
            self.not_empty.notify()

    def get(self, timeout: float | None = None) -> tuple[tuple[Any, ...], int] | None:
        """The next prompt and its task number, or None when none came within `timeout` seconds (or a flag was
        set). What is kept as running is a copy: nodes may change the graph they are in.
        """
        with self.not_empty:
            while not self.queue:
                self.not_empty.wait(timeout=timeout)
                if timeout is not None and not self.queue:
                    return None
            item = heapq.heappop(self.queue)
            task = self.task_counter
            self.task_counter += 1
            self.currently_running[task] = deep_copy_of(item)
            self.server.queue_updated()
            return item, task

    def task_done(
        self,
        item_id: int,
        history_result: dict[str, Any],
        status: PromptQueue.ExecutionStatus | None,
        process_item: Callable[[Any], Any] | None = None,
    ) -> None:
        """A prompt has run: move it to the history. `process_item` says what of the queue item is kept."""
        with self.mutex:
            prompt = self.currently_running.pop(item_id)
            while len(self.history) >= MAXIMUM_HISTORY_SIZE:
                del self.history[next(iter(self.history))]
            if process_item is not None:
                prompt = process_item(prompt)
            self.history[prompt[1]] = {
                "prompt": prompt,
                "outputs": {},
                "status": None if status is None else copy.deepcopy(status._asdict()),
                **history_result,
            }
            self.server.queue_updated()

    def get_current_queue(self) -> tuple[list[Any], list[Any]]:
        """(running, waiting) as copies."""
        with self.mutex:
            return list(self.currently_running.values()), [deep_copy_of(item) for item in self.queue]

    def get_current_queue_volatile(self) -> tuple[list[Any], list[Any]]:
        """(running, waiting), to be read only."""
        with self.mutex:
            return list(self.currently_running.values()), list(self.queue)

    def get_tasks_remaining(self) -> int:
        """How many prompts wait or run."""
        with self.mutex:
            return len(self.queue) + len(self.currently_running)

    def interrupt_if_running(self, prompt_id: str, interrupt: Callable[[], None]) -> bool:
        """Call `interrupt` if this prompt runs, and not if another one has taken its place."""
        with self.mutex:
            running = any(item[1] == prompt_id for item in self.currently_running.values())
            if running:
                interrupt()
            return running

    def wipe_queue(self) -> None:
        """Remove all waiting prompts."""
        with self.mutex:
            self.queue = []
            self.server.queue_updated()

    def delete_queue_item(self, function: Callable[[Any], bool]) -> bool:
        """Remove the first waiting prompt for which `function(item)` is true. False if there is none."""
        with self.mutex:
            for index, item in enumerate(self.queue):
                if function(item):
                    del self.queue[index]
                    heapq.heapify(self.queue)
                    self.server.queue_updated()
                    return True
            return False

    def get_history(
        self,
        prompt_id: str | None = None,
        max_items: int | None = None,
        offset: int = -1,
        map_function: Callable[[HistoryEntry], Any] | None = None,
    ) -> dict[str, Any]:
        """History entries by prompt id, oldest first: one, or `max_items` from `offset` (the newest ones when
        it is negative). `map_function` says what to give of an entry.
        """
        with self.mutex:
            if prompt_id is not None:
                if prompt_id not in self.history:
                    return {}
                give = copy.deepcopy if map_function is None else map_function
                return {prompt_id: give(self.history[prompt_id])}
            count = len(self.history)
            start = max(0, count - max_items if offset < 0 and max_items is not None else offset)
            stop = count if max_items is None else start + max_items
            return {
                key: entry if map_function is None else map_function(entry)
                for key, entry in itertools.islice(self.history.items(), start, stop)
            }

    def wipe_history(self) -> None:
        """Forget all finished prompts."""
        with self.mutex:
            self.history = {}

    def delete_history_item(self, id_to_delete: str) -> None:
        """Forget one finished prompt, if it is there."""
        with self.mutex:
            self.history.pop(id_to_delete, None)

    def set_flag(self, name: str, data: Any) -> None:
        """Tell the worker something, such as "free_memory"; wakes it."""
        with self.mutex:
            self.flags[name] = data
            self.not_empty.notify()

    def get_flags(self, reset: bool = True) -> dict[str, Any]:
        """The flags set since the last time."""
        with self.mutex:
            flags = dict(self.flags)
            if reset:
                self.flags = {}
            return flags

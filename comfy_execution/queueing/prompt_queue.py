"""The queue of prompts, and the history of those that have run. Safe to use from any thread.

With a journal (`attach`) both survive the process: see `durable.py`.
"""

from __future__ import annotations

import copy
import itertools
import marshal
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Literal, NamedTuple

from comfy_execution import jobs
from comfy_execution.host import QueueHost
from comfy_execution.queueing.durable import DurableQueue, Recovered
from comfy_execution.queueing.history import JournalHistory
from comfy_execution.queueing.journal import JournalError
from comfy_execution.queueing.waiting import QueueItem, WaitingPrompts

MAXIMUM_HISTORY_SIZE = 10000
RUN_TIMES_KEPT = 20
LONGEST_RETRY_SECONDS = 600
SECONDS_BETWEEN_TRIES = 0.25

HistoryEntry = dict[str, Any]


class QueueFullError(Exception):
    """No more prompts may wait. `retry_seconds` is about when a place gets free."""

    def __init__(self, limit: int, retry_seconds: int) -> None:
        super().__init__(f"{limit} prompts wait already, and no more may (--max-queue).")
        self.limit = limit
        self.retry_seconds = retry_seconds


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
        self.queue = WaitingPrompts()
        self.currently_running: dict[int, tuple[Any, ...]] = {}
        self.history: MutableMapping[str, HistoryEntry] = {}
        self.flags: dict[str, Any] = {}
        self.history_size: int | None = None
        self.max_waiting: int | None = None
        self.durable: DurableQueue | None = None
        self.paused = False
        self.stopping = False
        self.run_times: deque[float] = deque(maxlen=RUN_TIMES_KEPT)
        self._running_items: dict[int, tuple[QueueItem, float]] = {}
        self._being_written = 0
        self._jobs: dict[str, tuple[HistoryEntry, jobs.Job]] = {}
        self.when_ended: Callable[[str], None] = lambda prompt_id: None
        """Told of each prompt that has run, when it is in the history. Called from the worker's thread."""
        self.when_removed: Callable[[Iterable[tuple[Any, ...]]], None] = lambda items: None
        """Told of prompts that were taken out before they ran, from the thread of whoever did it."""

    def attach(self, durable: DurableQueue) -> Recovered:
        """Keep queue and history in a journal from now on, and take up what is in it."""
        found = durable.recover()
        with self.mutex:
            for item in self.queue:
                found.waiting.push(item)
            self.durable, self.history, self.queue = durable, durable.history, found.waiting
            self.paused = self.paused or found.paused
            self.not_empty.notify_all()
        return found

    def limit_of_history(self) -> int:
        """How many finished prompts are remembered."""
        return MAXIMUM_HISTORY_SIZE if self.history_size is None else self.history_size

    # -- waiting -------------------------------------------------------------------------------------------

    def put(self, item: tuple[Any, ...]) -> None:
        """Let a prompt wait for its turn. With a journal it is written down first (raises JournalError)."""
        waiting = item if isinstance(item, QueueItem) else QueueItem(item)
        if self.durable is not None and waiting.sequence is None:
            self.durable.journal.write_now(self._row(self.durable, waiting))
        with self.mutex:
            self.queue.push(waiting)
            self.server.queue_updated()
            self.not_empty.notify()

    def put_soon(
        self, item: tuple[Any, ...], when_done: Callable[[JournalError | QueueFullError | None], None]
    ) -> bool:
        """The same without waiting for the disk. True if the prompt is safe and waits for its turn; else
        `when_done(None)` is called, from any thread, when it does: long prompts of many callers are written
        together. Raises QueueFullError, and ValueError for an item that cannot be written.
        """
        waiting = QueueItem(item)

        def written(error: JournalError | None) -> None:
            with self.mutex:
                self._being_written -= 1
                if error is None:
                    self.put(waiting)
            when_done(error)

        with self.mutex:
            self.refuse_if_full()
            if self.durable is None or self.durable.accept(self._row(self.durable, waiting), written):
                self.put(waiting)
                return True
            self._being_written += 1
            return False

    def _row(self, durable: DurableQueue, item: QueueItem) -> Any:
        with self.mutex:
            item.turn = self.queue.turn
            return durable.row_of(item, getattr(self.server, "number", 0))

    def refuse_if_full(self) -> None:
        """Raise QueueFullError when no more prompts may wait."""
        with self.mutex:
            if self.max_waiting is None or len(self.queue) + self._being_written < self.max_waiting:
                return
            seconds = sum(self.run_times) / len(self.run_times) if self.run_times else 1.0
            raise QueueFullError(self.max_waiting, min(LONGEST_RETRY_SECONDS, max(1, math.ceil(seconds))))

    def set_paused(self, paused: bool) -> None:
        """Start no more prompts, or go on. What runs is left alone. It is remembered over restarts."""
        with self.mutex:
            self.paused = paused
            self.not_empty.notify_all()
            self.server.queue_updated()
        if self.durable is not None:
            self.durable.set_paused(paused)

    def stop(self) -> None:
        """The process is asked to end: start nothing more; what runs will be run again after the restart."""
        with self.mutex:
            self.stopping = True
            if self.durable is not None and self.currently_running:
                self.durable.note_stopped()

    def close(self) -> None:
        """Let the journal go; the queue is not used any more."""
        if self.durable is not None:
            self.durable.journal.close()

    def get(self, timeout: float | None = None) -> tuple[tuple[Any, ...], int] | None:
        """The next prompt and its task number, or None when none came within `timeout` seconds (or a flag was
        set). What is kept as running is a copy: nodes may change the graph they are in.
        """
        with self.not_empty:
            while not self.queue or self.paused or self.stopping:
                if timeout is not None and self.flags:  # set when nobody waited here
                    return None
                self.not_empty.wait(timeout=timeout)
                if timeout is not None and (not self.queue or self.paused or self.stopping):
                    return None
            item = self.queue.pop()
            task = self.task_counter
            self.task_counter += 1
            self.currently_running[task] = deep_copy_of(item)
            self._running_items[task] = (item, time.monotonic())
            self.taken()
            if self.durable is not None:
                self.durable.begin(item)
            self.server.queue_updated()
            return item, task

    def taken(self) -> None:
        """A prompt begins to run; the lock is held."""

    def note_node(self, node_id: str | None) -> None:
        """This node is in work: what is known when the process dies."""
        if self.durable is not None:
            self.durable.journal.lock.note(node_id or "")

    # -- finished ------------------------------------------------------------------------------------------

    def task_done(
        self,
        item_id: int,
        history_result: dict[str, Any],
        status: PromptQueue.ExecutionStatus | None,
        process_item: Callable[[Any], Any] | None = None,
    ) -> None:
        """A prompt has run: move it to the history. `process_item` says what of the queue item is kept.

        What was interrupted because the process is asked to stop is no history: it will run again.
        """
        prompt_id = self.currently_running[item_id][1]
        while not self._end(item_id, history_result, status, process_item):
            time.sleep(SECONDS_BETWEEN_TRIES)
        self.when_ended(prompt_id)

    def _end(self, item_id: int, history_result: dict[str, Any], status: Any, process_item: Any) -> bool:
        """False if there is no room for the result; it is tried again, and the lock is free meanwhile."""
        with self.mutex:
            prompt = self.currently_running[item_id]
            item, started = self._running_items.get(item_id, (None, 0.0))
            if not (self.stopping and self.durable is not None and _was_interrupted(status)):
                kept = prompt if process_item is None else process_item(prompt)
                entry = {
                    "prompt": kept,
                    "outputs": {},
                    "status": None if status is None else self._kept_status(status),
                    **history_result,
                }
                if not self._remember(item, prompt, entry):
                    return False
            del self.currently_running[item_id]
            self._running_items.pop(item_id, None)
            self.run_times.append(time.monotonic() - started)
            self.server.queue_updated()
            return True

    def _kept_status(self, status: PromptQueue.ExecutionStatus) -> dict[str, Any]:
        """A journal makes text of it at once; in memory it must be nobody else's."""
        return status._asdict() if self.durable is not None else copy.deepcopy(status._asdict())

    def _remember(self, item: QueueItem | None, prompt: tuple[Any, ...], entry: HistoryEntry) -> bool:
        if self.durable is not None:
            same = all(one is other for one, other in zip(entry["prompt"], prompt))
            return self.durable.finish(item, entry, same_item=same)
        self.history.pop(entry["prompt"][1], None)
        while len(self.history) >= self.limit_of_history() > 0:
            del self.history[next(iter(self.history))]
        self.history[entry["prompt"][1]] = entry
        return True

    # -- looking -------------------------------------------------------------------------------------------

    def get_current_queue(self) -> tuple[list[Any], list[Any]]:
        """(running, waiting) as copies, in the order of running."""
        with self.mutex:
            waiting = [deep_copy_of(item) for item in self._in_order()]
            return list(self.currently_running.values()), waiting

    def get_current_queue_volatile(self) -> tuple[list[Any], list[Any]]:
        """(running, waiting), to be read only."""
        with self.mutex:
            return list(self.currently_running.values()), list(self._in_order())

    def first_waiting(self, most: int) -> list[tuple[Any, ...]]:
        """The first prompts that wait, in the order of running; none while the queue is paused."""
        with self.mutex:
            return [] if self.paused or self.stopping else list(itertools.islice(self._in_order(), most))

    def _in_order(self) -> Iterable[tuple[Any, ...]]:
        return self.queue.in_order() if isinstance(self.queue, WaitingPrompts) else self.queue

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

    # -- removing ------------------------------------------------------------------------------------------

    def wipe_queue(self) -> None:
        """Remove all waiting prompts."""
        with self.mutex:
            items = list(self.queue)
            turn = self.queue.turn
            self.queue = WaitingPrompts()
            self.queue.turn = turn
            self.server.queue_updated()
        if self.durable is not None:
            self.durable.forget(items)
        self.when_removed(items)

    def delete_queue_item(self, function: Callable[[Any], bool]) -> bool:
        """Remove the first waiting prompt for which `function(item)` is true. False if there is none."""
        with self.mutex:
            item = self.queue.remove_if(function)
            if item is None:
                return False
            self.server.queue_updated()
        if self.durable is not None:
            self.durable.forget([item])
        self.when_removed([item])
        return True

    # -- history -------------------------------------------------------------------------------------------

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
            return {
                key: entry if map_function is None else map_function(entry)
                for key, entry in self._page(max_items, offset).items()
            }

    def _page(self, max_items: int | None, offset: int) -> dict[str, HistoryEntry]:
        if isinstance(self.history, JournalHistory):
            return self.history.page(max_items, offset)
        count = len(self.history)
        start = max(0, count - max_items if offset < 0 and max_items is not None else offset)
        stop = count if max_items is None else start + max_items
        return dict(itertools.islice(self.history.items(), start, stop))

    def jobs_page(self, wish: jobs.Wish) -> tuple[list[jobs.Job], int]:
        """(a page of the jobs that run, wait or have ended; how many there are in all)."""
        with self.mutex:
            live = [jobs.normalize_queue_item(item, jobs.JobStatus.IN_PROGRESS)
                    for item in self.currently_running.values()]
            live += [_pending_job(item) for item in self.queue]
            if isinstance(self.history, JournalHistory):
                return self.history.jobs_page(live, wish)
            return wish.page_of([*live, *(self._finished_job(*one) for one in self.history.items())])

    def _finished_job(self, prompt_id: str, entry: HistoryEntry) -> jobs.Job:
        """The job of an entry, worked out once."""
        known = self._jobs.get(prompt_id)
        if known is None or known[0] is not entry:
            if len(self._jobs) > 2 * len(self.history) + 64:
                self._jobs = {key: value for key, value in self._jobs.items() if key in self.history}
            known = self._jobs[prompt_id] = (entry, jobs.normalize_history_item(prompt_id, entry))
        return known[1]

    def wipe_history(self) -> None:
        """Forget all finished prompts."""
        with self.mutex:
            self.history.clear()

    def delete_history_item(self, id_to_delete: str) -> None:
        """Forget one finished prompt, if it is there."""
        with self.mutex:
            self.history.pop(id_to_delete, None)

    # -- flags ---------------------------------------------------------------------------------------------

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


def _was_interrupted(status: PromptQueue.ExecutionStatus | None) -> bool:
    return status is not None and any(message[0] == "execution_interrupted" for message in status.messages)


def _pending_job(item: Any) -> jobs.Job:
    """The job of a waiting prompt; the item itself remembers it."""
    known: jobs.Job | None = getattr(item, "job", None)
    if known is None:
        known = jobs.normalize_queue_item(item, jobs.JobStatus.PENDING)
        if isinstance(item, QueueItem):
            item.job = known
    return known

"""The prompt queue and the worker of upstream's server, as far as the depot touches them."""

from __future__ import annotations

import copy
import heapq
import threading
from collections.abc import Callable
from typing import Any


class Queue:
    """Upstream's PromptQueue: a heap, what runs, and the history."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.not_empty = threading.Condition(self.mutex)
        self.queue: list[Any] = []
        self.currently_running: dict[int, Any] = {}
        self.history: dict[str, Any] = {}

    def put(self, item: Any) -> None:
        with self.mutex:
            heapq.heappush(self.queue, item)
            self.not_empty.notify()

    def get(self, timeout: float) -> Any:
        with self.not_empty:
            if not self.queue:
                self.not_empty.wait(timeout)
            if not self.queue:
                return None
            item = heapq.heappop(self.queue)
            self.currently_running[0] = copy.deepcopy(item)
            return item

    def task_done(self, result: Any) -> None:
        with self.mutex:
            item = self.currently_running.pop(0)
            self.history[item[1]] = {"prompt": item, **result}

    def wipe_queue(self) -> None:
        with self.mutex:
            self.queue = []


class Server:
    """Upstream's PromptServer with its queue."""

    def __init__(self) -> None:
        self.prompt_queue = Queue()
        self.handlers: list[Callable[[Any], Any]] = []
        self.sent: list[tuple[str, Any]] = []

    def add_on_prompt_handler(self, handler: Callable[[Any], Any]) -> None:
        self.handlers.append(handler)

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.sent.append((event, data))


class Worker:
    """A thread that runs the prompts of a queue, until the block ends."""

    def __init__(self, queue: Queue, executor: Any) -> None:
        self.queue, self.executor = queue, executor
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.is_over = False

    def __enter__(self) -> Worker:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.thread.join(5)

    def _run(self) -> None:
        while not self.is_over:
            item = self.queue.get(timeout=0.02)
            if item is not None:
                self.executor.execute(item[2], item[1], item[3], item[4])
                self.queue.task_done(self.executor.history_result)

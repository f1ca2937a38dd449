"""What happens to single jobs, for those who follow one by server-sent events (`/api/v2/jobs/ID/events`).

`JobLogs.tell` sees every message that the server sends to its clients. Of jobs that somebody may follow it
keeps, numbered: what began and ended, what nodes showed, what was said (`kept`, in order), and the newest
progress and preview. A client that comes back names the last number that it has.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from comfy_execution.jobs import normalize_outputs
from protocol import BinaryEventTypes

JOBS = 512
EVENTS_PER_JOB = 2000
PREVIEWS = (BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA)
EPOCH = uuid.uuid4().hex[:8]
"""Numbers begin anew with each process."""


class Event(NamedTuple):
    """`name` is status, output, log, progress, preview or end."""

    number: int
    name: str
    data: Any


class JobLog:
    """The events of one job. Changed by any thread under `lock`, read in the server's loop."""

    def __init__(self, prompt_id: str, nodes_total: int) -> None:
        self.prompt_id = prompt_id
        self.nodes_total = nodes_total
        self.number = 0
        self.kept: deque[Event] = deque(maxlen=EVENTS_PER_JOB)
        self.newest: dict[str, Event] = {}
        self.outputs: dict[str, Any] = {}
        self.has_started = self.has_ended = self.is_canceling = False
        self._done: set[str] = set()
        self._node: str | None = None
        self._step: tuple[float, float] | None = None
        self.waiters: set[asyncio.Event] = set()
        self.lock = threading.Lock()

    def add(self, name: str, data: Any, *, only_newest: bool = False) -> None:
        """Something happened."""
        self.number += 1
        event = Event(self.number, name, data)
        if only_newest:
            self.newest[name] = event
        else:
            self.kept.append(event)

    def since(self, number: int) -> list[Event]:
        """What happened after that number, in order."""
        with self.lock:
            events = [*self.kept, *self.newest.values()]
        return sorted((event for event in events if event.number > number), key=lambda event: event.number)

    def shown_until(self, number: int) -> list[Event]:
        """The outputs up to that number."""
        with self.lock:
            return [event for event in self.kept if event.name == "output" and event.number <= number]

    def progress(self) -> dict[str, Any]:
        """How far the job is, as one number and in parts."""
        total = max(self.nodes_total, 1)
        value, most = self._step or (0.0, 0.0)
        inside = min(1.0, value / most) if most > 0 and self._node is not None else 0.0
        return {
            "value": min(1.0, (len(self._done) + inside) / total),
            "nodes_done": min(len(self._done), total),
            "nodes_total": self.nodes_total,
            "current_node": self._node,
            "step": int(value) if self._step else None,
            "steps": int(most) if self._step else None,
        }

    # -- messages of the executor --------------------------------------------------------------------------

    def take(self, event: str, data: Mapping[str, Any]) -> None:
        """A message about this job."""
        handler = getattr(self, f"_take_{event}", None)
        if handler is None or self.has_ended:
            return
        try:
            handler(data)
        except Exception:  # packs send what they like under these names, and the node that sends must go on
            logging.exception("A message %r of prompt %s cannot be followed.", event, self.prompt_id)

    def _take_execution_start(self, data: Mapping[str, Any]) -> None:
        self.has_started = True
        self._done.clear()
        self.add("status", {"status": "running"})

    def _take_execution_cached(self, data: Mapping[str, Any]) -> None:
        nodes = list(data.get("nodes") or ())
        self._done.update(map(str, nodes))
        if nodes:
            self.add("log", {"level": "info", "message": f"{len(nodes)} nodes have stored results."})
            self._add_progress()

    def _take_executing(self, data: Mapping[str, Any]) -> None:
        self._leave_node()
        if data.get("node") is not None:
            self._node = str(data.get("display_node") or data["node"])
        self._add_progress()

    def _take_progress(self, data: Mapping[str, Any]) -> None:
        value, most = float(data.get("value") or 0), float(data.get("max") or 0)
        if math.isfinite(value) and math.isfinite(most):
            self._step = value, most
            self._add_progress()

    def _take_executed(self, data: Mapping[str, Any]) -> None:
        output = data.get("output")
        if isinstance(output, Mapping):
            shown = normalize_outputs({str(data.get("node")): output})
            self.outputs.update(shown)
            self.add("output", shown)

    def _take_execution_error(self, data: Mapping[str, Any]) -> None:
        where = f"Node {data.get('node_id')} ({data.get('node_type')}): " if data.get("node_id") else ""
        self.add("log", {"level": "error", "message": f"{where}{data.get('exception_message')}"})

    def _leave_node(self) -> None:
        if self._node is not None:
            self._done.add(self._node)
        self._node = self._step = None

    def _add_progress(self) -> None:
        self.add("progress", self.progress(), only_newest=True)


class JobLogs:
    """The logs of the newest jobs, by prompt id. `tell` and `end` may be called from any thread."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._logs: OrderedDict[str, JobLog] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, prompt_id: str, nodes_total: int) -> JobLog:
        """A new log for a job that is about to be queued."""
        with self._lock:
            return self._add(prompt_id, nodes_total)

    def follow(self, prompt_id: str, nodes_total: int) -> JobLog:
        """The log of a job; begun if there is none."""
        with self._lock:
            log = self._logs.get(prompt_id)
            return self._add(prompt_id, nodes_total) if log is None else log

    def _add(self, prompt_id: str, nodes_total: int) -> JobLog:
        log = self._logs[prompt_id] = JobLog(prompt_id, nodes_total)
        self._logs.move_to_end(prompt_id)
        while len(self._logs) > JOBS:
            self._logs.popitem(last=False)
        return log

    def get(self, prompt_id: str) -> JobLog | None:
        """The log of a job, if there is one."""
        return self._logs.get(prompt_id)

    def forget(self, prompt_id: str) -> None:
        """The job was not accepted."""
        with self._lock:
            self._logs.pop(prompt_id, None)

    def tell(self, event: Any, data: Any) -> None:
        """A message of the server to a client."""
        if not self._logs:
            return
        if isinstance(event, str):
            prompt_id = data.get("prompt_id") if isinstance(data, Mapping) else None
            log = self._logs.get(prompt_id) if isinstance(prompt_id, str) else None
            if log is not None:
                self._change(log, lambda: log.take(event, data))
        elif event in PREVIEWS:
            self._take_preview(event, data)

    def _take_preview(self, event: int, data: Any) -> None:
        picture, about = data, {}
        if event == BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA and isinstance(data, tuple):
            picture, about = data
        log = self._logs.get(about.get("prompt_id") or self._server.last_prompt_id)
        if log is None or log.has_ended:
            return
        node_id = str(about.get("node_id") or self._server.last_node_id or "")
        self._change(log, lambda: log.add("preview", (node_id, picture), only_newest=True))

    def canceling(self, prompt_id: str) -> None:
        """A running job was asked to stop."""
        log = self._logs.get(prompt_id)
        if log is not None and not (log.is_canceling or log.has_ended):
            log.is_canceling = True
            self._change(log, lambda: log.add("status", {"status": "canceling"}))

    def end(self, prompt_id: str) -> None:
        """A job is over; how, its history says."""
        log = self._logs.get(prompt_id)
        if log is None:
            return

        def end() -> None:
            log.has_ended = True
            log.newest.clear()
            log.add("end", None)

        self._change(log, end)

    def _change(self, log: JobLog, change: Any) -> None:
        with log.lock:
            change()
        if log.waiters and not self._server.loop.is_closed():
            self._server.loop.call_soon_threadsafe(_wake, log)


def _wake(log: JobLog) -> None:
    for waiter in log.waiters:
        waiter.set()


def event_id(number: int) -> str:
    """The number of an event as clients see it."""
    return f"{EPOCH}-{number}"


def number_of(text: str | None) -> int | None:
    """The number in a Last-Event-ID; None for none, and for one of another process."""
    epoch, _, number = (text or "").partition("-")
    return int(number) if epoch == EPOCH and number.isascii() and number.isdigit() else None

"""What clients would have heard while they were away, for those that come back under the same name.

Kept are named messages to one client (not to all) while it has no line: the last `MESSAGES_PER_CLIENT` of
at most `CLIENTS` clients, for `SECONDS_KEPT`. A node that starts takes the place of the node before it, and
progress is not kept. After a restart a client also hears how its prompts ended that ended just before, unless
it was told: the journal knows up to which end each client was sent its messages.
"""

from __future__ import annotations

import functools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from comfy_execution.queueing.durable import DurableQueue

CLIENTS = 256
MESSAGES_PER_CLIENT = 500
SECONDS_KEPT = 600.0
SECONDS_BEFORE_A_RESTART = 60.0
ENDS_AFTER_A_RESTART = 20
NOT_KEPT = frozenset({"progress", "progress_state", "status", "logs", "feature_flags"})
ENDS = ("execution_success", "execution_error", "execution_interrupted")

Message = tuple[str, Any]


class MissedEvents:
    """Messages by client. Used in the server's loop only, but for `awaits`."""

    def __init__(self) -> None:
        self._away: OrderedDict[str, tuple[float, deque[Message]]] = OrderedDict()
        self._durable: DurableQueue | None = None
        self._is_after_restart = False
        self._seen: set[str] = set()
        self._started = time.monotonic()

    def expect_back(self, clients: Iterable[str], durable: DurableQueue) -> None:
        """The server has started again; these clients have prompts that wait."""
        self._durable, self._is_after_restart = durable, True
        for sid in list(clients)[:CLIENTS]:
            self.gone(sid)

    def gone(self, sid: str, unsent: Iterable[Message] = ()) -> None:
        """A client's line has ended; these messages had not been sent."""
        kept = [message for message in unsent if message[0] not in NOT_KEPT]
        self._away[sid] = (time.monotonic(), deque(kept, maxlen=MESSAGES_PER_CLIENT))
        self._away.move_to_end(sid)
        while len(self._away) > CLIENTS:
            self._away.popitem(last=False)

    def awaits(self, sid: str) -> bool:
        """Is this a client that may come back? May be asked from any thread."""
        return sid in self._away

    def keep(self, event: Any, data: Any, sid: str) -> None:
        """A message to a client that has no line."""
        if sid not in self._away or not isinstance(event, str) or event in NOT_KEPT:
            return
        since, messages = self._away[sid]
        if time.monotonic() - since > SECONDS_KEPT:
            del self._away[sid]
            return
        if event == "executing" and messages and messages[-1][0] == event:
            if _is_next_node(messages[-1][1], data):
                messages.pop()
        messages.append((event, data))

    def when_sent(self, event: Any, data: Any, sid: str | None) -> Callable[[], None] | None:
        """What to do when this message has been sent: an end is not told again after a restart."""
        if event != "executing" or sid is None or self._durable is None:
            return None
        if not isinstance(data, dict) or data.get("node") is not None:
            return None
        return functools.partial(self._durable.note_told, sid, str(data.get("prompt_id")))

    def back(self, sid: str) -> list[Message]:
        """A client has a line again: what it has missed, in order."""
        _, messages = self._away.pop(sid, (0.0, ()))
        missed = list(messages)
        if time.monotonic() - self._started > SECONDS_KEPT:  # who waited for the restart has come back
            self._is_after_restart = False
            self._seen.clear()
        if self._durable is not None and self._is_after_restart and sid not in self._seen:
            told = {data.get("prompt_id") for _, data in missed if isinstance(data, dict)}
            ended = self._durable.ended_lately(sid, SECONDS_BEFORE_A_RESTART, ENDS_AFTER_A_RESTART)
            missed = [message for entry in ended if entry["prompt"][1] not in told
                      for message in _end_of(entry)] + missed
            self._seen.add(sid)
        return missed


def _is_next_node(before: Any, now: Any) -> bool:
    """Is it about the next node of the same prompt? The end of the prompt is kept beside its last node."""
    return bool(before.get("prompt_id") == now.get("prompt_id") and before.get("node") and now.get("node"))


def _end_of(entry: dict[str, Any]) -> Iterator[Message]:
    """What a client hears of a prompt that has ended: what its nodes showed, and how it ended."""
    prompt_id = entry["prompt"][1]
    for node_id, output in entry["outputs"].items():
        display = entry.get("meta", {}).get(node_id, {}).get("display_node", node_id)
        yield "executed", {"node": node_id, "display_node": display, "output": output, "prompt_id": prompt_id}
    for event, data in (entry.get("status") or {}).get("messages", ()):
        if event in ENDS:
            yield event, data
    yield "executing", {"node": None, "prompt_id": prompt_id}

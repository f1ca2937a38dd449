"""Who is told that a job is over: the followers of its events, and its webhooks.

A job of the v2 interface that is taken out of the queue before it ran gets an entry in the history, so that
its client can see that it was cancelled. Other prompts vanish, as clients of ComfyUI expect.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

from app import v2_shapes

log = logging.getLogger(__name__)


def attach(server: Any) -> None:
    """Let the server's queue tell."""
    queue = server.prompt_queue

    def ended(prompt_id: str) -> None:
        try:
            if not queue.stopping or prompt_id in queue.history:
                server.webhooks.ended(prompt_id)
                server.job_logs.end(prompt_id)
        except Exception:  # the worker must take the next prompt whatever a full disk does to a webhook
            log.exception("The end of prompt %s could not be told.", prompt_id)

    def removed(items: Iterable[tuple[Any, ...]]) -> None:
        hooked = server.webhooks.prompt_ids()
        for item in items:
            try:
                if v2_shapes.own_fields(item[3]):
                    with queue.mutex:
                        queue.history[item[1]] = cancelled_entry(item)
                if item[1] in hooked:
                    server.webhooks.removed(item[1])
                server.job_logs.end(item[1])
            except Exception:  # the prompt is out of the queue, and the next ones have to be told
                log.exception("That prompt %s was cancelled could not be told.", item[1])

    queue.when_ended, queue.when_removed = ended, removed


def cancelled_entry(item: tuple[Any, ...]) -> dict[str, Any]:
    """The history of a prompt that was cancelled before it ran."""
    details = {
        "prompt_id": item[1], "node_id": "", "node_type": "", "executed": [],
        "timestamp": int(time.time() * 1000),
    }  # fmt: skip
    status = {
        "status_str": "error", "completed": False, "messages": [["execution_interrupted", details]]
    }
    return {"prompt": tuple(item[:5]), "outputs": {}, "meta": {}, "status": status, "reasons": {}}

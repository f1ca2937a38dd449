"""Carries a node's progress bar to the clients: `progress` messages, node states, previews.

A bar may move thousands of times per second. Its first hundred messages are sent as they come, then 25 per
second, the newest value each time; what is held back goes out at the latest when the node ends.
"""

from __future__ import annotations

import threading
from typing import Any

from comfy import interruption, progress_bar
from comfy_api import feature_flags
from comfy_execution.progress import (
    MESSAGES_AT_ONCE,
    MESSAGES_PER_SECOND,
    MessageBudget,
    NodeProgressState,
    ProgressHandler,
    get_progress_state,
)
from comfy_execution.utils import get_executing_context, is_ahead
from protocol import BinaryEventTypes


class BarMessages(ProgressHandler):
    """Sends the `progress` messages of the running prompt's nodes. Told of their ends by the registry."""

    def __init__(self, server: Any) -> None:
        super().__init__("progress bars")
        self._server = server
        self._budgets: dict[str | None, MessageBudget] = {}
        self._held: dict[str | None, tuple[dict[str, Any], str | None]] = {}
        """By node: the newest message that is not sent yet, and to whom."""
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()  # bars move in threads of nodes, and the timer has its own

    def say(self, node_id: str | None, message: dict[str, Any]) -> None:
        """Send a message, now or in a while unless a newer one comes."""
        with self._lock:
            budget = self._budgets.get(node_id)
            if budget is None:
                budget = self._budgets[node_id] = MessageBudget(MESSAGES_AT_ONCE, MESSAGES_PER_SECOND)
            self._held[node_id] = (message, self._server.client_id)
            if budget.take():
                self._send(node_id)
            elif self._timer is None:
                self._timer = threading.Timer(1 / MESSAGES_PER_SECOND, self._send_all)
                self._timer.daemon = True
                self._timer.start()

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node has ended: so have its bars."""
        with self._lock:
            self._send(node_id)
            self._budgets.pop(node_id, None)

    def reset(self) -> None:
        """Another prompt begins."""
        with self._lock:
            self._held.clear()
            self._budgets.clear()

    def _send(self, node_id: str | None) -> None:
        held = self._held.pop(node_id, None)
        if held is not None:
            self._server.send_sync("progress", *held)

    def _send_all(self) -> None:
        with self._lock:
            self._timer = None
            for node_id in list(self._held):
                self._send(node_id)


def create_hook(server: Any) -> progress_bar.ProgressHook:
    """The function that every progress bar calls; it is also where a long node learns that it shall stop."""

    bars = BarMessages(server)

    def hook(
        value: float, total: float, preview: Any, prompt_id: str | None = None, node_id: str | None = None
    ) -> None:
        interruption.throw_exception_if_processing_interrupted()
        if is_ahead():
            return
        context = get_executing_context()
        prompt_id = prompt_id or (context.prompt_id if context else server.last_prompt_id)
        node_id = node_id or (context.node_id if context else server.last_node_id)
        registry = get_progress_state()
        if bars.name not in registry.handlers:
            registry.register_handler(bars)
        registry.update_progress(node_id, value, total, preview)
        message = {"value": value, "max": total, "prompt_id": prompt_id, "node": node_id}
        bars.say(node_id, message)
        if preview is not None and not knows_metadata(server):
            server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, server.client_id)

    return hook


def knows_metadata(server: Any) -> bool:
    """Does the client get previews with metadata, from the node states?"""
    return feature_flags.supports_feature(
        server.sockets_metadata, server.client_id, "supports_preview_metadata"
    )


def install(server: Any) -> None:
    """Let progress bars report to the server."""
    progress_bar.set_progress_bar_global_hook(create_hook(server))

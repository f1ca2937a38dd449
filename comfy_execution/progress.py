"""Progress of the nodes of the running prompt.

The registry holds a state per node; handlers carry it to whoever watches. The web handler sends
`progress_state` messages. A message has the nodes that changed since the last one and those that run now,
and messages are limited in rate, so that all of them together stay linear in the number of nodes; the last
state of every node is sent in any case.
"""

from __future__ import annotations

import threading
import time
from enum import Enum
from typing import Any, TypedDict

from comfy_execution.dynamic_prompt import DynamicPrompt

PREVIEW_IMAGE_WITH_METADATA = 4  # the event's number on the websocket
MESSAGES_AT_ONCE = 100
MESSAGES_PER_SECOND = 25.0
RUNNING_NODES_PER_MESSAGE = 64


class NodeState(Enum):
    """What a node is doing."""

    Pending = "pending"
    Running = "running"
    Finished = "finished"
    Error = "error"


class NodeProgressState(TypedDict):
    """A node's state and how far it is: `value` of `max`."""

    state: NodeState
    value: float
    max: float


class ProgressHandler:
    """Gets told of progress. Node packs subclass it and register with `add_progress_handler`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.enabled = True

    def set_registry(self, registry: ProgressRegistry) -> None:
        """The registry that this handler was added to."""

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node starts."""

    def update_handler(
        self,
        node_id: str,
        value: float,
        max_value: float,
        state: NodeProgressState,
        prompt_id: str,
        image: Any = None,
    ) -> None:
        """A node got further. `image` is (format, PIL picture, longest side or None) or None."""

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node has finished, or failed: `state` says which."""

    def reset(self) -> None:
        """Another prompt begins."""

    def flush(self) -> None:
        """The prompt ends: nothing may be held back any more."""

    def enable(self) -> None:
        """Go on."""
        self.enabled = True

    def disable(self) -> None:
        """Do not call this handler until it is enabled."""
        self.enabled = False


class ProgressRegistry:
    """States of the nodes of one prompt."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt) -> None:
        self.prompt_id = prompt_id
        self.dynprompt = dynprompt
        self.nodes: dict[str, NodeProgressState] = {}
        self.handlers: dict[str, ProgressHandler] = {}

    def register_handler(self, handler: ProgressHandler) -> None:
        """Add a handler; one of the same name is replaced."""
        self.handlers[handler.name] = handler

    def unregister_handler(self, handler_name: str) -> None:
        """Remove a handler, if it is there."""
        handler = self.handlers.pop(handler_name, None)
        if handler is not None:
            handler.reset()

    def enable_handler(self, handler_name: str) -> None:
        """Let a handler go on."""
        if handler_name in self.handlers:
            self.handlers[handler_name].enable()

    def disable_handler(self, handler_name: str) -> None:
        """Let a handler rest."""
        if handler_name in self.handlers:
            self.handlers[handler_name].disable()

    def ensure_entry(self, node_id: str) -> NodeProgressState:
        """The state of a node, pending at first."""
        entry = self.nodes.get(node_id)
        if entry is None:
            entry = self.nodes[node_id] = NodeProgressState(state=NodeState.Pending, value=0, max=1)
        return entry

    def start_progress(self, node_id: str) -> None:
        """A node starts."""
        entry = self.nodes.get(node_id)
        if entry is None:  # the usual case, once per node
            entry = self.nodes[node_id] = {"state": NodeState.Running, "value": 0.0, "max": 1.0}
        else:
            entry["state"], entry["value"], entry["max"] = NodeState.Running, 0.0, 1.0
        for handler in self.handlers.values():
            if handler.enabled:
                handler.start_handler(node_id, entry, self.prompt_id)

    def update_progress(self, node_id: str, value: float, max_value: float, image: Any = None) -> None:
        """A node got to `value` of `max_value`."""
        entry = self.ensure_entry(node_id)
        entry["state"], entry["value"], entry["max"] = NodeState.Running, value, max_value
        for handler in self.handlers.values():
            if handler.enabled:
                handler.update_handler(node_id, value, max_value, entry, self.prompt_id, image)

    def finish_progress(self, node_id: str) -> None:
        """A node has finished."""
        entry = self.ensure_entry(node_id)
        entry["state"], entry["value"] = NodeState.Finished, entry["max"]
        for handler in self.handlers.values():
            if handler.enabled:
                handler.finish_handler(node_id, entry, self.prompt_id)

    def fail_progress(self, node_id: str) -> None:
        """A node has failed or was interrupted."""
        entry = self.ensure_entry(node_id)
        entry["state"] = NodeState.Error
        for handler in self.handlers.values():
            if handler.enabled:
                handler.finish_handler(node_id, entry, self.prompt_id)

    def reset_handlers(self) -> None:
        """Another prompt begins."""
        for handler in self.handlers.values():
            handler.reset()

    def flush_handlers(self) -> None:
        """The prompt ends: let nothing be held back."""
        for handler in self.handlers.values():
            handler.flush()


class MessageBudget:
    """A token bucket: `at_once` messages, then `per_second`."""

    def __init__(self, at_once: int, per_second: float) -> None:
        self._size = float(at_once)
        self._tokens = self._size
        self._per_second = per_second
        self._then = time.monotonic()

    def take(self) -> bool:
        """May a message go out now?"""
        now = time.monotonic()
        self._tokens = min(self._size, self._tokens + (now - self._then) * self._per_second)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class WebUIProgressHandler(ProgressHandler):
    """Sends `progress_state` and preview pictures to the client of the prompt (to all, if it has none)."""

    def __init__(self, server_instance: Any) -> None:
        super().__init__("webui")
        self.server_instance = server_instance
        self.registry: ProgressRegistry | None = None
        self._changed: dict[str, None] = {}
        self._running: dict[str, None] = {}
        self._budget = MessageBudget(MESSAGES_AT_ONCE, MESSAGES_PER_SECOND)
        self._timer: threading.Timer | None = None
        # Progress bars may be driven from threads of a node, and the timer has its own.
        self._lock = threading.RLock()

    def set_registry(self, registry: ProgressRegistry) -> None:
        """The registry to read states from."""
        self.registry = registry

    def start_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node starts."""
        with self._lock:
            self._running[node_id] = self._changed[node_id] = None
            if self._timer is None:
                self._tell()

    def update_handler(
        self,
        node_id: str,
        value: float,
        max_value: float,
        state: NodeProgressState,
        prompt_id: str,
        image: Any = None,
    ) -> None:
        """A node got further; a preview picture is sent at once."""
        with self._lock:
            self._running[node_id] = self._changed[node_id] = None
            if self._timer is None:
                self._tell()
        if image is not None:
            self._send_preview(node_id, prompt_id, image)

    def finish_handler(self, node_id: str, state: NodeProgressState, prompt_id: str) -> None:
        """A node has ended."""
        with self._lock:
            self._running.pop(node_id, None)
            self._changed[node_id] = None
            if self._timer is None:
                self._tell()

    def reset(self) -> None:
        """Another prompt begins: what was held back is not sent any more."""
        with self._lock:
            self._stop_timer()
            self._changed.clear()
            self._running.clear()

    def flush(self) -> None:
        """Send what was held back."""
        with self._lock:
            self._stop_timer()
            if self._changed:
                self._send()

    def _tell(self) -> None:
        """Send now, or in a while together with what comes until then."""
        if not self._is_heard():
            self._changed.clear()
        elif self._budget.take():
            self._send()
        else:
            self._timer = threading.Timer(1 / MESSAGES_PER_SECOND, self._send_later)
            self._timer.daemon = True
            self._timer.start()

    def _is_heard(self) -> bool:
        """Is there anybody to send it to? Who comes later hears what changes then. Hosts without a list of
        clients always listen.
        """
        sockets = getattr(self.server_instance, "sockets", None)
        if sockets is None:
            return True
        client = self.server_instance.client_id
        return bool(sockets) if client is None else client in sockets

    def _send_later(self) -> None:
        with self._lock:
            if self._timer is threading.current_thread():
                self._timer = None
                self._send()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self) -> None:
        """Send the changed nodes. Running ones are named again, because a client replaces what it knew."""
        if self.registry is None or self.server_instance is None:
            return
        node_ids = self._changed
        if len(self._running) <= RUNNING_NODES_PER_MESSAGE:
            node_ids = {**self._running, **self._changed}
        nodes = {node_id: self._describe(node_id) for node_id in node_ids if node_id in self.registry.nodes}
        self._changed = {}
        data = {"prompt_id": self.registry.prompt_id, "nodes": nodes}
        self.server_instance.send_sync("progress_state", data, self.server_instance.client_id)

    def _describe(self, node_id: str) -> dict[str, Any]:
        assert self.registry is not None
        entry = self.registry.nodes[node_id]
        return {
            "value": entry["value"],
            "max": entry["max"],
            "state": entry["state"].value,
            **self._identity(node_id, self.registry.prompt_id),
        }

    def _identity(self, node_id: str, prompt_id: str) -> dict[str, Any]:
        assert self.registry is not None
        dynprompt = self.registry.dynprompt
        return {
            "node_id": node_id,
            "prompt_id": prompt_id,
            "display_node_id": dynprompt.get_display_node_id(node_id),
            "parent_node_id": dynprompt.get_parent_node_id(node_id),
            "real_node_id": dynprompt.get_real_node_id(node_id),
        }

    def _send_preview(self, node_id: str, prompt_id: str, image: Any) -> None:
        server = self.server_instance
        if self.registry is None or server is None:
            return
        client = getattr(server, "sockets_metadata", {}).get(server.client_id, {})
        if client.get("feature_flags", {}).get("supports_preview_metadata"):
            message = (image, self._identity(node_id, prompt_id))
            server.send_sync(PREVIEW_IMAGE_WITH_METADATA, message, server.client_id)


# The registry of the prompt that runs in this process: node packs and progress bars reach it from anywhere.
_registry: ProgressRegistry | None = None


def reset_progress_state(prompt_id: str, dynprompt: DynamicPrompt) -> None:
    """Another prompt begins."""
    global _registry
    if _registry is not None:
        _registry.reset_handlers()
    _registry = ProgressRegistry(prompt_id, dynprompt)


def get_progress_state() -> ProgressRegistry:
    """The registry of the running prompt (an empty one before the first)."""
    global _registry
    if _registry is None:
        _registry = ProgressRegistry("", DynamicPrompt({}))
    return _registry


def add_progress_handler(handler: ProgressHandler) -> None:
    """Let a handler watch the running prompt."""
    registry = get_progress_state()
    handler.set_registry(registry)
    registry.register_handler(handler)

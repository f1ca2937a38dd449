"""What an executor needs of its host: somewhere to send events. A web server, a test and a script are
hosts.
"""

from __future__ import annotations

from typing import Any, Protocol


class EventSink(Protocol):
    """Receives events. `client_id` names the client of the running prompt, None when nobody listens."""

    client_id: str | None
    last_node_id: str | None

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Send an event to one client, or to all with sid None. Called from the worker's thread."""


class QueueHost(Protocol):
    """Is told when the queue changed."""

    def queue_updated(self) -> None:
        """The number of waiting prompts changed."""

"""What waits to be sent to one client. Every client has a line of its own, so that one that takes its
messages slowly, or not at all, holds up nobody else.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import web

# A client that takes nothing for so long is disconnected, and what waits for it is given up.
SECONDS_TO_TAKE_SOMETHING = 30
FAILED_MESSAGES_KEPT = 500

WhenSent = Callable[[], None] | None


class ClientLine:
    """Sends the messages of one client in order; ends with its websocket. A text goes out as a text."""

    def __init__(self, name: str, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.name = name
        self._socket = socket
        self._transport = transport
        self._waiting: deque[tuple[str | bytes, WhenSent]] = deque()
        self._failed: deque[str | bytes] = deque(maxlen=FAILED_MESSAGES_KEPT)
        self._filled = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._carry())

    def put(self, message: str | bytes, when_sent: WhenSent = None) -> None:
        """Send this after what waits already. `when_sent` is called when the system has taken it; perhaps not
        for a client that takes its messages slowly.
        """
        self._waiting.append((message, when_sent))
        self._filled.set()

    def close(self) -> list[tuple[str, Any]]:
        """Send nothing more; gives the named messages that were not sent."""
        self._task.cancel()
        unsent = (*self._failed, *(message for message, _ in self._waiting))
        texts = [text for text in unsent if isinstance(text, str)]
        messages = [json.loads(text) for text in texts]
        return [(message["type"], message["data"]) for message in messages]

    async def _carry(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                # A timer instead of wait_for: it costs no task, and there may be thousands of messages.
                watchdog = _Watchdog(self)
                message, when_sent = self._waiting.popleft()
                try:
                    await self._send(message)
                    if when_sent is not None and not self._transport.get_write_buffer_size():
                        when_sent()
                except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
                    self._failed.append(message)
                    logging.debug("Client %s is gone: %s", self.name, error)
                finally:
                    watchdog.cancel()

    async def _send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._socket.send_str(message)
        else:
            await self._socket.send_bytes(message)


class _Watchdog:
    """Disconnects a client whose backlog has not become shorter since the last look."""

    def __init__(self, line: ClientLine) -> None:
        self._line = line
        self._bytes_before: int | None = None
        self._start()

    def _start(self) -> None:
        self._timer = self._line._loop.call_later(SECONDS_TO_TAKE_SOMETHING, self._look)

    def cancel(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left = self._line._transport.get_write_buffer_size()
        if self._bytes_before is None or left < self._bytes_before:
            self._bytes_before = left
            self._start()
            return
        logging.warning("Client %s takes no messages and is disconnected.", self._line.name)
        self._line._transport.abort()

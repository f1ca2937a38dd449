"""An HTTP client that costs little: on a small machine a usual one takes as much time as the server.

Requests are made before time starts. Each connection posts one after the other, and only the length and the
status of an answer are looked at.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit


def request(url: str, body: Any) -> bytes:
    """POST /prompt with this JSON."""
    content = json.dumps(body).encode()
    head = (
        f"POST /prompt HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class _Connection(asyncio.Protocol):
    """Posts what is left of `requests` until there is nothing more; then `done` has its result."""

    def __init__(self, requests: list[bytes], seconds: list[float]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._seconds = seconds
        self._answer = b""
        self._start = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._post()

    def _post(self) -> None:
        if not self._requests:
            self.done.set_result(None)
            self._transport.close()
            return
        self._start = time.perf_counter()
        self._transport.write(self._requests.pop())

    def data_received(self, data: bytes) -> None:
        """Once the answer is whole, post the next one."""
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        if b" 200 " not in head.split(b"\r\n")[0]:
            self.done.set_exception(RuntimeError(self._answer[:500].decode(errors="replace")))
            self._transport.close()
            return
        self._seconds.append(time.perf_counter() - self._start)
        self._answer = b""
        self._post()

    def connection_lost(self, error: Exception | None) -> None:
        """The server has closed it."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


async def post_all(url: str, bodies: Iterable[Any], clients: int) -> tuple[float, list[float]]:
    """Post all over so many connections: (seconds in all, seconds of each). RuntimeError for a refusal."""
    requests = [request(url, body) for body in bodies]
    seconds: list[float] = []
    place = urlsplit(url)
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: _Connection(requests, seconds), place.hostname, place.port))[1]
        for _ in range(clients)
    ]
    await asyncio.gather(*(connection.done for connection in connections))
    return time.perf_counter() - start, seconds

"""A small read-only file server: a library on another machine, and the origin of `make demo`.

Ranges, `ETag` and `If-Range` are served, so a download may use many connections and go on after a break.
`GET /manifest.json` gives a manifest of every model below the folder, made for the address that was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from aiohttp import web

from comfy_depot import layout
from comfy_depot.errors import UnsafeName

CHUNK = 1 << 18
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Span:
    """A part of a file: the first byte and how many."""

    start: int
    length: int


class Throttle:
    """Lets so many bytes per second through, all connections together; 0 is no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second
        self._free_at = 0.0

    def chunk(self) -> int:
        """How many bytes to send at once: a twentieth of a second's worth, so that the rate is even."""
        return min(CHUNK, max(1 << 12, self.bytes_per_second // 20)) if self.bytes_per_second else CHUNK

    async def wait_for(self, size: int) -> None:
        """Return when `size` more bytes may be sent."""
        if not self.bytes_per_second:
            return
        now = time.monotonic()
        self._free_at = max(now, self._free_at) + size / self.bytes_per_second
        await asyncio.sleep(self._free_at - now)


class Library:
    """The files below one folder, over HTTP."""

    def __init__(self, directory: Path, *, token: str | None = None, rate: int = 0) -> None:
        self.directory = directory.resolve()
        self.token = token
        self.throttle = Throttle(rate)

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(middlewares=[self._authorise])
        application.router.add_get("/manifest.json", self.manifest)
        application.router.add_get("/{name:.*}", self.file)
        return application

    @web.middleware
    async def _authorise(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if self.token is not None and not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            raise web.HTTPUnauthorized(text="Send the header 'Authorization: Bearer TOKEN'.\n")
        return await handler(request)

    async def manifest(self, request: web.Request) -> web.Response:
        """A manifest whose urls lead here."""
        names = await asyncio.to_thread(self.names)
        origin = f"{request.scheme}://{request.host}"
        content: dict[str, dict[str, Any]] = {}
        for name, size in names:
            folder, _, file = name.partition("/")
            entry: dict[str, Any] = {"url": f"{origin}/{quote(name)}", "size": size}
            if self.token is not None:
                entry["headers"] = {"Authorization": "Bearer $DEPOT_TOKEN"}
            if file:
                content.setdefault(folder, {})[file] = entry
        return web.json_response(content)

    def names(self) -> list[tuple[str, int]]:
        """(name with "/", bytes) of every file that may be asked for."""
        found = []
        for path, subfolders, files in os.walk(self.directory):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for file in files:
                full = Path(path, file)
                if self._find(full.relative_to(self.directory).as_posix()) is not None:
                    found.append((full.relative_to(self.directory).as_posix(), full.stat().st_size))
        return sorted(found)

    def _find(self, name: str) -> Path | None:
        """The file of a name, when it lies inside the folder."""
        try:
            file = layout.destination(self.directory, name)
        except UnsafeName:
            return None
        inside = self.directory in file.resolve().parents
        return file if inside and file.is_file() else None

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file or a part of it."""
        file = self._find(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound(text="There is no such file. GET /manifest.json lists what there is.\n")
        return await send_file(request, file, self.throttle)


async def send_file(request: web.Request, file: Path, throttle: Throttle) -> web.StreamResponse:
    """Answer with a file, or with the part of it that the request names."""
    with file.open("rb") as stream:
        status = os.fstat(stream.fileno())
        etag = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        wanted = request.headers.get("Range") if request.headers.get("If-Range", etag) == etag else None
        span = parse_range(wanted, status.st_size)
        if span is None:
            unsatisfied = {"Content-Range": f"bytes */{status.st_size}"}
            raise web.HTTPRequestRangeNotSatisfiable(headers=unsatisfied)
        response = web.StreamResponse(status=200 if wanted is None else 206, headers=headers)
        if wanted is not None:
            last = span.start + span.length - 1
            response.headers["Content-Range"] = f"bytes {span.start}-{last}/{status.st_size}"
        response.content_length = span.length
        try:
            await response.prepare(request)
            if request.method != "HEAD":
                await _send(response, stream, span, throttle)
            await response.write_eof()
        except ConnectionResetError:  # the client has what it wanted, or gave up
            pass
    return response


async def _send(
    response: web.StreamResponse, stream: BinaryIO, span: Span, throttle: Throttle
) -> None:
    stream.seek(span.start)
    left = span.length
    while left > 0:
        chunk = await asyncio.to_thread(stream.read, min(left, throttle.chunk()))
        if not chunk:  # the file has become shorter: the client notices by the length
            return
        await throttle.wait_for(len(chunk))
        await response.write(chunk)
        left -= len(chunk)


def parse_range(header: str | None, size: int) -> Span | None:
    """The part that a Range header names (the whole file without one); None when it cannot be satisfied."""
    if header is None:
        return Span(0, size)
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        return Span(size - length, length) if length else None
    start = int(found[1])
    end = min(int(found[2]), size - 1) if found[2] else size - 1
    return Span(start, end - start + 1) if start <= end else None


def run(library: Library, address: str, port: int, *, on_start: Callable[[str], None]) -> None:
    """Serve until interrupted; `on_start` gets the url once the port is open."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(library, address, port, on_start))


async def _serve_forever(library: Library, address: str, port: int, on_start: Callable[[str], None]) -> None:
    runner = web.AppRunner(library.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port)
        await site.start()
        host = f"[{address}]" if ":" in address else address
        on_start(f"http://{host}:{runner.addresses[0][1]}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()

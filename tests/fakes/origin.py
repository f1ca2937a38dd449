"""A real HTTP origin in a thread: ranges, validators, throttles, signed redirects and faults on request.

    with Origin(rate_per_connection=1 << 20) as origin:
        url = origin.put("/model.safetensors", body)
        ...
        assert origin.bytes_sent("/model.safetensors") == len(body)

`127.0.0.1` and `localhost` are two hosts to a client, and both reach this origin:
`origin.at("localhost", url)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import urlsplit

from aiohttp import web

CHUNK = 1 << 14
SEND_BUFFER = 1 << 16
CREDIT_SECONDS = 0.1  # what a late timer may make good; no credit at the start


def weights(size: int, seed: int = 0) -> bytes:
    """`size` bytes that look random, differ at every offset, and cost little to make."""
    block = hashlib.shake_256(str(seed).encode()).digest(min(size, 1 << 18))
    return (block * (size // max(len(block), 1) + 1))[:size]


def safetensors(size: int, seed: int = 0) -> bytes:
    """A valid safetensors file with one tensor; exactly `size` bytes (at least 128)."""
    text = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'
    room = 120
    header = (text % (size - 8 - room, size - 8 - room)).ljust(room)
    return room.to_bytes(8, "little") + header + weights(size - 8 - room, seed)


def sha256(body: bytes) -> str:
    """Lower-case hexadecimal digest."""
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; see `Asset.fault_for`."""

    status: int | None = None  # this status instead of the file
    retry_after: str | None = None
    truncate_at: int | None = None  # the connection ends after so many bytes of a body, cleanly
    reset_at: int | None = None  # the connection is reset after so many bytes of a body
    stall_at: int | None = None  # nothing more comes after so many bytes, and the connection stays open
    ignores_range: bool = False  # the whole file with 200


@dataclass
class Asset:
    """What stands at a path, and how it misbehaves. Change the fields while the origin runs."""

    body: bytes = b""
    etag: str | None = ""  # "" : made from the body; None: no ETag
    last_modified: float | None = 1_700_000_000.0
    ranges: bool = True
    length_known: bool = True
    content_type: str = "application/octet-stream"
    token: str | None = None  # 401 unless `Authorization: Bearer <token>`
    status: int | None = None  # always this status
    statuses: list[int] = field(default_factory=list)  # answered first, one per request, then normal
    retry_after: str | None = None
    truncate_at: int | None = None  # the connection ends after so many bytes of a body, cleanly
    reset_at: int | None = None  # the connection is reset after so many bytes of a body
    resets_left: int = 1 << 30  # how many times truncate_at / reset_at still happen
    redirect_to: str | None = None
    signed_ttl: float | None = None  # 302 to a signed path that is valid so many seconds
    signed_host: str | None = None
    delay: float = 0.0  # seconds before the answer
    rate: float | None = None  # bytes per second, over all connections to this asset
    fault_for: Callable[[Hit], Fault | None] | None = None  # asked for each answer that would hold the file
    swap_after: int | None = None  # so many bytes of bodies later the asset is `swap_to`
    swap_to: bytes = b""

    _throttle: Throttle | None = None
    _digested: tuple[bytes, str] | None = None

    def swap(self, sent: int) -> None:
        """Count bytes that have left, and become another file in time."""
        if self.swap_after is not None:
            self.swap_after -= sent
            if self.swap_after <= 0:
                self.body, self.swap_after = self.swap_to, None

    def validator(self) -> str | None:
        """The ETag with its quotes; the digest of a body is made once."""
        if self.etag != "":
            return self.etag
        if self._digested is None or self._digested[0] is not self.body:
            self._digested = (self.body, sha256(self.body)[:20])
        return f'"{self._digested[1]}"'


@dataclass
class Hit:
    """One request as the origin saw it; `sent` counts body bytes and grows while the answer is written."""

    method: str
    path: str
    query: str
    host: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")


class Throttle:
    """Hands out moments at which the next bytes may leave, so that `rate` bytes per second are not passed."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self._free_at = 0.0

    def delay(self, size: int) -> float:
        """Seconds to wait before `size` more bytes may leave."""
        if not self.rate:
            return 0.0
        now = time.monotonic()
        start = max(now - CREDIT_SECONDS, self._free_at or now)
        self._free_at = start + size / self.rate
        return max(0.0, self._free_at - now)


class Origin:
    """The server; a context manager. Rates are bytes per second and may be changed while it runs."""

    def __init__(
        self,
        *,
        rate_per_connection: float | None = None,
        rate_total: float | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.rate_per_connection = rate_per_connection
        self.total = Throttle(rate_total)
        self.host, self.port = host, port
        self.assets: dict[str, Asset] = {}
        self.log: list[Hit] = []
        self._throttles: dict[object, Throttle] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="origin", daemon=True)

    def __enter__(self) -> Origin:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the fake origin did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """Base address without a final slash."""
        return f"http://{self.host}:{self.port}"

    @property
    def netloc(self) -> str:
        """host:port"""
        return f"{self.host}:{self.port}"

    def put(self, path: str, body: bytes = b"", **behaviour: object) -> str:
        """Place an asset (fields of Asset) and return its URL."""
        self.assets[path] = Asset(body, **behaviour)  # type: ignore[arg-type]
        return self.url + path

    def at(self, host: str, url: str) -> str:
        """The same URL under another name of this machine."""
        return url.replace(f"://{self.host}:", f"://{host}:")

    def hits(self, path: str | None = None, method: str | None = None) -> list[Hit]:
        """Requests so far, in order."""
        return [h for h in list(self.log) if path in (None, h.path) and method in (None, h.method)]

    def bytes_sent(self, path: str | None = None) -> int:
        """Body bytes that left for `path` (for all paths when None)."""
        return sum(h.sent for h in self.hits(path))

    # -- the server's side

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self._ready.set()
        await self._stop.wait()
        await asyncio.sleep(0.005)  # what was accepted just now becomes a connection
        await runner.cleanup()
        await asyncio.sleep(0.005)  # transports close one turn later

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        # what lies in buffers of ours has not left: keep them small, so that `sent` is true
        if transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            transport.set_write_buffer_limits(high=CHUNK)
        path = urlsplit(str(request.rel_url)).path
        headers = {k.lower(): v for k, v in request.headers.items()}
        hit = Hit(request.method, path, request.query_string, request.headers.get("Host", ""), headers)
        self.log.append(hit)
        asset, refusal = self._find(request, path)
        if refusal is None and asset is not None:
            if asset.delay:
                await asyncio.sleep(asset.delay)
            response = self._redirect(asset, request, path) or await self._answer_with(request, asset, hit)
        else:
            response = refusal or web.Response(status=404, text="no such file here")
        hit.status = response.status
        return response

    def _find(self, request: web.Request, path: str) -> tuple[Asset | None, web.Response | None]:
        """The asset of a path, or the answer that says why not."""
        if path.startswith("/signed/"):
            if float(request.query.get("expires", 0)) < time.time():
                return None, web.Response(status=403, text="the signature has expired")
            path = path[len("/signed") :]
            return self.assets.get(path), None
        asset = self.assets.get(path)
        if asset is None:
            return None, None
        status = asset.status or (asset.statuses.pop(0) if asset.statuses else None)
        if status is None and asset.token and request.headers.get("Authorization") != f"Bearer {asset.token}":
            status = 401
        if status is None:
            return asset, None
        headers = {"Retry-After": asset.retry_after} if asset.retry_after else {}
        return asset, web.Response(status=status, headers=headers, text=f"status {status}")

    def _redirect(self, asset: Asset, request: web.Request, path: str) -> web.Response | None:
        """The 302 of an asset that lives elsewhere; None when it is served here."""
        if request.path.startswith("/signed/"):
            return None
        if asset.redirect_to:
            return web.Response(status=302, headers={"Location": asset.redirect_to})
        if asset.signed_ttl is not None:
            host = asset.signed_host or self.host
            where = (
                f"http://{host}:{self.port}/signed{path}?expires={time.time() + asset.signed_ttl}&sig=SECRET"
            )
            return web.Response(status=302, headers={"Location": where})
        return None

    async def _answer_with(self, request: web.Request, asset: Asset, hit: Hit) -> web.StreamResponse:
        fault = (asset.fault_for(hit) if asset.fault_for else None) or Fault(
            truncate_at=asset.truncate_at, reset_at=asset.reset_at
        )
        if fault.status is not None:
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return web.Response(status=fault.status, headers=headers, text=f"status {fault.status}")
        return await self._send(request, asset, hit, fault)

    async def _send(self, request: web.Request, asset: Asset, hit: Hit, fault: Fault) -> web.StreamResponse:
        body, validator = asset.body, asset.validator()
        start, end, status = 0, len(body), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if wanted and asset.ranges and not fault.ignores_range and self._fresh(request, asset):
            start = int(wanted[1])
            end = min(int(wanted[2]) + 1 if wanted[2] else len(body), len(body))
            status = 206
            if start >= len(body):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
        response = web.StreamResponse(status=status, headers={"Content-Type": asset.content_type})
        if validator is not None:
            response.headers["ETag"] = validator
        if asset.last_modified is not None:
            response.headers["Last-Modified"] = formatdate(asset.last_modified, usegmt=True)
        if asset.ranges:
            response.headers["Accept-Ranges"] = "bytes"
        if status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        if asset.length_known:
            response.content_length = end - start
        hit.status = status
        with contextlib.suppress(ConnectionError):  # the client has gone meanwhile
            await response.prepare(request)
            if request.method != "HEAD":
                await self._pour(request, response, (asset, fault, hit), memoryview(body)[start:end])
        return response

    def _fresh(self, request: web.Request, asset: Asset) -> bool:
        """Whether an If-Range header still names what stands here."""
        wanted = request.headers.get("If-Range")
        if wanted is None:
            return True
        dated = formatdate(asset.last_modified, usegmt=True) if asset.last_modified is not None else None
        return wanted in (asset.validator(), dated)

    async def _pour(
        self,
        request: web.Request,
        response: web.StreamResponse,
        what: tuple[Asset, Fault, Hit],
        view: memoryview,
    ) -> None:
        """Write the body at the pace of the throttles, with the fault of this answer."""
        asset, fault, hit = what
        own = self._throttles.setdefault(request.transport, Throttle(None))
        if asset._throttle is None:
            asset._throttle = Throttle(asset.rate)
        ends = (fault.truncate_at, fault.reset_at, fault.stall_at)
        stop_at = min((n for n in ends if n is not None), default=None)
        for offset in range(0, len(view), CHUNK):
            piece = view[offset : offset + CHUNK]
            if stop_at is not None and hit.sent + len(piece) > stop_at and asset.resets_left > 0:
                asset.resets_left -= 1
                await self._break(request, fault)
                return
            own.rate = self.rate_per_connection
            throttles = (own, self.total, asset._throttle)
            pause = max(throttle.delay(len(piece)) for throttle in throttles)
            if pause > 0.002:
                await asyncio.sleep(pause)
            try:
                await response.write(piece)
            except ConnectionError:
                return
            hit.sent += len(piece)
            asset.swap(len(piece))

    async def _break(self, request: web.Request, fault: Fault) -> None:
        transport = request.transport
        if transport is None:
            return
        await asyncio.sleep(0.01)  # what was written before may still leave
        if fault.stall_at is not None:
            while not transport.is_closing() and not self._stop.is_set():
                await asyncio.sleep(0.05)
        elif fault.reset_at is not None:
            transport.abort()
        else:
            transport.close()

"""Requests that a client's words lead to: each connection is opened by the depot's gate, and redirects are
followed here, step by step, under the same rules.

Which hosts may be asked is an option: `any` is every host with a public address, `off` none, and a list these
alone. Addresses that are not public need to be in the list or in `--depot-allow-hosts`.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from comfy_depot import gate

AGENT = "comfyui-depot"
MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
PIECE = 1 << 16


class RefusedError(Exception):
    """An address that must not be asked; the text says why and what would allow it."""


class UnreachableError(Exception):
    """There was no answer, or it broke off."""


@dataclass(frozen=True)
class Hosts:
    """Whom requests may go to. `option` is the option that says so, for messages."""

    option: str
    chosen: str | tuple[str, ...] = "any"
    private: tuple[str, ...] = ()

    @property
    def is_off(self) -> bool:
        """May nobody be asked?"""
        return self.chosen == "off"

    @property
    def allow(self) -> tuple[str, ...]:
        """Hosts whose addresses need not be public."""
        return (*self.private, *(self.chosen if isinstance(self.chosen, tuple) else ()))

    def check(self, url: str) -> tuple[str, str, int]:
        """(scheme, host, port) of an address that may be asked; RefusedError for others."""
        try:
            parts = urlsplit(url)
            scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
            port = parts.port or (443 if scheme == "https" else 80)
            host.encode("idna")
        except ValueError as error:  # UnicodeError is one
            raise RefusedError(f"{shown(url)} is no address: {error}") from None
        if scheme not in ("http", "https") or not host or parts.username or parts.password:
            raise RefusedError(f"{shown(url)} is no plain http(s) address without a user name")
        if self.is_off:
            raise RefusedError(f"this server asks no other one ({self.option} off)")
        if isinstance(self.chosen, tuple) and not {host, f"{host}:{port}"} & set(self.chosen):
            raise RefusedError(f"{host} is not among the hosts of {self.option}")
        return scheme, host, port


def hosts_of(options: object, option: str, chosen: str | tuple[str, ...]) -> Hosts:
    """Whom an option with this value lets requests go to."""
    return Hosts(option, chosen, tuple(getattr(options, "depot_allow_hosts", ()) or ()))


def shown(url: str) -> str:
    """An address that may be shown: no query, no user name, not long."""
    plain = url.partition("?")[0].partition("#")[0]
    scheme, found, rest = plain.partition("://")
    if found:
        host, slash, path = rest.partition("/")
        plain = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return plain if len(plain) <= 200 else plain[:200] + "…"


class Answer:
    """The answer to a request: `status`, `headers` (small letters), `url` where it came from."""

    def __init__(self, response: http.client.HTTPResponse, url: str, deadline: float) -> None:
        self._response, self._deadline = response, deadline
        self.status, self.url = response.status, url
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        length = self.headers.get("content-length", "")
        self.size = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None

    def pieces(self) -> Iterator[bytes]:
        """The body. UnreachableError when it breaks off, is shorter than was said, or is late."""
        came = 0
        try:
            while piece := self._response.read1(PIECE):
                came += len(piece)
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{shown(self.url)} broke off after {came:,} bytes ({error})") from None
        if time.monotonic() >= self._deadline:
            raise UnreachableError(f"{shown(self.url)} was not done in time; {came:,} bytes had come")
        if self.size is not None and came != self.size:
            raise UnreachableError(f"{shown(self.url)} sent {came:,} of {self.size:,} bytes")


@contextlib.contextmanager
def request(
    method: str, url: str, hosts: Hosts, *, seconds: float, headers: Mapping[str, str] | None = None,
    body: bytes | None = None, follows: Iterable[int] = REDIRECTS,
) -> Iterator[Answer]:
    """Ask, and follow redirects of these kinds. `seconds` is for all of it. Raises RefusedError for an
    address that must not be asked, UnreachableError when there is no answer.
    """
    deadline, follows = time.monotonic() + seconds, tuple(follows)
    for _ in range(MOST_REDIRECTS + 1):
        connection = _connect(url, hosts, deadline)
        # Limits of single reads do not end an answer that comes byte by byte.
        watch = threading.Timer(max(0.0, deadline - time.monotonic()), _shut, (connection.sock,))
        watch.daemon = True
        watch.start()
        try:
            answer = _ask(connection, method, url, headers or {}, body, deadline)
            if answer.status not in follows or "location" not in answer.headers:
                yield answer
                return
        finally:
            watch.cancel()
            connection.close()
        onward = urljoin(url, answer.headers["location"])
        if url.lower().startswith("https:") and not onward.lower().startswith("https:"):
            raise RefusedError(f"{shown(url)} redirects to {shown(onward)} without encryption")
        url = onward
    raise RefusedError(f"{shown(url)}: more than {MOST_REDIRECTS} redirects")


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _connect(url: str, hosts: Hosts, deadline: float) -> http.client.HTTPConnection:
    scheme, host, port = hosts.check(url)
    left = max(0.1, deadline - time.monotonic())
    connection = http.client.HTTPConnection(host, port)
    try:
        sock = gate.connect(host, port, hosts.allow, min(left, gate.CONNECT_SECONDS))
        sock.settimeout(left)
        connection.sock = _tls().wrap_socket(sock, server_hostname=host) if scheme == "https" else sock
    except gate.AddressRefused as error:
        raise RefusedError(
            f"{error}. If it is yours, start the server with {hosts.option} {host} (or --depot-allow-hosts)"
        ) from None
    except OSError as error:
        raise UnreachableError(f"{shown(url)} cannot be reached ({error.strerror or error})") from None
    connection.default_port = 443 if scheme == "https" else 80
    return connection


def _ask(
    connection: http.client.HTTPConnection, method: str, url: str, headers: Mapping[str, str],
    body: bytes | None, deadline: float,
) -> Answer:
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]|")
    try:
        connection.request(
            method, target + (f"?{query}" if query else ""), body,
            {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers},
        )
        return Answer(connection.getresponse(), url, deadline)
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{shown(url)} gave no answer ({error or type(error).__name__})") from None


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()

"""The gate: every connection of a download is opened here, after its address was looked at.

aria2 follows redirects and resolves names by itself, so a check before the start proves nothing about
where it connects in the end. Therefore aria2 is given no way out but this proxy, and each transfer holds
a pass that leads to exactly one host and port: a redirect to elsewhere, or a name that suddenly means
127.0.0.1, meets a closed door. Our own requests use `connect` directly.

The proxy runs as a small process of its own (standard library only): a busy interpreter lock in the server
cannot slow downloads down, and when the server dies, however it dies, the pipe from it breaks and the process
takes aria2c with it at once. Since all bytes come through here, this is also where downloads that somebody
waits for get the link before others (`lanes.py`).

    server --pipe--> gate --child--> aria2c
                      ^                 |
                      '----- CONNECT ---'
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import ipaddress
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from comfy_depot.lanes import Lane, Lanes
from comfy_depot.ways import Copying, Way

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 120.0
HEAD_BYTES = 1 << 14
NOT_PUBLIC = [ipaddress.ip_network(network) for network in (
    "168.63.129.16/32",  # at Azure the host of a virtual machine, although the address is a public one
    "192.0.0.0/24", "192.88.99.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24",
    "fec0::/10", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
    "::/96",
)]
"""What versions of Python take for public, or not all of them know."""
RELAY_BYTES = 1 << 18  # also the buffer towards aria2: what is in it is lost by a crash


class AddressRefused(OSError):
    """A host's address is one the depot must not talk to."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet; what is embedded in an IPv6 address counts too."""
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    if any(ip in network for network in NOT_PUBLIC):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def connect(
    host: str, port: int, allow_hosts: Iterable[str] = (), timeout: float = CONNECT_SECONDS,
    *, buffer_bytes: int = 0,
) -> socket.socket:
    """A TCP connection to `host`, only at addresses that were looked at; raises AddressRefused or OSError.

    `allow_hosts` holds "host" or "host:port"; for those every address is good.
    """
    allowed = {host.lower(), f"{host.lower()}:{port}"} & {h.lower() for h in allow_hosts}
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, proto, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not allowed and not is_public(str(address[0])):
            failure = AddressRefused(f"{host} has the address {address[0]}, which is not public")
            continue
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(timeout)
            if buffer_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


class Pass:
    """A door of its own on loopback that leads to one host and port, for those who know its password.

    Each pass has a port of its own, because aria2 keeps idle connections and would use one that was opened
    through the same proxy for another transfer.
    """

    def __init__(
        self,
        password: str,
        target: tuple[str, int],
        allow_hosts: Iterable[str],
        allowance: int | None = None,
        lane: Lane | None = None,
    ) -> None:
        self.lane = lane or Lanes().enter("", 0)
        self.password, self.target, self.allow_hosts = password, target, tuple(allow_hosts)
        self.meter = Meter(allowance)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._tunnels: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        self._is_shut = False
        threading.Thread(target=self._accept, name="pass", daemon=True).start()

    def shut(self) -> None:
        """Close the door and every tunnel that went through it."""
        self._is_shut = True
        self.meter.allow(None)
        self.lane.leave()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        for client in list(self._tunnels):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener:
            while not self._is_shut:
                try:
                    client, _ = self._listener.accept()
                except OSError:
                    return
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._tunnels.add(client)
        with client, contextlib.suppress(OSError):
            client.settimeout(CONNECT_SECONDS)
            head, rest = _read_head(client)
            asked = head.split(b"\r\n", 1)[0].split(b" ")
            good = asked[0] == b"CONNECT" and _leads_to(asked[1], self.target)
            if self._is_shut or not good or _password(head) != self.password:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                self._lead(client, rest)
        self._tunnels.discard(client)

    def _lead(self, client: socket.socket, rest: bytes) -> None:
        """Connect a client that may pass."""
        try:
            server = connect(*self.target, self.allow_hosts, buffer_bytes=self.lane.buffer_bytes)
        except OSError:
            client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RELAY_BYTES)
        with server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            server.sendall(rest)
            relay(client, server, self.meter, self.lane)


class Meter:
    """Counts what comes in through a pass, and lets in no more than the allowance: None is any number."""

    def __init__(self, allowance: int | None = None) -> None:
        self.count = 0
        self._reserved = 0
        self._allowance = allowance
        self._change = threading.Condition()

    def allow(self, allowance: int | None) -> None:
        """From now on so many bytes may come in, those that have come included."""
        with self._change:
            self._allowance = allowance
            self._change.notify_all()

    def reserve(self, wish: int) -> int:
        """How many bytes may be read now, at most `wish`; waits until it is one, 0 after too long."""
        with self._change:
            self._change.wait_for(lambda: self._room() > 0, IDLE_SECONDS)
            granted = max(0, int(min(wish, self._room())))
            self._reserved += granted
            return granted

    def came(self, reserved: int, count: int) -> None:
        """Of so many that were reserved so many were read."""
        with self._change:
            self._reserved -= reserved
            self.count += count
            if self._allowance is not None:
                self._change.notify_all()

    def _room(self) -> float:
        return math.inf if self._allowance is None else self._allowance - self.count - self._reserved


def relay(client: socket.socket, server: socket.socket, meter: Meter, lane: Lane) -> None:
    """Copy bytes both ways until one side ends or nothing moves for IDLE_SECONDS; what comes from the server
    comes as fast as the lane allows.
    """
    poll = select.poll()
    for sock in (client, server):
        sock.settimeout(IDLE_SECONDS)
        poll.register(sock, select.POLLIN)
    way, asked = Way(server, client, RELAY_BYTES), Copying(client, server, HEAD_BYTES)

    def answer() -> int:
        reserved = meter.reserve(lane.take(RELAY_BYTES))
        count = 0
        try:
            count = way.move(reserved) if reserved else 0
        finally:
            meter.came(reserved, count)
        lane.took(count)
        return count

    moves = {client.fileno(): lambda: asked.move(HEAD_BYTES), server.fileno(): answer}
    with contextlib.closing(way):
        while ready := poll.poll(IDLE_SECONDS * 1000):
            if any(moves[fd]() == 0 for fd, _ in ready):
                return


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request, and what followed it already."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(HEAD_BYTES)
        if not piece or len(data) > HEAD_BYTES:
            raise OSError("no request head")
        data += piece
    head, rest = data.split(b"\r\n\r\n", 1)
    return head, rest


def _password(head: bytes) -> str:
    """The password in the Proxy-Authorization header; empty when there is none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"proxy-authorization" and value.strip()[:6].lower() == b"basic ":
            with contextlib.suppress(ValueError):
                pair = base64.b64decode(value.strip()[6:], validate=True).decode("latin-1")
                return pair.partition(":")[2]
    return ""


def _leads_to(asked: bytes, target: tuple[str, int]) -> bool:
    host, _, port = asked.decode("latin-1").rpartition(":")
    return host.strip("[]").lower() == target[0].lower() and port == str(target[1])


# -- the process


def start_aria2(binary: str, folder: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start aria2c with its settings in a private file, and with the lock that says that it lives."""
    alive = os.open(folder / "alive", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(alive, fcntl.LOCK_EX)  # inherited: the lock stands as long as aria2c does
    conf = folder / "aria2.conf"
    lines = [f"{name}={value}" for name, value in {**settings, "stop-with-process": str(os.getpid())}.items()]
    with open(os.open(conf, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    environ = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return subprocess.Popen(
        [binary, f"--conf-path={conf}"],
        stdin=subprocess.DEVNULL,
        stdout=2,
        stderr=2,
        env=environ,
        cwd=folder,
        pass_fds=(alive,),
        start_new_session=True,
    )


def main() -> None:
    """Obey the lines of standard input (JSON) until it ends; then end aria2c and go."""
    order = json.loads(sys.stdin.readline())
    child = start_aria2(order["binary"], Path(order["folder"]), order["settings"])
    threading.Thread(target=lambda: os._exit(child.wait() & 0x7F or 1), daemon=True).start()
    threading.Thread(target=_follow_parent, args=(os.getppid(), child), daemon=True).start()
    _say({"aria2c": child.pid})
    passes: dict[int, Pass] = {}
    lanes = Lanes()
    try:
        for line in sys.stdin:
            change = json.loads(line)
            if "password" in change:
                target = (change["host"], change["port"])
                lane = lanes.enter(change["owner"], change["urgency"])
                new = Pass(change["password"], target, order["allow_hosts"], change["allowance"], lane)
                passes[new.port] = new
                _say({"port": new.port})
            elif "allow" in change:
                meter = passes[change["allow"]].meter
                meter.allow(change["bytes"])
                _say({"bytes": meter.count})
            elif "move" in change:
                passes[change["move"]].lane.move(change["urgency"])
                _say({})
            elif "shut" in change:
                passes.pop(change["shut"]).shut()
                _say({})
            else:
                _say({})  # it is asked whether it lives
    finally:
        child.kill()
        os._exit(0)


def _follow_parent(parent: int, child: subprocess.Popen[bytes]) -> None:
    """End with the parent even when a process that it forked still holds the other end of the pipe."""
    while os.getppid() == parent:
        time.sleep(0.5)
    child.kill()
    os._exit(0)


def _say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()

"""Bytes on their way through the gate: all of them, in order, whatever the system can do."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from comfy_depot.ways import Copying, Splicing, Way

MOST = 1 << 18
CONTENT = os.urandom(1 << 20) * 8
needs_splice = pytest.mark.skipif(not hasattr(os, "splice"), reason="splice is Linux only")


class Tunnel:
    """A way between two connections: what is put into `near` comes out of `far`."""

    def __init__(self) -> None:
        (self.near, self.source), (self.sink, self.far) = socket.socketpair(), socket.socketpair()
        self.source.settimeout(10)
        self.sink.settimeout(10)

    def close(self) -> None:
        for one in (self.near, self.source, self.sink, self.far):
            one.close()

    def send(self) -> None:
        def put() -> None:
            with contextlib.suppress(OSError):  # the test has ended
                self.near.sendall(CONTENT)
                self.near.shutdown(socket.SHUT_WR)

        threading.Thread(target=put, daemon=True).start()

    def carried(self, way: Any, *, pause: float = 0.0) -> bytes:
        """What comes out when all of CONTENT goes in, for a reader that is slow in the beginning."""
        self.send()
        moved: list[int] = []

        def carry() -> None:
            while count := way.move(MOST):
                moved.append(count)
            self.sink.shutdown(socket.SHUT_WR)

        carrier = threading.Thread(target=carry, daemon=True)
        carrier.start()
        time.sleep(pause)
        found = bytearray()
        while piece := self.far.recv(1 << 16):
            found += piece
        carrier.join(10)
        assert sum(moved) == len(found) and max(moved) <= MOST
        return bytes(found)


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    made = Tunnel()
    yield made
    made.close()


@pytest.mark.parametrize("kind", [Copying, pytest.param(Splicing, marks=needs_splice), Way])
def test_all_bytes_arrive_in_order_also_at_a_slow_reader(tunnel: Tunnel, kind: Callable[..., Any]) -> None:
    way = kind(tunnel.source, tunnel.sink, MOST)
    assert tunnel.carried(way, pause=0.3) == CONTENT
    way.close()


@pytest.mark.parametrize("kind", [Copying, pytest.param(Splicing, marks=needs_splice)])
def test_a_connection_on_which_nothing_moves_is_given_up(tunnel: Tunnel, kind: Callable[..., Any]) -> None:
    tunnel.source.settimeout(0.1)
    tunnel.sink.settimeout(0.1)
    way = kind(tunnel.source, tunnel.sink, MOST)
    with pytest.raises(TimeoutError):
        way.move(MOST)
    tunnel.send()
    with pytest.raises(TimeoutError):  # nobody reads
        while True:
            way.move(MOST)
    way.close()


@pytest.mark.parametrize("kind", [Copying, pytest.param(Splicing, marks=needs_splice)])
def test_an_end_that_is_gone_is_an_error(tunnel: Tunnel, kind: Callable[..., Any]) -> None:
    way = kind(tunnel.source, tunnel.sink, MOST)
    tunnel.far.close()
    tunnel.send()
    with pytest.raises(OSError) as caught:
        while True:
            way.move(MOST)
    assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)
    way.close()


@needs_splice
@pytest.mark.parametrize("fails_at", ["source", "sink"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_the_kernel_refuses_bytes_are_copied_and_none_is_lost(
    tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch, fails_at: str, number: int
) -> None:
    splice, refused = os.splice, tunnel.source if fails_at == "source" else tunnel.sink

    def refusing(source: int, sink: int, count: int) -> int:
        if refused.fileno() in (source, sink):
            raise OSError(number, os.strerror(number))
        return splice(source, sink, count)

    monkeypatch.setattr(os, "splice", refusing)
    way = Way(tunnel.source, tunnel.sink, MOST)
    assert tunnel.carried(way) == CONTENT
    way.close()


def test_a_system_without_splice_copies(tunnel: Tunnel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "splice", raising=False)
    assert tunnel.carried(Way(tunnel.source, tunnel.sink, MOST)) == CONTENT


@needs_splice
@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_nothing_stays_open(tunnel: Tunnel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Way(tunnel.source, tunnel.sink, MOST).close()
    assert len(os.listdir("/proc/self/fd")) == before

"""How bytes go from one connection to another.

`Splicing` lets the system hand over pages instead of copying them into this process and out again: that takes
less than half of the processor time. Linux only; elsewhere, and where a kernel refuses it, `Copying`.

Standard library only: this runs in the process of the gate.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket

NOT_SPLICED = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)


class Copying:
    """Through memory of this process."""

    def __init__(self, source: socket.socket, sink: socket.socket, most: int) -> None:
        self.source, self.sink = source, sink
        self.buffer = memoryview(bytearray(most))

    def move(self, most: int) -> int:
        """Wait for bytes and hand them on; how many, 0 at the end. TimeoutError when nothing moves."""
        count = self.source.recv_into(self.buffer[:most])
        self.sink.sendall(self.buffer[:count])
        return count

    def close(self) -> None:
        """Nothing is held."""


class Splicing:
    """Through a pipe inside the system."""

    def __init__(self, source: socket.socket, sink: socket.socket, most: int) -> None:
        """OSError where that is not possible."""
        if not hasattr(os, "splice"):
            raise OSError(errno.ENOSYS, "no splice on this system")
        self.source, self.sink = source, sink
        self._out, self._in = os.pipe()
        with contextlib.suppress(OSError, AttributeError):  # a smaller pipe does too
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, most)

    def move(self, most: int) -> int:
        """As `Copying.move`. An error that is one of NOT_SPLICED has moved nothing."""
        while True:
            try:
                count = os.splice(self.source.fileno(), self._in, most)
                break
            except BlockingIOError:
                _wait(self.source, select.POLLIN)
        left = count
        while left:
            try:
                left -= os.splice(self._out, self.sink.fileno(), left)
            except BlockingIOError:
                _wait(self.sink, select.POLLOUT)
            except OSError as error:
                if error.errno not in NOT_SPLICED:
                    raise
                rest = os.read(self._out, left)
                self.sink.sendall(rest)
                left -= len(rest)
        return count

    def close(self) -> None:
        """Let the pipe go."""
        os.close(self._out)
        os.close(self._in)


def _wait(sock: socket.socket, event: int) -> None:
    poll = select.poll()
    poll.register(sock, event)
    timeout = sock.gettimeout()
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError(f"nothing moved for {timeout:g} s")


class Way:
    """From one connection to another, in the quickest way that works."""

    def __init__(self, source: socket.socket, sink: socket.socket, most: int) -> None:
        """At most `most` bytes at a time."""
        self._ends = (source, sink, most)
        self._way: Copying | Splicing
        try:
            self._way = Splicing(source, sink, most)
        except OSError:
            self._way = Copying(source, sink, most)

    def move(self, most: int) -> int:
        """See `Copying.move`."""
        try:
            return self._way.move(most)
        except OSError as error:
            if isinstance(self._way, Copying) or error.errno not in NOT_SPLICED:
                raise
        self._way.close()
        self._way = Copying(*self._ends)
        return self._way.move(most)

    def close(self) -> None:
        """Let go of what it needs; the connections stay."""
        self._way.close()

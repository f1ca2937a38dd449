"""Digests of the pieces of a file, as a manifest may give them, compared while the file arrives.

A sha256 of the whole has to be computed in order and on one core. Pieces can be compared in any order, on
several cores, and a bad one is found when it comes and not after the last byte. All pieces together prove as
much as a digest of the whole, because both come from the manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_depot.errors import WrongContent

if TYPE_CHECKING:
    from comfy_depot.journal import Pieces

CHUNK_BYTES = 1 << 20
LEAST_BYTES = 1 << 20  # of a piece; smaller ones make long manifests and gain nothing
MOST_THREADS = 4
NICENESS = 5
DIGESTS: dict[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "blake2b": lambda: hashlib.blake2b(digest_size=32),  # twice as fast where a processor knows no sha256
}


@dataclass(frozen=True)
class PieceHashes:
    """What a manifest says of the pieces: all have `length` bytes, the last one maybe less."""

    length: int
    kind: str
    digests: tuple[str, ...]

    def fits(self, size: int) -> bool:
        """Whether a file of this size has so many pieces."""
        return len(self.digests) == -(-size // self.length)


def digests_of(path: Path, length: int, kind: str) -> PieceHashes:
    """The digests of a file's pieces, for a manifest."""
    size = os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        digests = [digest_of(file.fileno(), start, min(size, start + length), kind)
                   for start in range(0, size, length)]
    return PieceHashes(length, kind, tuple(digests))


def digest_of(fd: int, start: int, end: int, kind: str) -> str:
    """Of the bytes [start, end) of an open file."""
    digest, buffer = DIGESTS[kind](), memoryview(bytearray(min(CHUNK_BYTES, max(1, end - start))))
    while start < end:
        count = os.preadv(fd, [buffer[: end - start]], start)
        if not count:  # shorter than was said
            break
        digest.update(buffer[:count])
        start += count
    found: str = digest.hexdigest()
    return found


class PieceCheck:
    """Compares the pieces of one partial. Threads do it while the file arrives."""

    def __init__(
        self, path: Path, hashes: PieceHashes, size: int, name: str, *, niceness: int = NICENESS
    ) -> None:
        self._niceness = niceness
        self._hashes, self._size, self._name = hashes, size, name
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._change = threading.Condition()
        self._unseen = set(range(len(hashes.digests)))
        self._queue: deque[int] = deque()
        self._busy = 0
        self._is_over = False
        self._wrong: int | None = None
        count = max(1, min(MOST_THREADS, os.cpu_count() or 1))
        self._threads = [
            threading.Thread(target=self._follow, name="pieces", daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def allow(self, arrived: Pieces) -> None:
        """These bytes will not change any more. Raises WrongContent when a piece is known to be wrong."""
        ready = sorted(index for index in self._unseen if arrived.has(*self._span(index)))
        with self._change:
            self._unseen.difference_update(ready)
            self._queue.extend(ready)
            self._change.notify_all()
        self._raise_if_wrong()

    def finish(self, path: Path, check: Callable[[], None]) -> None:
        """Return when every piece is right; WrongContent when one is not, or another file stands there."""
        if not os.path.samestat(os.fstat(self._file.fileno()), os.stat(path)):
            raise WrongContent(f"'{self._name}' was replaced by something else while it was verified. "
                               "Fetch it again.")
        with self._change:
            self._queue.extend(sorted(self._unseen))
            self._unseen.clear()
            self._change.notify_all()
            while (self._queue or self._busy) and self._wrong is None:
                self._change.wait(0.1)
                check()
        self._raise_if_wrong()

    def close(self) -> None:
        """End the threads."""
        with self._change:
            self._is_over = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()
        self._file.close()

    def _span(self, index: int) -> tuple[int, int]:
        return index * self._hashes.length, min((index + 1) * self._hashes.length, self._size)

    def _raise_if_wrong(self) -> None:
        if self._wrong is not None:
            start, end = self._span(self._wrong)
            raise WrongContent(
                f"'{self._name}': the bytes {start} to {end} are not those of the manifest "
                f"({self._hashes.kind} of piece {self._wrong + 1} of {len(self._hashes.digests)}). "
                "The file is quarantined; correct the manifest or choose another url."
            )

    def _follow(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # Linux can do this for a single thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (index := self._next()) is not None:
            try:
                is_right = digest_of(self._file.fileno(), *self._span(index), self._hashes.kind) \
                    == self._hashes.digests[index]
            except OSError:  # a disk that cannot be read proves nothing
                is_right = False
            with self._change:
                self._busy -= 1
                if not is_right:
                    self._wrong = index
                self._change.notify_all()

    def _next(self) -> int | None:
        with self._change:
            self._change.wait_for(lambda: self._is_over or self._queue)
            if self._is_over:
                return None
            self._busy += 1
            return self._queue.popleft()

"""Looking at a running download: how far it is, whether it moves, and what of it goes into the journal."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from comfy_depot import journal
from comfy_depot.journal import Pieces, Record
from comfy_depot.layout import Place

POLL_SECONDS = 0.2
LEAST_SECONDS = 0.03  # between two looks, each of which costs a request to aria2c
BYTES_PER_LOOK = 16 << 20  # what may come between two looks: digest and tensors follow by so much
SILENCE_SECONDS = 5.0


class Watch:
    """Looks at aria2's answers: how far it is, whether it moves, and what goes into the journal."""

    def __init__(self, place: Place, record: Record, *, journalled: bool) -> None:
        self.place, self.record, self.journalled = place, record, journalled
        self.bytes_done = self._bytes_before = Pieces(record.validator.size or 0, record.pieces).bytes_done
        self.left: float | None = None  # seconds, as far as the rate tells
        self._rate = 1
        self._begun_at = self._moved_at = self._synced_at = time.monotonic()
        self._silent_until = self._begun_at + SILENCE_SECONDS
        self._synced = record.synced
        self._syncing: threading.Thread | None = None

    @property
    def seconds_idle(self) -> float:
        """How long no byte has arrived."""
        return time.monotonic() - self._moved_at

    @property
    def seconds_running(self) -> float:
        """How long it took until the last byte that has arrived."""
        return self._moved_at - self._begun_at

    @property
    def bytes_per_second(self) -> float:
        """What has come so far, over the time that it took."""
        return (self.bytes_done - self._bytes_before) / max(self.seconds_running, POLL_SECONDS)

    @property
    def pieces(self) -> Pieces:
        """What is complete, and in the journal."""
        return Pieces(self.record.validator.size or 0, self.record.pieces)

    @property
    def bytes_in_order(self) -> int:
        """So much from the start on is complete, and in the journal."""
        return self.pieces.bytes_in_order

    @property
    def is_silent(self) -> bool:
        """True once for every SILENCE_SECONDS in which nothing has arrived: time to look after the daemon."""
        now = time.monotonic()
        if now < max(self._silent_until, self._moved_at + SILENCE_SECONDS):
            return False
        self._silent_until = now + SILENCE_SECONDS
        return True

    @property
    def seconds_to_next_look(self) -> float:
        """POLL_SECONDS, or less when much comes, when the end is near or when nothing has arrived yet."""
        if self.left is None:
            return LEAST_SECONDS
        return min(POLL_SECONDS, max(LEAST_SECONDS, min(self.left, BYTES_PER_LOOK / self._rate)))

    def see(self, status: dict[str, str]) -> bool:
        """Take in an answer; returns whether bytes have arrived since the one before."""
        done, bitfield = int(status.get("completedLength", 0)), status.get("bitfield", "")
        moved = done != self.bytes_done
        self.bytes_done = done
        rate, total = int(status.get("downloadSpeed", 0)), int(status.get("totalLength", 0))
        self.left, self._rate = (total - done) / rate if rate and total else None, max(1, rate)
        if moved:
            self._moved_at = time.monotonic()
        if self.journalled and bitfield and bitfield != self.record.pieces:
            self.record = replace(self.record, pieces=bitfield, synced=self._synced)
            journal.write_record(self.place.record, self.record)
        is_syncing = self._syncing is not None and self._syncing.is_alive()
        if moved and not is_syncing and time.monotonic() - self._synced_at > journal.SYNC_SECONDS:
            self._syncing = threading.Thread(target=self._sync, args=(self.record.pieces,), daemon=True)
            self._syncing.start()
        return moved

    def end(self) -> None:
        """Bring everything to the disk and the journal."""
        if self._syncing is not None:
            self._syncing.join()
        if self.journalled and self.record.synced != self.record.pieces:
            self._sync(self.record.pieces)
            self.record = replace(self.record, synced=self._synced)
            journal.write_record(self.place.record, self.record)

    def _sync(self, pieces: str) -> None:
        """Bring the partial to the disk: these pieces survive a power cut, and little is left to the end."""
        with contextlib.suppress(OSError):  # a full or dying disk is reported by what comes next
            fsync(self.place.partial)
            self._synced = pieces
        self._synced_at = time.monotonic()


def fsync(path: Path) -> None:
    """Bring a file or the entries of a folder to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Moves what is committed from an SQLite write-ahead log into the file.

A checkpoint waits for the disk. It has a thread and a connection of its own: nobody else waits.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

BYTES_PER_WRITE = 20_000  # a few pages, whatever the row is
BYTES_PER_CHECKPOINT = 2 << 20
LONGEST_LOG = 64 << 20


class Checkpoints:
    """The checkpoints of one file, from `start` to `close`."""

    def __init__(self, path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._log = path.with_name(path.name + "-wal")
        self._connect = connect
        self._bytes_written = 0
        self._disk_is_full = False
        self._is_due = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="journal checkpoints", daemon=True)

    def start(self) -> None:
        """The file is open."""
        self._thread.start()

    def note_write(self, size: int = 0) -> None:
        """Something of about this size was committed."""
        self._bytes_written += size + BYTES_PER_WRITE
        if self._bytes_written > BYTES_PER_CHECKPOINT:
            self._bytes_written = 0
            self._is_due.set()

    def give_room_back(self) -> None:
        """The disk is full, and the log takes room that it need not take."""
        self._disk_is_full = True
        self._is_due.set()

    def close(self) -> None:
        """Wait for the last one."""
        self._closed = True
        self._is_due.set()
        self._thread.join(5)

    def _run(self) -> None:
        connection = self._connect()
        try:
            while not self._closed:
                self._is_due.wait()
                self._is_due.clear()
                # A passive one holds up nobody, but a file that is written all the time grows on.
                is_long = self._log.exists() and self._log.stat().st_size > LONGEST_LOG
                kind = "TRUNCATE" if self._disk_is_full or is_long else "PASSIVE"
                self._disk_is_full = False
                try:
                    connection.execute(f"PRAGMA wal_checkpoint({kind})")
                except sqlite3.Error as error:
                    log.debug("A checkpoint of the journal was not possible: %s", error)
        finally:
            connection.close()

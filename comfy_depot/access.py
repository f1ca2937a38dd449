"""The access log: which model was used when, by which prompt and node.

SQLite (WAL) in the depot's state folder. Noting an access costs a queue entry; a thread of its own writes.
`python -m comfy_depot log --csv` prints the rows.
"""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path

log = logging.getLogger(__name__)

FILE_NAME = "access.sqlite3"
SECONDS_BETWEEN_WRITES = 0.25
SECONDS_TO_RETRY = 5.0
MOST_WAITING = 100_000


USES = ("hit", "fetched")
"""Outcomes of accesses at which somebody asked for the model."""


@dataclass(frozen=True)
class Access:
    """One use of a model file."""

    time: float
    """Seconds since 1970."""
    folder: str
    name: str
    prompt: str | None
    node: str | None
    tenant: str | None
    bytes: int
    outcome: str
    """"hit": it was on the disk. "fetched": it was brought for this. Two that are no uses: "preloaded" for a
    prompt that waits, and "warmed" in idle time."""

    @property
    def is_use(self) -> bool:
        """Whether somebody has asked for the model."""
        return self.outcome in USES


COLUMNS = tuple(column.name for column in fields(Access))
_CREATE = """
CREATE TABLE IF NOT EXISTS access (
    time REAL NOT NULL, folder TEXT NOT NULL, name TEXT NOT NULL, prompt TEXT, node TEXT, tenant TEXT,
    bytes INTEGER NOT NULL, outcome TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS access_by_model ON access (folder, name, time);
"""
_INSERT = f"INSERT INTO access ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM access ORDER BY time DESC, rowid DESC LIMIT ?"


_LAST_USES = "SELECT folder, name, MAX(time) FROM access GROUP BY folder, name"
# SQLite takes the other columns from the row that has the maximum.
_LAST_FETCHES = """
SELECT folder, name, bytes, MAX(time) FROM access WHERE outcome <> 'hit' GROUP BY folder, name
"""
_SELECT_SINCE = (f"SELECT rowid, {', '.join(COLUMNS)} FROM access WHERE rowid > ? "
                 "ORDER BY rowid DESC LIMIT ?")


@dataclass(frozen=True)
class LastUse:
    """When a model was used last, and how large the last download of it was, if there was one."""

    time: float
    bytes_fetched: int | None


def _open(file: Path) -> sqlite3.Connection:
    """The log, ready to use. One that is no database any more is put aside, and a new one begun."""
    try:
        return _connect(file)
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # the subclasses mean a lock, a full disk or rights
            raise
        aside = file.with_name(file.name + ".broken")
        log.error("The access log %s is damaged (%s). It is kept as %s, and a new one is begun.",
                  file, error, aside.name)
        for ending in ("-wal", "-shm"):
            file.with_name(file.name + ending).unlink(missing_ok=True)
        os.replace(file, aside)
        return _connect(file)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_CREATE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class AccessLog:
    """Writes accesses in the background. `close()` (also at interpreter exit) writes what is left."""

    def __init__(self, state_directory: Path) -> None:
        self.file = state_directory / FILE_NAME
        self._noted: list[Access] = []
        self._change = threading.Condition()  # guards `_noted` and `_is_closed`, for moments only
        self._is_closed = False
        self._writing = threading.Lock()  # guards `_unwritten` and the file, for as long as a write takes
        self._unwritten: list[Access] = []
        self._has_failed = False
        self._thread = threading.Thread(target=self._write_until_closed, name="depot-access-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def note(self, access: Access) -> None:
        """Take an access down; it is in the file within half a second."""
        with self._change:
            if not self._is_closed:
                self._noted.append(access)
                self._change.notify()

    def flush(self) -> None:
        """Write everything noted so far, now."""
        with self._writing:
            with self._change:
                self._unwritten += self._noted
                self._noted.clear()
            self._write()

    def close(self) -> None:
        """Write everything and stop; harmless when called twice."""
        with self._change:
            if self._is_closed:
                return
            self._is_closed = True
            self._change.notify()
        atexit.unregister(self.close)
        self._thread.join(timeout=30)
        self.flush()

    def _write_until_closed(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._noted or self._unwritten or self._is_closed)
                pause = SECONDS_TO_RETRY if self._has_failed else SECONDS_BETWEEN_WRITES
                self._change.wait_for(lambda: self._is_closed, timeout=pause)
                if self._is_closed:
                    return
            self.flush()

    def _write(self) -> None:
        if not self._unwritten:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(_open(self.file)) as connection, connection:
                connection.executemany(_INSERT, map(_row, self._unwritten))
        except (sqlite3.Error, OSError) as error:
            self._keep_for_later(error)
        else:
            self._unwritten.clear()
            self._has_failed = False

    def _keep_for_later(self, error: sqlite3.Error | OSError) -> None:
        del self._unwritten[:-MOST_WAITING]
        if not self._has_failed:
            log.error("The access log %s cannot be written (%s); %d accesses wait in memory. "
                      "Make room on the disk or correct the rights.", self.file, error, len(self._unwritten))
        self._has_failed = True


def _row(access: Access) -> tuple[object, ...]:
    """The values of a row. SQLite takes UTF-8 only; a file name or the id of a node may be other bytes."""
    return tuple(
        value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for value in astuple(access)
    )


def read(state_directory: Path, *, limit: int = -1) -> Iterator[Access]:
    """The accesses, newest first; nothing when there is no log yet."""
    file = state_directory / FILE_NAME
    if not file.exists():
        return
    with closing(_open(file)) as connection:
        for row in connection.execute(_SELECT, (limit,)):
            yield Access(*row)


def read_since(state_directory: Path, row: int, *, limit: int) -> tuple[int, list[Access]]:
    """The accesses written after a row, oldest first, and the newest row: the place to go on from. Of more
    than `limit` the newest. A log that was begun anew is read from its start.
    """
    file = state_directory / FILE_NAME
    if not file.exists():
        return row, []
    with closing(_open(file)) as connection:
        newest = int(connection.execute("SELECT COALESCE(MAX(rowid), 0) FROM access").fetchone()[0])
        found = connection.execute(_SELECT_SINCE, (row if row <= newest else 0, limit)).fetchall()
    return newest, [Access(*values) for _, *values in reversed(found)]


def count(state_directory: Path) -> int:
    """How many accesses the log holds."""
    file = state_directory / FILE_NAME
    if not file.exists():
        return 0
    with closing(_open(file)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM access").fetchone()[0])


def last_uses(state_directory: Path) -> dict[tuple[str, str], LastUse]:
    """The last use of each model, by (folder type, name)."""
    file = state_directory / FILE_NAME
    if not file.exists():
        return {}
    with closing(_open(file)) as connection:
        fetched = {(folder, name): size for folder, name, size, _ in connection.execute(_LAST_FETCHES)}
        return {(folder, name): LastUse(time, fetched.get((folder, name)))
                for folder, name, time in connection.execute(_LAST_USES)}

"""The journal of a queue: which prompts were accepted and what became of them, in an SQLite file (WAL).

    queue.db            a row per prompt; finished ones are the history
    queue.db.lock       held by the process that uses it; the node in work; a sign of life
    queue.db.attempt    what the running prompt has done so far (see `attempt.py`)
    queue.db.recent-*   what has come in and is not in queue.db yet (see `recent.py`)

An accepted prompt, and the end of one, is a line in a file beside; the writer's thread puts many of them into
the table at once. What is too long for a line waits in a list for that thread. Any thread that must read or
write the table takes with it what waits. What was written or committed survives the death of the process.
With `sync="full"` all of it is committed, and survives a power failure too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from comfy_execution.queueing.checkpoints import Checkpoints
from comfy_execution.queueing.lock import JournalLock
from comfy_execution.queueing.recent import (
    ENDINGS,
    ROWS_PER_STATEMENT,
    Accepted,
    End,
    Line,
    RecentLines,
    insert_many,
    write_lines,
)

log = logging.getLogger(__name__)

FORMAT = 1
SECONDS_BETWEEN_SIGNS = 0.5
SECONDS_BETWEEN_LOOKS = 0.2
BUSY_SECONDS = 10
FREE_BYTES_TO_KEEP = 4 << 20

SCHEMA = """
CREATE TABLE IF NOT EXISTS settings(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS prompts(
    sequence INTEGER PRIMARY KEY,   -- order of arrival
    prompt_id TEXT NOT NULL,
    item TEXT NOT NULL,             -- [number, id, graph, extra data, outputs], without tokens
    priority REAL NOT NULL,
    tenant TEXT NOT NULL,
    turn INTEGER NOT NULL,          -- how many prompts had started at its arrival; then: at its own start
    counter REAL NOT NULL,          -- the server's next number
    tokens TEXT NOT NULL,           -- names of the tokens that it came with
    deaths INTEGER NOT NULL DEFAULT 0,
    ended INTEGER,                  -- order in the history, NULL until it has run
    ended_at REAL,
    result TEXT,                    -- of a finished prompt: outputs, meta, status, ...
    summary TEXT,                   -- of a finished prompt: its job
    status TEXT, created REAL, duration REAL, workflow TEXT, client TEXT
);
CREATE INDEX IF NOT EXISTS waiting ON prompts(sequence) WHERE ended IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS finished_ids ON prompts(prompt_id) WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS finished ON prompts(ended) WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS finished_by_creation ON prompts(created DESC, ended, status, workflow)
    WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS finished_by_duration ON prompts(duration DESC, ended, status, workflow)
    WHERE ended IS NOT NULL;
"""
T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
WhenDone = Callable[["JournalError | None"], None]


class JournalError(Exception):
    """The journal cannot be used; the message says why and what to do."""


class JournalFullError(JournalError):
    """There is no room on the disk."""


class JournalInUseError(JournalError):
    """Another process uses it."""


def default_encode(value: Any) -> str:
    """JSON; what JSON does not know as its text."""
    return json.dumps(value, default=str)


class Journal:
    """One open journal. Every method may be called from any thread."""

    def __init__(
        self, path: str | Path, *, sync: str = "normal", encode: Callable[[Any], str] = default_encode
    ) -> None:
        """Open or begin the journal at `path`. A damaged one is set aside. Raises JournalError."""
        self.path = Path(path)
        self.sync = sync
        self.encode = encode
        self.opened_at = time.time()
        self._looked_for_room, self._bytes_free = 0.0, float("inf")
        self.bytes_waiting = 0
        self.set_aside: Path | None = None
        self._mutex = threading.Lock()
        self._pending: deque[tuple[Accepted | Operation[Any], WhenDone | None]] = deque()
        self._owed: deque[Operation[Any]] = deque()
        self._wake = threading.Event()
        self.closed = False
        self.shows_life = False
        self._takes_lines = True
        self._checkpoints = Checkpoints(self.path, self._connect)
        self._make_folder()
        self.lock = self._take_lock()
        try:
            self._open_or_begin_anew()
        except BaseException:
            self.lock.close()
            raise
        self._thread = threading.Thread(target=self._write_forever, name="journal", daemon=True)
        self._thread.start()
        self._checkpoints.start()

    # -- opening -------------------------------------------------------------------------------------------

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise JournalError(self._cannot_be_used(error)) from error

    def _cannot_be_used(self, error: Exception) -> str:
        return (f"The journal of the queue {self.path} cannot be used: {error}. Let this user write there, "
                "or choose another place: --journal PATH, or --journal off to keep the queue in memory only.")

    def _take_lock(self) -> JournalLock:
        try:
            lock = JournalLock(self.path.with_name(self.path.name + ".lock"))
        except OSError as error:
            raise JournalError(self._cannot_be_used(error)) from error
        if not lock.held:
            raise JournalInUseError(
                f"The journal of the queue {self.path} is used by another server. Stop that one, or give "
                "this one its own: --journal PATH, or another --base-directory."
            )
        return lock

    def _open_or_begin_anew(self) -> None:
        try:
            self._open()
        except OSError as error:
            raise JournalError(self._cannot_be_used(error)) from error
        except sqlite3.DatabaseError as error:
            if "full" in str(error):
                raise self.full_error() from error
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise JournalError(self._cannot_be_used(error)) from error
            self._set_aside(error)
            self._open()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=" + ("FULL" if self.sync == "full" else "NORMAL"))
        return connection

    def _open(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # prompts are for their owner's eyes
        self._connection = self._connect()
        self._reader: sqlite3.Connection | None = None
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA wal_autocheckpoint=0")
            self._prepare_tables()
            self._recent = RecentLines(self.path)
            self._recent.take_up(lambda lines: self._in_transaction(lambda db: write_lines(db, lines)))
            self._reader = self._connect()
            self._reader_mutex = threading.Lock()
        except BaseException:
            self._connection.close()
            raise

    def _prepare_tables(self) -> None:
        found = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, FORMAT):
            raise JournalError(
                f"The journal of the queue {self.path} was written by another version (format {found}, "
                f"this is {FORMAT}). Move it away, or choose another place: --journal PATH."
            )
        self._connection.executescript(SCHEMA)
        self._connection.execute(f"PRAGMA user_version={FORMAT}")
        for row in self._connection.execute("PRAGMA quick_check(1)") if self._is_small() else ():
            if row[0] != "ok":
                raise sqlite3.DatabaseError(row[0])

    def _is_small(self) -> bool:
        """Is it read fast enough to look through it at each start?"""
        return self.path.stat().st_size < 64 << 20

    def _set_aside(self, error: Exception) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        for ending in ("-wal", "-shm", ".attempt", *ENDINGS):
            part = self.path.with_name(self.path.name + ending)
            if part.exists():
                os.replace(part, aside.with_name(aside.name + ending))
        self.set_aside = aside
        log.error("The journal of the queue is damaged (%s). It was moved to %s, and a new one begun: "
                  "prompts that waited and the history are in the old file only.", error, aside)

    # -- writing -------------------------------------------------------------------------------------------

    def accept(self, row: Accepted) -> bool:
        """Keep a prompt, and put it into the table later. False if it must be submitted: it is long, or the
        disk is full, or the table could not be written lately, or more is promised than to survive the death
        of the process.
        """
        if self.sync == "full" or not self._takes_lines or not self.has_room():
            return False
        self._bytes_free -= 2 * len(row.item)
        return self._keep(row)

    def submit_end(self, end: End) -> bool:
        """The same for the end of a prompt."""
        return self.sync != "full" and self._keep(end)

    def _keep(self, line: Line) -> bool:
        if not self._recent.add(line):
            return False
        if self._recent.are_due():
            self._wake_writer()
        return True

    def submit(self, what: Accepted | Operation[Any], when_done: WhenDone | None = None) -> None:
        """Write this soon, together with others. `when_done(error or None)` is called from some thread."""
        self._pending.append((what, when_done))
        self._wake_writer()

    def _wake_writer(self) -> None:
        if not self._wake.is_set():  # to set it again costs as much as the first time
            self._wake.set()

    def run_or_owe(self, operation: Operation[Any]) -> None:
        """`run`; while the disk is full it is owed, and done as soon as there is room."""
        try:
            self.run(operation)
        except JournalFullError as error:
            log.error("%s A change of the queue is written down as soon as there is room; a restart before "
                      "that takes it back.", error)
            self._owed.append(operation)

    def _pay(self) -> None:
        while self._owed:
            try:
                self.run(self._owed[0])
            except JournalError:
                return
            self._owed.popleft()

    def run_statement(self, statement: str, values: Sequence[Any]) -> int:
        """`run` for one statement, which is its own transaction; gives the number of changed rows."""
        with self._writing():
            self._checkpoints.note_write(sum(len(value) for value in values if isinstance(value, str)))
            return self._connection.execute(statement, values).rowcount

    def write_now(self, row: Accepted) -> None:
        """Write a prompt, and what was submitted before, in this thread. Raises JournalError."""
        if self.accept(row):
            return
        told: list[JournalError | None] = []
        self._pending.append((row, told.append))
        while not told:  # another thread may just be writing it
            self.flush()
        if told[0] is not None:
            raise told[0]

    def run(self, operation: Operation[T]) -> T:
        """Write this now, after what was submitted before; gives what it returns. Raises JournalError."""
        with self._writing():
            return self._in_transaction(operation)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the connection, after all that came before was written. Raises JournalError."""
        told: list[tuple[WhenDone, JournalError | None]] = []
        try:
            with self._mutex:
                told, error = self._write_pending()
                if error is not None:
                    raise error
                yield
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            _tell(told)  # without the mutex: whoever is told may want to write

    def flush(self) -> None:
        """Write what was submitted before, so that it can be read."""
        with self._mutex:
            told, _ = self._write_pending()
        _tell(told)

    def read(self, operation: Operation[T]) -> T:
        """Read what is written, with all that was submitted before. Raises JournalError."""
        self.flush()
        assert self._reader is not None
        try:
            with self._reader_mutex:
                return operation(self._reader)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def has_room(self) -> bool:
        """Is there room for another prompt, and then for the ends of those that wait?"""
        now = time.monotonic()
        if now - self._looked_for_room >= SECONDS_BETWEEN_LOOKS:
            self._looked_for_room, self._bytes_free = now, self._look_for_room()
        # A row is written twice, into the log and into the file; and anew when its prompt has ended.
        return self._bytes_free > FREE_BYTES_TO_KEEP + 2 * self.bytes_waiting

    def _look_for_room(self) -> float:
        try:
            status = os.statvfs(self.path.parent)
        except (AttributeError, OSError):  # Windows has no statvfs; there it is noticed when it is full
            return float("inf")
        return status.f_bavail * status.f_frsize

    def full_error(self) -> JournalFullError:
        """There is no room."""
        return JournalFullError(
            f"There is no room on the disk for the journal of the queue {self.path}. Free some space there "
            "and send the prompt again; prompts that were accepted are safe."
        )

    def _translated(self, error: sqlite3.Error) -> JournalError:
        if "full" in str(error):
            self._checkpoints.give_room_back()
            return self.full_error()
        return JournalError(f"The journal of the queue {self.path} cannot be used: {error}. If this goes on, "
                            "stop the server, move the file away and start again.")

    def _write_forever(self) -> None:
        while not self.closed:
            self._wake.wait(SECONDS_BETWEEN_SIGNS)
            if self.shows_life and self.lock.held:
                self.lock.show_life()
            if self._wake.is_set():
                self._wake.clear()
                self.flush()
            else:
                self.flush()
                self._pay()

    def _write_pending(self) -> tuple[list[tuple[WhenDone, JournalError | None]], sqlite3.Error | None]:
        """Commit what waits; the mutex is held. Gives whom to tell what once the mutex is free, and why the
        lines of the files beside could not be put into the table.
        """
        accepted: list[tuple[Accepted, WhenDone | None]] = []
        others: list[tuple[Operation[Any], WhenDone | None]] = []
        while self._pending:
            what, when_done = self._pending.popleft()
            (accepted if isinstance(what, Accepted) else others).append((what, when_done))  # type: ignore
        told: list[tuple[WhenDone, JournalError | None]] = []
        accepted, refused = self._with_room(accepted)
        told += [(done, self.full_error()) for done in refused if done is not None]
        for start in range(0, len(accepted), ROWS_PER_STATEMENT):
            part = accepted[start : start + ROWS_PER_STATEMENT]
            told += self._write_accepted([row for row, _ in part], [done for _, done in part])
        error = self._write_recent()
        for operation, when_done in others:
            told += self._write_each([operation], [when_done])
        return told, error

    def _write_recent(self) -> sqlite3.Error | None:
        """Put the lines of the files beside into the table, or say why not."""
        try:
            self._recent.write(lambda lines: self._in_transaction(lambda db: write_lines(db, lines)))
        except sqlite3.Error as error:
            log.error("%s What has come in is kept beside it until then.", self._translated(error))
            self._takes_lines = False
            return error
        self._takes_lines = True
        return None

    def _with_room(
        self, accepted: list[tuple[Accepted, WhenDone | None]]
    ) -> tuple[list[tuple[Accepted, WhenDone | None]], list[WhenDone | None]]:
        """(rows for which there is room, whom to tell that there is none)."""
        kept, refused = [], []
        for row, when_done in accepted:
            if self.has_room():
                self._bytes_free -= 2 * len(row.item)
                kept.append((row, when_done))
            else:
                refused.append(when_done)
        return kept, refused

    def _write_accepted(
        self, rows: list[Accepted], whom: list[WhenDone | None]
    ) -> list[tuple[WhenDone, JournalError | None]]:
        """One statement for many rows: each statement gives up the interpreter's lock once."""
        try:
            self._execute_insert(rows)
        except sqlite3.Error:
            return self._write_each([_inserting(row) for row in rows], whom)
        return [(when_done, None) for when_done in whom if when_done is not None]

    def _execute_insert(self, rows: Sequence[Accepted]) -> None:
        insert_many(self._connection, rows)
        self._checkpoints.note_write(sum(len(row.item) for row in rows))

    def _write_each(
        self, operations: Sequence[Operation[Any]], whom: Sequence[WhenDone | None]
    ) -> list[tuple[WhenDone, JournalError | None]]:
        """One by one: the failure of one is its own."""
        told: list[tuple[WhenDone, JournalError | None]] = []
        for operation, when_done in zip(operations, whom):
            failure = None
            try:
                self._in_transaction(operation)
            except sqlite3.Error as error:
                failure = self._translated(error)
                log.error("%s", failure)
            if when_done is not None:
                told.append((when_done, failure))
        return told

    def _in_transaction(self, operation: Operation[T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = operation(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._checkpoints.note_write()
        return result

    def close(self) -> None:
        """Write what waits and let the journal go."""
        if self.closed:
            return
        self.flush()
        self.closed = True
        self._wake.set()
        self._checkpoints.close()
        self._thread.join(5)
        with self._mutex, self._reader_mutex:
            assert self._reader is not None
            self._reader.close()
            self._connection.close()
            self._recent.close()
        self.lock.close()


def _inserting(row: Accepted) -> Operation[Any]:
    return lambda connection: insert_many(connection, [row])


def _tell(told: Sequence[tuple[WhenDone, JournalError | None]]) -> None:
    for when_done, error in told:
        when_done(error)

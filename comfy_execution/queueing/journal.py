"""The journal of a queue: which prompts were accepted and what became of them, in an SQLite file (WAL).

    queue.db            a row per prompt; finished ones are the history
    queue.db.lock       held by the process that uses it; the node in work; a sign of life
    queue.db.attempt    what the running prompt has done so far (see `attempt.py`)
    queue.db.ends-*     what has ended and is not in queue.db yet (see `ends.py`)

Writes of many threads share transactions: a prompt that is accepted waits in a list for the writer's thread,
and any thread that must write at once takes with it what is in the list. What is committed survives the death
of the process; `sync="full"` makes it survive a power failure too.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from comfy_execution.queueing.ends import ENDINGS, End, EndsOnTheirWay, finish_many
from comfy_execution.queueing.lock import JournalLock

log = logging.getLogger(__name__)

FORMAT = 1
ROWS_PER_STATEMENT = 200
BYTES_PER_WRITE = 20_000  # a few pages, whatever the row is
BYTES_PER_CHECKPOINT = 2 << 20
LONGEST_WAL = 64 << 20
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
INSERT = "INSERT INTO prompts(sequence, prompt_id, item, priority, tenant, turn, counter, tokens) VALUES "
PLACES = "(?, ?, ?, ?, ?, ?, ?, ?)"

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
WhenDone = Callable[["JournalError | None"], None]


class JournalError(Exception):
    """The journal cannot be used; the message says why and what to do."""


class JournalFullError(JournalError):
    """There is no room on the disk."""


class JournalInUseError(JournalError):
    """Another process uses it."""


class Accepted(NamedTuple):
    """A row of a prompt that was accepted."""

    sequence: int
    prompt_id: str
    item: str
    priority: float
    tenant: str
    turn: int
    counter: float
    tokens: str


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
        self._bytes_written = 0
        self._is_full = False
        self._wal_is_long = threading.Event()
        self._make_folder()
        self.lock = self._take_lock()
        try:
            self._open_or_begin_anew()
        except BaseException:
            self.lock.close()
            raise
        self._threads = [
            threading.Thread(target=self._write_forever, name="journal", daemon=True),
            threading.Thread(target=self._checkpoint_forever, name="journal checkpoints", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

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
            self._ends = EndsOnTheirWay(self.path)
            self._ends.take_up(self._finish_many)
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

    def submit(self, what: Accepted | Operation[Any], when_done: WhenDone | None = None) -> None:
        """Write this soon, together with others. `when_done(error or None)` is called from some thread."""
        self._pending.append((what, when_done))
        if not self._wake.is_set():  # to set it again costs as much as the first time
            self._wake.set()

    def submit_end(self, end: End) -> bool:
        """Keep the end of a prompt, and put it into the table later. False if it must go there now."""
        if self.sync == "full" or not self._ends.add(end):
            return False
        if self._ends.are_due() and not self._wake.is_set():
            self._wake.set()
        return True

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
        told: list[tuple[WhenDone, JournalError | None]] = []
        try:
            with self._mutex:
                told = self._write_pending()
                self._watch_length(sum(len(value) for value in values if isinstance(value, str)))
                return self._connection.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            _tell(told)

    def write_now(self, row: Accepted) -> None:
        """Write a prompt, and what was submitted before, in this thread. Raises JournalError."""
        told: list[JournalError | None] = []
        self._pending.append((row, told.append))
        while not told:  # another thread may just be writing it
            self.flush()
        if told[0] is not None:
            raise told[0]

    def run(self, operation: Operation[T]) -> T:
        """Write this now, after what was submitted before; gives what it returns. Raises JournalError."""
        told: list[tuple[WhenDone, JournalError | None]] = []
        try:
            with self._mutex:
                told = self._write_pending()
                return self._in_transaction(operation)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        finally:
            _tell(told)  # without the mutex: whoever is told may want to write

    def flush(self) -> None:
        """Write what was submitted before, so that it can be read."""
        self._flush(with_ends=True)

    def _flush(self, with_ends: bool) -> None:
        with self._mutex:
            told = self._write_pending(with_ends)
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
            self._is_full = True
            self._wal_is_long.set()  # a checkpoint gives room back
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
                self._flush(with_ends=self._ends.are_due())
            else:
                self.flush()
                self._pay()

    def _write_pending(self, with_ends: bool = True) -> list[tuple[WhenDone, JournalError | None]]:
        """Commit the list; the mutex is held. Gives whom to tell what once the mutex is free."""
        accepted: list[tuple[Accepted, WhenDone | None]] = []
        others: list[tuple[Operation[Any], WhenDone | None]] = []
        while self._pending:
            what, when_done = self._pending.popleft()
            (accepted if isinstance(what, Accepted) else others).append((what, when_done))  # type: ignore
        if with_ends or others:  # which may be about what has ended
            self._write_ends()
        told: list[tuple[WhenDone, JournalError | None]] = []
        accepted, refused = self._with_room(accepted)
        told += [(done, self.full_error()) for done in refused if done is not None]
        for start in range(0, len(accepted), ROWS_PER_STATEMENT):
            part = accepted[start : start + ROWS_PER_STATEMENT]
            told += self._write_accepted([row for row, _ in part], [done for _, done in part])
        for operation, when_done in others:
            told += self._write_each([operation], [when_done])
        return told

    def _write_ends(self) -> None:
        try:
            self._ends.write(self._finish_many)
        except sqlite3.Error as error:
            log.error("%s What has ended is kept beside it until then.", self._translated(error))

    def _finish_many(self, ends: Sequence[End]) -> None:
        self._in_transaction(lambda db: finish_many(db, ends))

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
        self._connection.execute(
            INSERT + ", ".join([PLACES] * len(rows)), [value for row in rows for value in row]
        )
        self._watch_length(sum(len(row.item) for row in rows))

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
        self._watch_length()
        return result

    # -- checkpoints ---------------------------------------------------------------------------------------

    def _watch_length(self, size: int = 0) -> None:
        self._bytes_written += size + BYTES_PER_WRITE
        if self._bytes_written > BYTES_PER_CHECKPOINT:
            self._bytes_written = 0
            self._wal_is_long.set()

    def _checkpoint_forever(self) -> None:
        """A checkpoint waits for the disk. It has a thread and a connection of its own: nobody else waits."""
        connection = self._connect()
        try:
            while not self.closed:
                self._wal_is_long.wait()
                self._wal_is_long.clear()
                wal = self.path.with_name(self.path.name + "-wal")
                # A passive one holds up nobody, but a file that is written all the time grows on.
                is_long = self._is_full or (wal.exists() and wal.stat().st_size > LONGEST_WAL)
                kind, self._is_full = "TRUNCATE" if is_long else "PASSIVE", False
                try:
                    connection.execute(f"PRAGMA wal_checkpoint({kind})")
                except sqlite3.Error as error:
                    log.debug("A checkpoint of the journal was not possible: %s", error)
        finally:
            connection.close()

    def close(self) -> None:
        """Write what waits and let the journal go."""
        if self.closed:
            return
        self.flush()
        self.closed = True
        self._wake.set()
        self._wal_is_long.set()
        for thread in self._threads:
            thread.join(5)
        with self._mutex, self._reader_mutex:
            assert self._reader is not None
            self._reader.close()
            self._connection.close()
            self._ends.close()
        self.lock.close()


def _inserting(row: Accepted) -> Operation[Any]:
    return lambda connection: connection.execute(INSERT + PLACES, row)


def _tell(told: Sequence[tuple[WhenDone, JournalError | None]]) -> None:
    for when_done, error in told:
        when_done(error)

"""The index on the disk: what is known of each local file (SQLite, WAL; `index.sqlite3` in the state folder).

    files      path -> device, inode, size, time of change: the file's stamp when it was last seen
    contents   stamp -> sha256 where a download or `verify` has computed it, and what the header says

What is known belongs to a stamp and not to a path, so it goes along when a file is renamed or linked, and
says nothing about another file under the old name. Where the device has another number (after a restart),
the path tells which content it was. Nothing here is true by itself: whoever asks compares the stamp with the
disk.

Every method may be called from any thread and by several processes at once. A file that is damaged is set
aside, and the index is built anew; where the database cannot be used at all, nothing is known.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from comfy_depot.base_models import Asked
from comfy_depot.eviction import Stamp
from comfy_depot.model_headers import Header

log = logging.getLogger(__name__)

FILE_NAME = "index.sqlite3"
FORM = 2
"""Another number when the tables change: an index of an unknown form is begun anew."""
SECONDS_GONE_IS_KEPT = 30 * 86_400
"""A disk that is not there for some days costs nothing that was computed."""
MOST_AT_ONCE = 400
"""Paths in one query: SQLite takes 999 values at least."""

Result = TypeVar("Result")
Numbers = tuple[int, int, int, int]
"""A stamp as the database keeps it."""
_HEADER = Header._fields
_STAMP = "device = ? AND inode = ? AND size = ? AND changed_ns = ?"
_CREATE = f"""
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL, gone_at REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_stamp ON files (inode, size, changed_ns, device);
CREATE TABLE IF NOT EXISTS contents (
    inode INTEGER NOT NULL, size INTEGER NOT NULL, changed_ns INTEGER NOT NULL, device INTEGER NOT NULL,
    noted_at REAL NOT NULL, sha256 TEXT, is_read INTEGER NOT NULL DEFAULT 0, tensors INTEGER, dtypes TEXT,
    base_model TEXT, variant TEXT, base_model_from TEXT, architecture TEXT, metadata TEXT, problem TEXT,
    PRIMARY KEY (inode, size, changed_ns, device)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS contents_by_sha256 ON contents (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX IF NOT EXISTS contents_by_base_model ON contents (base_model) WHERE base_model IS NOT NULL;
CREATE INDEX IF NOT EXISTS contents_by_words ON contents (architecture) WHERE architecture IS NOT NULL;
PRAGMA user_version = {FORM};
"""
# More families are known: headers are read again. Digests stay.
_FROM_FORM_1 = f"""
ALTER TABLE contents ADD COLUMN variant TEXT;
UPDATE contents SET is_read = 0;
PRAGMA user_version = {FORM};
"""
_NOTE_SHA256 = """
INSERT INTO contents (device, inode, size, changed_ns, noted_at, sha256) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET sha256 = excluded.sha256, noted_at = excluded.noted_at
"""
_NOTE_HEADER = f"""
INSERT INTO contents (device, inode, size, changed_ns, noted_at, is_read, {', '.join(_HEADER)})
VALUES (?, ?, ?, ?, ?, 1, {', '.join('?' * len(_HEADER))})
ON CONFLICT DO UPDATE SET is_read = 1, {', '.join(f'{name} = excluded.{name}' for name in _HEADER)}
"""
_NOTE_FILE = """
INSERT INTO files (path, device, inode, size, changed_ns) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET device = excluded.device, inode = excluded.inode, size = excluded.size,
    changed_ns = excluded.changed_ns, gone_at = NULL
"""
_TAKE_ALONG = f"""
INSERT OR IGNORE INTO contents
    (device, inode, size, changed_ns, noted_at, sha256, is_read, {', '.join(_HEADER)})
SELECT ?, inode, size, changed_ns, noted_at, sha256, is_read, {', '.join(_HEADER)} FROM contents
WHERE {_STAMP}
"""
_ARE_KNOWN = """
SELECT path, device, inode, size, changed_ns, gone_at, COALESCE((
    SELECT is_read FROM contents WHERE contents.inode = files.inode AND contents.size = files.size
    AND contents.changed_ns = files.changed_ns AND contents.device = files.device), 0)
FROM files WHERE path IN ({})
"""
_FOUND = """
SELECT files.path, files.device, files.inode, files.size, files.changed_ns FROM contents
JOIN files USING (inode, size, changed_ns, device) WHERE files.gone_at IS NULL AND {}
"""
_WITH_WORDS = """
architecture IN (
    WITH RECURSIVE said(words) AS (  -- each once: the index is entered anew behind each
        SELECT MIN(architecture) FROM contents WHERE architecture IS NOT NULL
        UNION ALL
        SELECT (SELECT MIN(architecture) FROM contents WHERE architecture > words)
        FROM said WHERE words IS NOT NULL)
    SELECT words FROM said WHERE instr(lower(words), lower(?)) > 0)
"""
_DETAILS = f"SELECT sha256, {', '.join(_HEADER)} FROM contents WHERE {_STAMP}"


@dataclass(frozen=True)
class Details:
    """What is known of the content of a file."""

    sha256: str | None
    header: Header


class Database:
    """The index of one state folder. It is made when something is first noted."""

    def __init__(self, state_dir: Path) -> None:
        self.file = state_dir / FILE_NAME
        self._lock = threading.Lock()
        self._has_failed = False

    # What is computed of a content.

    def note_sha256(self, stamp: Stamp, sha256: str) -> bool:
        """The file with this stamp was read and has this sha256; whether that is written down."""
        values = (*numbers_of(stamp), time.time(), sha256.lower())
        return self._write(lambda connection: connection.execute(_NOTE_SHA256, values))

    def sha256_of(self, stamp: Stamp) -> str | None:
        """The sha256 of the file with this stamp, or None where nobody has computed it."""
        query = f"SELECT sha256 FROM contents WHERE {_STAMP}"
        row = self._read(lambda connection: connection.execute(query, numbers_of(stamp)).fetchone(), None)
        return None if row is None or row[0] is None else str(row[0])

    def noted_at(self, stamp: Stamp) -> float:
        """When something was last noted of the file with this stamp, its sha256 if it has one (seconds since
        1970); 0 for an unknown one.
        """
        rows = self._rows(f"SELECT noted_at FROM contents WHERE {_STAMP}", numbers_of(stamp))
        return float(rows[0][0]) if rows else 0.0

    def forget_sha256(self, stamp: Stamp) -> None:
        """The sha256 that was noted for the file with this stamp is wrong."""
        change = f"UPDATE contents SET sha256 = NULL WHERE {_STAMP}"
        self._write(lambda connection: connection.execute(change, numbers_of(stamp)))

    def with_any_sha256(self) -> set[Numbers]:
        """The stamps of all contents whose sha256 is known."""
        rows = self._rows("SELECT device, inode, size, changed_ns FROM contents WHERE sha256 IS NOT NULL", ())
        return set(rows)

    def note_headers(self, headers: Iterable[tuple[Stamp, Header]]) -> None:
        """These headers were read."""
        rows = [(*numbers_of(stamp), time.time(), *header) for stamp, header in headers]
        self._write(lambda connection: connection.executemany(_NOTE_HEADER, _writable(rows)))

    # Which files there are.

    def note_files(self, stamps: Mapping[str, Stamp | None]) -> list[str]:
        """Files as they are now, None for one that is gone; those of which no header was read."""
        unread: list[str] = []

        def note(connection: sqlite3.Connection) -> None:
            unread.clear()
            for paths in _portions(list(stamps)):
                unread.extend(_note_portion(connection, {path: stamps[path] for path in paths}))

        return unread if self._write(note) else []

    def paths_below(self, root: str) -> list[str]:
        """The files of a folder and those below it that were there when last seen."""
        above = os.fsencode(root + os.sep)
        query = "SELECT path FROM files WHERE path > ? AND path < ? AND gone_at IS NULL"
        after = above[:-1] + bytes([above[-1] + 1])
        rows = self._rows(query, (above, after))
        return [os.fsdecode(path) for path, in rows]

    def forget_old(self) -> None:
        """Drop what was known of files that have been gone for long."""
        before = time.time() - SECONDS_GONE_IS_KEPT

        def forget(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM files WHERE gone_at < ?", (before,))
            connection.execute("DELETE FROM contents WHERE noted_at < ? AND NOT EXISTS (SELECT 1 FROM files "
                               "WHERE files.inode = contents.inode AND files.size = contents.size AND "
                               "files.changed_ns = contents.changed_ns AND files.device = contents.device)",
                               (before,))

        if self.file.exists():
            self._write(forget)

    # What searches ask.

    def with_sha256(self, beginning: str) -> dict[str, Numbers]:
        """The files whose sha256 begins so (lower case), with the stamps that it belongs to."""
        return self._found("sha256 >= ? AND sha256 < ?", (beginning, beginning + "g"))

    def of_base_model(self, words: str, asked: Asked | None) -> dict[str, Numbers]:
        """The files of a family, or of some variants; without one those whose own words hold `words`."""
        if asked is None:
            return self._found(_WITH_WORDS, (words.encode("utf-8", "replace").decode(),))
        if asked.variants is None:
            return self._found("base_model = ?", (asked.family,))
        variants = sorted(asked.variants)
        marks = ", ".join("?" * len(variants))
        return self._found(f"base_model = ? AND variant IN ({marks})", (asked.family, *variants))

    def details_of(self, stamps: Iterable[Stamp]) -> dict[Numbers, Details]:
        """What is known of the contents with these stamps."""
        wanted = [numbers_of(stamp) for stamp in stamps]

        def ask(connection: sqlite3.Connection) -> dict[Numbers, Details]:
            rows = ((numbers, connection.execute(_DETAILS, numbers).fetchone()) for numbers in wanted)
            return {numbers: Details(row[0], Header(*row[1:])) for numbers, row in rows if row is not None}

        return self._read(ask, {})

    def _found(self, condition: str, values: Sequence[object]) -> dict[str, Numbers]:
        query = _FOUND.format(condition)
        rows = self._rows(query, values)
        return {os.fsdecode(row[0]): row[1:] for row in rows}

    # The file itself.

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """For many steps in a row: what they write is not carried from the log to the file after each."""
        connection = None
        try:
            with suppress(sqlite3.Error, OSError):  # the steps themselves tell what is wrong
                connection = self._connect()
            yield
        finally:
            if connection is not None:
                connection.close()

    def is_sound(self) -> bool:
        """Look through the whole file; a damaged one is set aside."""
        def look(connection: sqlite3.Connection) -> bool:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if answer != "ok":
                raise sqlite3.DatabaseError(answer)
            return True

        return not self.file.exists() or self._run(look, tries=1) is True

    # Inside.

    def _rows(self, query: str, values: Sequence[object]) -> list[Any]:
        nothing: list[Any] = []
        return self._read(lambda connection: connection.execute(query, values).fetchall(), nothing)

    def _read(self, ask: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        if not self.file.exists():
            return otherwise
        found = self._run(ask)
        return otherwise if found is None else found

    def _write(self, write: Callable[[sqlite3.Connection], object]) -> bool:
        """Whether it was written."""
        def in_one_step(connection: sqlite3.Connection) -> bool:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                write(connection)
            return True

        return self._run(in_one_step) is True

    def _run(self, work: Callable[[sqlite3.Connection], Result], *, tries: int = 2) -> Result | None:
        """What the work gives; None where the database cannot be used, which is logged once."""
        with self._lock:
            for number in range(1, tries + 1):
                try:
                    with closing(self._connect()) as connection:
                        result = work(connection)
                    self._has_failed = False
                    return result
                except (sqlite3.Error, OSError) as error:
                    if not _is_damage(error):
                        self._tell(error)
                        return None
                    self._set_aside(error)
                    if number == tries:
                        return None
        return None

    def _connect(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.file, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            (form,) = connection.execute("PRAGMA user_version").fetchone()
            if form not in (0, 1, FORM):
                raise sqlite3.DatabaseError(f"it has form {form}, and this program knows form {FORM}")
            if form == 0:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_CREATE)
            elif form == 1:
                _bring_up_to_date(connection)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: Exception) -> None:
        aside = self.file.with_name(self.file.name + ".broken")
        log.error("The index of local files %s is damaged (%s). It is kept as %s, and a new one is built. "
                  "Nothing is lost but time: headers are read again, and digests are computed anew in idle "
                  "time or by: python -m comfy_depot verify --hash",
                  self.file, error, aside.name)
        for ending in ("-wal", "-shm"):
            self.file.with_name(self.file.name + ending).unlink(missing_ok=True)
        os.replace(self.file, aside)

    def _tell(self, error: Exception) -> None:
        if not self._has_failed:
            log.error("The index of local files %s cannot be used (%s). Lists are right all the same; "
                      "searches by hash and base model find less. Make room on the disk or correct the "
                      "rights.", self.file, error)
        self._has_failed = True


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """From the form before, unless another process has done it meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
            for statement in filter(str.strip, _FROM_FORM_1.split(";")):
                connection.execute(statement)
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.execute("ROLLBACK")
        raise


def _is_damage(error: Exception) -> bool:
    """Whether the file itself is bad: the subclasses mean a lock, a full disk or rights."""
    return type(error) is sqlite3.DatabaseError


def _note_portion(connection: sqlite3.Connection, stamps: Mapping[str, Stamp | None]) -> list[str]:
    """Bring some paths up to date; those whose header was not read."""
    known = _known(connection, stamps)
    rows = {path: (os.fsencode(path), *numbers_of(stamp))
            for path, stamp in stamps.items() if stamp is not None}
    changed = [path for path, row in rows.items()
               if path not in known or known[path][:4] != row[1:] or known[path][4] is not None]
    for path in changed:
        before, now = known.get(path), rows[path]
        if before is not None and before[1:4] == now[2:] and before[0] != now[1]:
            connection.execute(_TAKE_ALONG, (now[1], *before[:4]))
    connection.executemany(_NOTE_FILE, [rows[path] for path in changed])
    known.update(_known(connection, changed))
    gone = [path for path, row in known.items() if stamps[path] is None and row[4] is None]
    connection.executemany("UPDATE files SET gone_at = ? WHERE path = ?",
                           [(time.time(), os.fsencode(path)) for path in gone])
    return [path for path in rows if not known[path][5]]


def _known(connection: sqlite3.Connection, paths: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """(device, inode, size, changed_ns, gone_at, is_read) of files that stand in the index."""
    rows = connection.execute(_with_marks(_ARE_KNOWN, paths), [os.fsencode(path) for path in paths])
    return {os.fsdecode(row[0]): row[1:] for row in rows}


def numbers_of(stamp: Stamp) -> Numbers:
    """A stamp as the database keeps it."""
    return _signed(stamp.device), _signed(stamp.inode), stamp.size, _signed(stamp.changed_ns)


def _signed(number: int) -> int:
    """SQLite has signed numbers of 64 bits; those of file systems may be larger."""
    return number if 0 <= number < 1 << 63 else (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _portions(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), MOST_AT_ONCE):
        yield paths[start:start + MOST_AT_ONCE]


def _with_marks(query: str, values: Collection[str]) -> str:
    return query.format(", ".join("?" * len(values)))


def _writable(rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """SQLite takes UTF-8 only; a JSON text may hold half of a pair of surrogates."""
    for row in rows:
        yield tuple(value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
                    for value in row)

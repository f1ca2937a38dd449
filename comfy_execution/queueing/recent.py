"""What has just come into the journal, on its way into the table: accepted prompts, and ends of prompts.

To change the table costs about as much for one prompt as for a dozen: it has five indexes, and a page of the
file for each. So each is one line in a file beside at first, which survives when this process is killed (see
`kept_file.py`). Some time later it goes into the table together with others. What a process that died has
left in the files is put into the table at the next start.

There are two files, so that one takes lines while those of the other are being written into the table. A file
whose lines are all in the table is emptied and used again from its start. Each line has the number of this
use: what is left of the use before has another one.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from comfy_execution.queueing.kept_file import EMPTY, KeptFile

COLUMNS = (
    "ended", "ended_at", "turn", "result", "summary", "status", "created", "duration", "workflow", "client",
)  # fmt: skip
ROW = ("sequence", "prompt_id", "item", "priority", "tenant", "turn", "counter", "tokens")
INSERT = f"INTO prompts({', '.join(ROW)}) VALUES "
PLACES = f"({', '.join('?' * len(ROW))})"
FINISH = (
    f"UPDATE OR REPLACE prompts SET {', '.join(f'{name}=?' for name in COLUMNS)} "
    "WHERE sequence=? AND prompt_id=?"
)
"""Takes an `End`."""
ENDINGS = (".recent-1", ".recent-2")
"""Of the files, after the name of the journal."""
ROWS_PER_STATEMENT = 200
ENDS_PER_STATEMENT = 32
MOST_LINES = 256
LONGEST_LINE = 64 << 10
LONGEST_WAIT = 0.25
"""Seconds."""

End = tuple[Any, ...]
"""The values of COLUMNS, the sequence of the prompt, its id."""
Line = tuple[Any, ...]
"""An `Accepted` or an `End`."""
LENGTHS = (len(ROW), len(COLUMNS) + 2)


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


def insert_many(db: sqlite3.Connection, rows: Sequence[Accepted], how: str = "INSERT") -> None:
    """Write prompts that wait. Few statements: each gives up the interpreter's lock once."""
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        part = rows[start : start + ROWS_PER_STATEMENT]
        values = [value for row in part for value in row]
        db.execute(f"{how} {INSERT}{', '.join([PLACES] * len(part))}", values)


def write_lines(db: sqlite3.Connection, lines: Sequence[Line]) -> None:
    """Put lines into the table; some may be there already."""
    insert_many(db, [Accepted(*line) for line in lines if len(line) == len(ROW)], "INSERT OR IGNORE")
    finish_many(db, [line for line in lines if len(line) != len(ROW)])


def finish_many(db: sqlite3.Connection, ends: Sequence[End]) -> None:
    """Write ends of prompts that wait, in few statements."""
    if sqlite3.sqlite_version_info < (3, 33):  # UPDATE FROM
        for end in ends:
            db.execute(FINISH + " AND ended IS NULL", end)
        return
    names = (*COLUMNS, "sequence", "id")
    places = f"({', '.join('?' * len(names))})"
    for start in range(0, len(ends), ENDS_PER_STATEMENT):
        part = ends[start : start + ENDS_PER_STATEMENT]
        db.execute(
            f"WITH new({', '.join(names)}) AS (VALUES {', '.join([places] * len(part))}) "
            f"UPDATE OR REPLACE prompts SET {', '.join(f'{name}=new.{name}' for name in COLUMNS)} FROM new "
            "WHERE prompts.sequence=new.sequence AND prompts.prompt_id=new.id AND prompts.ended IS NULL",
            [value for end in part for value in end],
        )


class _File:
    """Lines of one use after the other."""

    def __init__(self, path: Path) -> None:
        self.not_written = 0
        """How many of its lines are not in the table yet."""
        self._place = 0
        self._path = path
        self._file = KeptFile(path)

    def read(self) -> tuple[int, list[Line]]:
        """(the number of the last use, its lines that were not in the table)."""
        found, use = [], 0
        for text in self._path.read_bytes().splitlines(keepends=True):
            try:
                number, values = json.loads(text)
                line = tuple(values)
            except (ValueError, TypeError):  # left over, or the last line of a killed process
                break
            if use not in (0, number) or not text.endswith(b"\n") or len(line) not in LENGTHS:
                break
            use = int(number)
            found.append(line)
        return use, found

    def add(self, use: int, line: Line) -> bool:
        """False if it cannot be written."""
        place = self._place if self.not_written else 0
        with contextlib.suppress(OSError, TypeError):  # TypeError: SQLite must say what is wrong with it
            text = b"[%d, %b]\n" % (use, orjson.dumps(tuple(line)))
            if len(text) > LONGEST_LINE:
                return False
            self._file.write(text, place)
            self._place = place + len(text)
            self.not_written += 1
            return True
        return False

    def note_written(self, count: int) -> None:
        """So many of its lines are in the table."""
        self.not_written -= count
        if not self.not_written:
            self._file.write(EMPTY, 0)

    def close(self) -> None:
        self._file.close()


class RecentLines:
    """Lines that are in a file, and not in the table yet. Any thread."""

    def __init__(self, journal: Path) -> None:
        self._mutex = threading.Lock()
        self._files = [_File(journal.with_name(journal.name + ending)) for ending in ENDINGS]
        self._active = self._files[0]
        self._uses = 0
        self._waiting: list[tuple[_File, Line]] = []
        self._since = 0.0

    def left(self) -> list[Line]:
        """What the process before has left, in order."""
        found = sorted((file.read() for file in self._files), key=lambda found: found[0])
        self._uses = max(self._uses, found[-1][0])
        return [line for _, lines in found for line in lines]

    def take_up(self, write: Callable[[Sequence[Line]], None]) -> None:
        """Let `write` put into the table what was left. It stays, and the files are closed, when it raises.
        """
        try:
            if lines := self.left():
                write(lines)
            for file in self._files:
                file.note_written(0)
        except BaseException:
            self.close()
            raise

    def add(self, line: Line) -> bool:
        """Keep a line. False if it must go into the table at once: the disk is full, or it is too long."""
        with self._mutex:
            if not self._active.not_written:
                self._uses += 1
            if not self._active.add(self._uses, line):
                return False
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append((self._active, line))
            return True

    def are_due(self) -> bool:
        """Is it time to write them into the table?"""
        waiting = self._waiting
        is_old = bool(waiting) and time.monotonic() - self._since > LONGEST_WAIT
        return is_old or len(waiting) >= MOST_LINES

    def write(self, write: Callable[[Sequence[Line]], None]) -> None:
        """Let `write` put all of them into the table. They stay when it raises."""
        with self._mutex:
            taken, self._waiting = self._waiting, []
            other = next(file for file in self._files if file is not self._active)
            if not other.not_written:
                self._active = other
        if not taken:
            return
        try:
            write([line for _, line in taken])
        except BaseException:
            with self._mutex:
                self._waiting = taken + self._waiting
            raise
        with self._mutex:
            for file, count in Counter(file for file, _ in taken).items():
                file.note_written(count)

    def close(self) -> None:
        """Write no more."""
        for file in self._files:
            file.close()

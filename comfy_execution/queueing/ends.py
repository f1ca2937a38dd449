"""Ends of prompts on their way into the journal's table.

To change the table costs about as much for one prompt as for a dozen: it has five indexes, and a page of the
file for each. An end is therefore one line in a file beside at first: that takes a few microseconds, and the
system keeps it when this process is killed. Some time later it goes into the table together with others. What
a process that died has left in the files is put into the table at the next start.

There are two files, so that one takes ends while those of the other are being written into the table. A file
whose ends are all in the table is used again from its start, and each line has the number of this use: what
is left of the use before has another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comfy_execution.queueing.attempt import write_at

COLUMNS = (
    "ended", "ended_at", "turn", "result", "summary", "status", "created", "duration", "workflow", "client",
)  # fmt: skip
FINISH = (
    f"UPDATE OR REPLACE prompts SET {', '.join(f'{name}=?' for name in COLUMNS)} "
    "WHERE sequence=? AND prompt_id=?"
)
"""Takes an `End`."""
ENDINGS = (".ends-1", ".ends-2")
"""Of the files, after the name of the journal."""
ENDS_PER_STATEMENT = 32
LONGEST_LINE = 64 << 10
LONGEST_WAIT = 0.25
"""Seconds."""

End = tuple[Any, ...]
"""The values of COLUMNS, the sequence of the prompt, its id."""


def finish_many(db: sqlite3.Connection, ends: Sequence[End]) -> None:
    """Write ends of prompts that wait. Few statements: each gives up the interpreter's lock once."""
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
        """How many of its ends are not in the table yet."""
        self._place = 0
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)

    def read(self) -> list[End]:
        """The ends of the last use."""
        found, use = [], None
        for line in self._path.read_bytes().splitlines(keepends=True):
            try:
                number, values = json.loads(line)
                end = tuple(values)
            except (ValueError, TypeError):  # left over, or the last line of a killed process
                break
            if use not in (None, number) or not line.endswith(b"\n") or len(end) != len(COLUMNS) + 2:
                break
            use = number
            found.append(end)
        return found

    def add(self, use: int, end: End) -> bool:
        """False if it cannot be written."""
        line = f"[{use}, {json.dumps(end)}]\n".encode()
        if len(line) > LONGEST_LINE:
            return False
        place = self._place if self.not_written else 0
        with contextlib.suppress(OSError):
            if write_at(self._file, line, place) == len(line):
                self._place = place + len(line)
                self.not_written += 1
                return True
        return False

    def empty(self) -> None:
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        os.close(self._file)


class EndsOnTheirWay:
    """Ends that are in a file, and not in the table yet. Any thread."""

    def __init__(self, journal: Path) -> None:
        self._mutex = threading.Lock()
        self._files = [_File(journal.with_name(journal.name + ending)) for ending in ENDINGS]
        self._active = self._files[0]
        self._uses = 0
        self._waiting: list[tuple[_File, End]] = []
        self._since = 0.0

    def left(self) -> list[End]:
        """What the process before has left, in order."""
        return sorted((end for file in self._files for end in file.read()), key=lambda end: float(end[0]))

    def take_up(self, write: Callable[[Sequence[End]], None]) -> None:
        """Let `write` put into the table what was left. It stays, and the files are closed, when it raises.
        """
        try:
            if ends := self.left():
                write(ends)
            for file in self._files:
                file.empty()
        except BaseException:
            self.close()
            raise

    def add(self, end: End) -> bool:
        """Keep an end. False if it must go into the table at once: the disk is full, or it is too long."""
        with self._mutex:
            if not self._active.not_written:
                self._uses += 1
            if not self._active.add(self._uses, end):
                return False
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append((self._active, end))
            return True

    def are_due(self) -> bool:
        """Is it time to write them into the table?"""
        waiting = self._waiting
        is_old = bool(waiting) and time.monotonic() - self._since > LONGEST_WAIT
        return is_old or len(waiting) >= ENDS_PER_STATEMENT

    def write(self, write: Callable[[Sequence[End]], None]) -> None:
        """Let `write` put all of them into the table. They stay when it raises."""
        with self._mutex:
            taken, self._waiting = self._waiting, []
            other = next(file for file in self._files if file is not self._active)
            if not other.not_written:
                self._active = other
        if not taken:
            return
        try:
            write([end for _, end in taken])
        except BaseException:
            with self._mutex:
                self._waiting = taken + self._waiting
            raise
        with self._mutex:
            for file, _ in taken:
                file.not_written -= 1

    def close(self) -> None:
        """Write no more."""
        for file in self._files:
            file.close()

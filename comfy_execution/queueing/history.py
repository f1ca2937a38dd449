"""The history in a journal: read from the file in pages, so that it takes no memory.

What a list of jobs shows of a prompt is worked out once, when the prompt has run.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from typing import Any

from comfy_execution import jobs
from comfy_execution.queueing.journal import Journal
from comfy_execution.queueing.recent import FINISH, Accepted, insert_many

HistoryEntry = dict[str, Any]

OF_FINISHED = " FROM prompts WHERE ended IS NOT NULL "
SHORTEST_TOKEN = 6
"""A shorter text is no token, and taking it out everywhere would leave no JSON worth reading."""
SURPLUS = 0.01
"""When the oldest entries are dropped: to count and drop them takes as long as a tiny prompt."""


def without(text: str, secrets: Iterable[Any]) -> str:
    """JSON text without these texts: a token must not reach the disk, wherever a node has put it."""
    for secret in secrets:
        if isinstance(secret, str) and len(secret) >= SHORTEST_TOKEN:
            for written in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
                text = text.replace(written, "[removed]")
    return text


def key_text(value: Any) -> str | None:
    """Any text of a client as one that SQLite takes (JSON may hold half characters)."""
    return None if value is None else json.dumps(value)


def entry_text(item: str, result: str) -> str:
    """The JSON of an entry from its two stored parts."""
    return '{"prompt": ' + item + ", " + result[1:]


class JournalHistory(MutableMapping[str, HistoryEntry]):
    """Entries by prompt id, oldest first. Raises JournalError when the journal cannot be read."""

    def __init__(self, journal: Journal, limit: Callable[[], int]) -> None:
        self._journal = journal
        self._limit = limit
        row = journal.read(lambda db: db.execute("SELECT count(*), max(ended)" + OF_FINISHED).fetchone())
        self._count: int = row[0]
        self._ended: int = max(row[1] or 0, journal.lock.told.highest())  # also if the history was cleared

    # -- writing -------------------------------------------------------------------------------------------

    def finish(
        self,
        entry: HistoryEntry,
        *,
        sequence: int | None,
        turn: int = 0,
        secrets: Sequence[Any] = (),
        same_item: bool = True,
    ) -> int:
        """A prompt has run: its row, which waited under `sequence`, becomes history. Gives its number."""
        prompt = entry["prompt"]
        prompt_id = str(prompt[1])
        result = {key: value for key, value in entry.items() if key != "prompt"}
        job = jobs.normalize_history_item(prompt_id, entry)
        self._ended += 1
        values = (
            self._ended, time.time(), turn, without(self._journal.encode(result), secrets),
            without(self._journal.encode(job), secrets), job["status"], _number(job.get("create_time")),
            _number(jobs.duration_of(job)), key_text(job.get("workflow_id")),
            key_text((prompt[3] or {}).get("client_id")),
        )  # fmt: skip
        item = ""
        if sequence is None or not same_item:
            item = without(self._journal.encode(list(prompt)), secrets)

        def write(db: sqlite3.Connection) -> None:
            if sequence is not None and db.execute(FINISH, (*values, sequence, prompt_id)).rowcount:
                db.execute("UPDATE prompts SET item=? WHERE sequence=?", (item, sequence))
                return
            row = Accepted(_next_sequence(db), prompt_id, item, 0.0, "", turn, 0.0, "[]")
            insert_many(db, [row])
            db.execute(FINISH, (*values, row.sequence, prompt_id))

        end = (*values, sequence, prompt_id)
        if item or not (self._journal.submit_end(end) or self._journal.run_statement(FINISH, end)):
            item = item or without(self._journal.encode(list(prompt)), secrets)
            self._journal.run(write)
        self._count += 1
        if self._count > self._limit() * (1 + SURPLUS):
            self._journal.submit(self._drop_oldest)
        return int(values[0])

    def _drop_oldest(self, db: sqlite3.Connection) -> None:
        count = db.execute("SELECT count(*)" + OF_FINISHED).fetchone()[0]
        surplus = max(0, count - self._limit())
        oldest = f"SELECT sequence {OF_FINISHED} ORDER BY ended LIMIT ?"
        db.execute(f"DELETE FROM prompts WHERE sequence IN ({oldest})", (surplus,))
        self._count = count - surplus

    def __setitem__(self, prompt_id: str, entry: HistoryEntry) -> None:
        prompt = entry["prompt"]
        self.finish({**entry, "prompt": (prompt[0], prompt_id, *prompt[2:])}, sequence=None)

    def __delitem__(self, prompt_id: str) -> None:
        found = self._journal.run(
            lambda db: db.execute(
                "DELETE FROM prompts WHERE prompt_id=? AND ended IS NOT NULL", (prompt_id,)
            ).rowcount
        )
        if not found:
            raise KeyError(prompt_id)
        self._count -= 1

    def clear(self) -> None:
        """Forget all."""
        self._journal.run(lambda db: db.execute("DELETE FROM prompts WHERE ended IS NOT NULL"))
        self._count = 0

    # -- reading -------------------------------------------------------------------------------------------

    def texts(
        self, prompt_id: str | None = None, max_items: int | None = None, offset: int = -1
    ) -> list[tuple[str, str]]:
        """(prompt id, JSON) of an entry, or of a page: `max_items` from `offset`, if negative the newest."""
        if prompt_id is not None:
            if not prompt_id.isprintable():  # no prompt has such an id, and SQLite takes no half characters
                return []
            where, values = "AND prompt_id=?", (prompt_id,)
            query = f"SELECT prompt_id, item, result {OF_FINISHED} {where}"
            rows = self._journal.read(lambda db: db.execute(query, values).fetchall())
        else:
            start = max(0, len(self) - max_items if offset < 0 and max_items is not None else offset)
            query = f"SELECT prompt_id, item, result {OF_FINISHED} ORDER BY ended LIMIT ? OFFSET ?"
            count = -1 if max_items is None else max_items
            rows = self._journal.read(lambda db: db.execute(query, (count, start)).fetchall())
        return [(name, entry_text(item, result)) for name, item, result in rows]

    def page(self, max_items: int | None, offset: int) -> dict[str, HistoryEntry]:
        """Entries of a page."""
        return {name: _parsed(text) for name, text in self.texts(None, max_items, offset)}

    def __getitem__(self, prompt_id: str) -> HistoryEntry:
        found = self.texts(prompt_id) if isinstance(prompt_id, str) else []
        if not found:
            raise KeyError(prompt_id)
        return _parsed(found[0][1])

    def __contains__(self, prompt_id: object) -> bool:
        if not isinstance(prompt_id, str) or not prompt_id.isprintable():
            return False
        query = f"SELECT 1 {OF_FINISHED} AND prompt_id=?"
        return self._journal.read(lambda db: db.execute(query, (prompt_id,)).fetchone()) is not None

    def __iter__(self) -> Iterator[str]:
        query = f"SELECT prompt_id {OF_FINISHED} ORDER BY ended"
        return iter([row[0] for row in self._journal.read(lambda db: db.execute(query).fetchall())])

    def __len__(self) -> int:
        count: int = self._journal.read(lambda db: db.execute("SELECT count(*)" + OF_FINISHED).fetchone()[0])
        return count

    # -- jobs ----------------------------------------------------------------------------------------------

    def jobs_page(self, live: Sequence[jobs.Job], wish: jobs.Wish) -> tuple[list[jobs.Job], int]:
        """(one page of all jobs, their number); `live` are the jobs that wait or run.

        Only the rows of the page are read. Before the page come at most `offset` finished jobs, and at least
        `offset` less the number of live ones: reading begins there, and the page is cut from the merged rows.
        """
        mine = [job for job in live if wish.wants(job)]
        conditions, values = "", []
        if wish.statuses is not None:
            conditions += f" AND status IN ({', '.join('?' * len(wish.statuses))})"
            values += list(wish.statuses)
        if wish.workflow_id:
            conditions += " AND workflow=?"
            values.append(json.dumps(wish.workflow_id))
        first = max(0, wish.offset - len(mine))
        until = -1 if wish.limit is None else wish.limit + wish.offset - first
        column = "duration" if wish.sort_by == "execution_duration" else "created"
        direction = "DESC" if wish.sort_order == "desc" else "ASC"
        order = f"ORDER BY {column} {direction}, ended LIMIT ? OFFSET ?"
        query = f"SELECT summary {OF_FINISHED} {conditions} {order}"

        def look(db: sqlite3.Connection) -> tuple[int, list[tuple[str]]]:
            count = db.execute(f"SELECT count(*) {OF_FINISHED} {conditions}", values).fetchone()[0]
            return count, db.execute(query, (*values, until, first)).fetchall()

        count, rows = self._journal.read(look)
        merged = jobs.apply_sorting(
            [*mine, *(json.loads(row[0]) for row in rows)], wish.sort_by, wish.sort_order
        )
        start = wish.offset - first
        return merged[start : None if wish.limit is None else start + wish.limit], len(mine) + count


def _parsed(text: str) -> HistoryEntry:
    entry: HistoryEntry = json.loads(text)
    entry["prompt"] = tuple(entry["prompt"])
    return entry


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _next_sequence(db: sqlite3.Connection) -> int:
    """A row for an entry that never waited here."""
    return int(db.execute("SELECT coalesce(min(sequence), 0) - 1 FROM prompts").fetchone()[0])

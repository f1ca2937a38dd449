"""What a queue does with its journal: write down what it accepts, and take up what the process before left.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from comfy_execution.queueing.attempt import LONGEST_SILENCE, Attempt, AttemptFile
from comfy_execution.queueing.history import JournalHistory, without
from comfy_execution.queueing.journal import Journal, JournalError, JournalFullError, WhenDone
from comfy_execution.queueing.recent import Accepted
from comfy_execution.queueing.waiting import QueueItem, WaitingPrompts

log = logging.getLogger(__name__)

MAX_DEATHS = 2
SECONDS_BETWEEN_COMPLAINTS = 30.0
ENDS_ON_THEIR_WAY = 1024
LONGEST_DOWNTIME = 600.0
"""Seconds after which nobody waits any more for the end of a prompt."""


@dataclass
class Recovered:
    """What was found in a journal."""

    waiting: WaitingPrompts
    counter: float = 0.0
    """The next number for a prompt."""
    paused: bool = False
    was_running: QueueItem | None = None
    clients: set[str] = field(default_factory=set)
    """Whose prompts wait."""


class DurableQueue:
    """The journal of one queue."""

    def __init__(
        self,
        journal: Journal,
        *,
        history_size: Callable[[], int],
        max_deaths: int = MAX_DEATHS,
        temp_directory: Callable[[], str] | None = None,
    ) -> None:
        """A prompt in whose run the process died `max_deaths` times in a row is set aside; 0: never."""
        self.journal = journal
        self.history = JournalHistory(journal, history_size)
        self.max_deaths = max_deaths
        self.temp_directory = temp_directory
        self.attempt: Attempt | None = None
        self._file = AttemptFile(
            journal.path.with_name(journal.path.name + ".attempt"), flushes=journal.sync == "full"
        )
        self._past = self._file.past
        self._alive_until = min(journal.lock.last_sign_of_life + LONGEST_SILENCE, journal.opened_at)
        self.next_sequence = 0
        self._ends = _Ends()
        self._said_full = -SECONDS_BETWEEN_COMPLAINTS

    # -- what comes in -------------------------------------------------------------------------------------

    def row_of(self, item: QueueItem, counter: float) -> Accepted:
        """The row of an item; its tokens stay out. ValueError for what JSON cannot say."""
        tokens = item[5] if len(item) > 5 and isinstance(item[5], dict) else {}
        text = self._text_of(list(item[:5]))
        self.next_sequence += 1
        item.size = len(text)
        self.journal.bytes_waiting += item.size
        item.sequence = item.arrival = self.next_sequence
        return Accepted(
            item.sequence, str(item[1]), without(text, tokens.values()), item.priority, item.tenant,
            item.turn, float(counter), json.dumps(sorted(tokens)),
        )  # fmt: skip

    def _text_of(self, shown: list[Any]) -> str:
        with contextlib.suppress(TypeError):  # quick, and takes plain data only
            return orjson.dumps(shown).decode()
        try:
            return json.dumps(shown, allow_nan=False)
        except (TypeError, ValueError):  # objects that a pack has put there, or an infinite number
            return self.journal.encode(shown)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def accept(self, row: Accepted, when_done: WhenDone) -> bool:
        """True if it is safe. Else it will be soon, together with others: `when_done` is told."""
        if self.journal.accept(row):
            return True

        def done(error: JournalError | None) -> None:
            if error is not None:
                self.journal.bytes_waiting -= len(row.item)
            when_done(error)

        self.journal.submit(row, done)
        return False

    def forget(self, items: Sequence[QueueItem]) -> None:
        """Waiting prompts were taken out of the queue."""
        self.journal.bytes_waiting -= sum(item.size for item in items)
        sequences = [(item.sequence,) for item in items if item.sequence is not None]
        self.journal.run_or_owe(lambda db: db.executemany("DELETE FROM prompts WHERE sequence=?", sequences))

    def set_paused(self, paused: bool) -> None:
        """Keep it over restarts."""
        self.journal.run_or_owe(
            lambda db: db.execute("INSERT OR REPLACE INTO settings VALUES ('paused', ?)", (str(int(paused)),))
        )

    # -- what runs -----------------------------------------------------------------------------------------

    def begin(self, item: QueueItem) -> None:
        """A prompt starts."""
        self.journal.shows_life = True
        self.journal.lock.show_life()
        self.attempt = Attempt(
            self._file,
            -1 if item.sequence is None else item.sequence,
            encode=_scrubbing(self.journal.encode, item),
            alive_until=self._alive_until,
            temp_directory=self.temp_directory,
        )

    def finish(self, item: QueueItem | None, entry: dict[str, Any], *, same_item: bool) -> bool:
        """A prompt has ended. False while the disk is full: ask again, the result must not get lost."""
        secrets = list(item[5].values()) if item is not None and len(item) > 5 and item[5] else []
        sequence, turn = (None, 0) if item is None else (item.sequence, item.turn)
        if self.journal.closed:  # the process is about to end, and the prompt will run again
            return True
        try:
            number = self.history.finish(
                entry, sequence=sequence, turn=turn, secrets=secrets, same_item=same_item
            )
            self._ends.add(str(entry["prompt"][1]), number)
        except JournalFullError as error:
            if time.monotonic() - self._said_full > SECONDS_BETWEEN_COMPLAINTS:
                self._said_full = time.monotonic()
                log.error("%s The queue waits until there is room.", error)
            return False
        except JournalError as error:
            log.error("Prompt %s has ended and is not in the history: %s", entry["prompt"][1], error)
        self.journal.shows_life = False
        self.attempt = None
        self.journal.bytes_waiting -= 0 if item is None else item.size
        return True

    def number_for(self, folder: str, name: str, free: int) -> int:
        """The number for a file to be saved (see `folder_paths.chooses_number`)."""
        attempt = self.attempt
        return free if attempt is None else attempt.number_for(folder, name, free)

    def note_stopped(self) -> None:
        """The process is asked to stop while a prompt runs: it will run again, and no death is counted."""
        if self.attempt is not None:
            self._file.add({"stopped": True})

    # -- after a restart -----------------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """Everything that waited; a prompt that killed the process too often goes to the history instead."""
        found = Recovered(WaitingPrompts())
        rows = self.journal.read(_read_waiting)
        items = []
        for row in rows:
            item = QueueItem((*json.loads(row["item"]), {}), arrival=row["sequence"])
            item.sequence, item.turn = row["sequence"], row["turn"]
            item.size = len(row["item"])
            self.journal.bytes_waiting += item.size
            item.missing_tokens = tuple(json.loads(row["tokens"]))
            found.counter = max(found.counter, row["counter"])
            if (client := (item[3] or {}).get("client_id")) is not None:
                found.clients.add(str(client))
            if item.sequence == self._past.sequence:
                deaths = self._count_death(row["deaths"])
                if self.max_deaths and deaths >= self.max_deaths:
                    self._set_aside(item, deaths)
                else:
                    found.was_running = item
            else:
                items.append(item)
        for item in items:
            found.waiting.push(item)
        if found.was_running is not None:
            found.waiting.push_first(found.was_running)
        for priority, tenant, turn in self.journal.read(_read_turns):
            found.waiting.note_turn(priority, tenant, turn)
        found.paused = self.journal.read(_read_paused)
        # The row of the past attempt may be gone (a cleared history): its number must not come again.
        self.next_sequence = max(self.journal.read(_read_last_sequence), self._past.sequence or 0)
        if found.was_running is None:
            self._past.sequence = None
        return found

    def _count_death(self, deaths: int) -> int:
        """How often the process has died in a row while the prompt of the past attempt ran."""
        if self._past.counted:
            return deaths
        sequence, counted = self._past.sequence, 0 if self._past.stopped else deaths + 1
        self.journal.run(
            lambda db: db.execute("UPDATE prompts SET deaths=? WHERE sequence=?", (counted, sequence))
        )
        self._file.add({"counted": True})
        return counted

    def _set_aside(self, item: QueueItem, deaths: int) -> None:
        node_id = self.journal.lock.last_note
        node = item[2].get(node_id, {})
        times = "twice" if deaths == 2 else f"{deaths} times"
        last = f"The last node was {node_id} ({node.get('class_type', 'unknown')})." if node_id else ""
        message = (
            f"The server died {times} in a row while it ran this prompt, so it is set aside. {last} "
            "Look into the log and at the free memory, then queue the prompt again if you want another try."
        )
        log.error("Prompt %s: %s", item[1], message)
        details = {
            "prompt_id": item[1], "node_id": node_id, "node_type": node.get("class_type", ""),
            "executed": sorted(self._past.done), "exception_message": message,
            "exception_type": "ServerDied", "traceback": [], "current_inputs": {}, "current_outputs": [],
            "timestamp": int(time.time() * 1000),
        }  # fmt: skip
        shown = self._past.shown
        self.finish(item, {
            "prompt": tuple(item[:5]),
            "outputs": {node: what["output"] for node, what in shown.items()},
            "meta": {node: what["meta"] for node, what in shown.items()},
            "status": {"status_str": "error", "completed": False, "messages": [["execution_error", details]]},
            "reasons": {},
        }, same_item=True)

    def note_told(self, client_id: str, prompt_id: str) -> None:
        """The client was sent the end of this prompt."""
        number = self._ends.pop(prompt_id)
        if number is not None and self.journal.lock.held:
            self.journal.lock.told.note(client_id, number)

    def ended_lately(self, client_id: str, seconds: float, count: int) -> list[dict[str, Any]]:
        """Entries of a client's prompts that ended so many seconds before the last process died, or later, in
        order, without those whose end it was told.
        """
        since = max(self.journal.lock.last_sign_of_life - seconds, self.journal.opened_at - LONGEST_DOWNTIME)
        query = (
            "SELECT prompt_id, ended FROM prompts WHERE ended IS NOT NULL AND ended_at>=? AND client=? "
            "AND ended>? ORDER BY ended DESC LIMIT ?"
        )
        values = (since, json.dumps(client_id), self.journal.lock.told.last_end(client_id), count)
        rows = self.journal.read(lambda db: db.execute(query, values).fetchall())
        for prompt_id, ended in rows:
            self._ends.add(prompt_id, ended)
        return [self.history[row[0]] for row in reversed(rows)]


class _Ends:
    """The numbers of the ends that are on their way to clients, the newest ones. Any thread."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._mutex = threading.Lock()

    def add(self, prompt_id: str, number: int) -> None:
        with self._mutex:
            self._numbers[prompt_id] = number
            if len(self._numbers) > ENDS_ON_THEIR_WAY:
                del self._numbers[next(iter(self._numbers))]

    def pop(self, prompt_id: str) -> int | None:
        with self._mutex:
            return self._numbers.pop(prompt_id, None)


def _scrubbing(encode: Callable[[Any], str], item: QueueItem) -> Callable[[Any], str]:
    secrets = list(item[5].values()) if len(item) > 5 and item[5] else []
    return (lambda value: without(encode(value), secrets)) if secrets else encode


def _read_waiting(db: sqlite3.Connection) -> list[dict[str, Any]]:
    columns = ("sequence", "item", "turn", "counter", "tokens", "deaths")
    rows = db.execute(f"SELECT {', '.join(columns)} FROM prompts WHERE ended IS NULL ORDER BY sequence")
    return [dict(zip(columns, row)) for row in rows]


def _read_turns(db: sqlite3.Connection) -> list[tuple[float, str, int]]:
    query = "SELECT priority, tenant, max(turn) FROM prompts WHERE ended IS NOT NULL GROUP BY 1, 2"
    return db.execute(query).fetchall()


def _read_paused(db: sqlite3.Connection) -> bool:
    row = db.execute("SELECT value FROM settings WHERE name='paused'").fetchone()
    return row is not None and row[0] == "1"


def _read_last_sequence(db: sqlite3.Connection) -> int:
    return max(0, int(db.execute("SELECT coalesce(max(sequence), 0) FROM prompts").fetchone()[0]))

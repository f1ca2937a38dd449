"""Webhooks that wait for the end of their prompt, and messages that wait to be sent: a small SQLite file.

It is for the eyes of its owner only, because it holds the secrets that messages are signed with.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS hooks (id TEXT PRIMARY KEY, prompt_id TEXT, url TEXT, events TEXT, secret TEXT,
    base TEXT);
CREATE INDEX IF NOT EXISTS hooks_of_prompt ON hooks (prompt_id);
CREATE TABLE IF NOT EXISTS messages (id TEXT PRIMARY KEY, url TEXT, host TEXT, body BLOB, secret TEXT,
    tries INTEGER DEFAULT 0, due REAL DEFAULT 0);
CREATE INDEX IF NOT EXISTS messages_due ON messages (due);
"""


@dataclass(frozen=True)
class Hook:
    """Who wants to hear of the end of a prompt. `base` is the server's address as its client knows it."""

    id: str
    prompt_id: str
    url: str
    events: tuple[str, ...]
    secret: str | None
    base: str


@dataclass(frozen=True)
class Message:
    """What has to be posted; `tries` counts those that have failed."""

    id: str
    url: str
    body: bytes
    secret: str | None
    tries: int = 0

    @property
    def host(self) -> str:
        """Where it goes: host and port."""
        return urlsplit(self.url).netloc.lower()


def _open(path: str | None) -> sqlite3.Connection:
    if path is not None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")  # as the journal: it survives the process
        db.executescript(SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _set_aside(path: str, error: Exception) -> None:
    """The file is damaged: keep it under another name."""
    number = 1
    while os.path.exists(aside := f"{path}.damaged-{number}"):
        number += 1
    for ending in ("", "-wal", "-shm"):
        if os.path.exists(path + ending):
            os.replace(path + ending, aside + ending)
    log.error("The file of webhooks is damaged (%s). It was moved to %s, and a new one begun: webhooks that "
              "waited are in the old file only.", error, aside)


class WebhookStore:
    """The file at `path`, or memory only. From any thread."""

    def __init__(self, path: str | None) -> None:
        self._lock = threading.Lock()
        try:
            self._db = _open(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            _set_aside(str(path), error)
            self._db = _open(path)

    def hooks(self, prompt_id: str | None = None) -> list[Hook]:
        """Those that wait, of one prompt or of all."""
        where, values = ("", ()) if prompt_id is None else (" WHERE prompt_id=?", (prompt_id,))
        query = "SELECT id, prompt_id, url, events, secret, base FROM hooks" + where
        with self._lock:
            rows = self._db.execute(query, values).fetchall()
        return [Hook(row[0], row[1], row[2], tuple(json.loads(row[3])), row[4], row[5]) for row in rows]

    def add_hook(self, hook: Hook) -> None:
        """Write it down."""
        row = (hook.id, hook.prompt_id, hook.url, json.dumps(hook.events), hook.secret, hook.base)
        with self._lock:
            self._db.execute("INSERT INTO hooks VALUES (?, ?, ?, ?, ?, ?)", row)

    def drop(self, hook_id: str) -> None:
        """Nobody needs it any more."""
        with self._lock:
            self._db.execute("DELETE FROM hooks WHERE id=?", (hook_id,))

    def add_message(self, hook: Hook, message: Message) -> None:
        """The hook's prompt has ended: the message takes its place, in one step."""
        row = (message.id, message.url, message.host, message.body, message.secret)
        with self._lock, self._db:
            self._db.execute("BEGIN")
            self._db.execute(
                "INSERT OR IGNORE INTO messages (id, url, host, body, secret) VALUES (?, ?, ?, ?, ?)", row
            )
            self._db.execute("DELETE FROM hooks WHERE id=?", (hook.id,))

    def due(self, most: int, *, but: Collection[str] = (), but_hosts: Collection[str] = ()) -> list[Message]:
        """Messages whose time has come, the oldest first, without these ids and those to these hosts."""
        query = (
            "SELECT id, url, body, secret, tries FROM messages WHERE due<=? "
            f"AND id NOT IN ({', '.join('?' * len(but))}) "
            f"AND host NOT IN ({', '.join('?' * len(but_hosts))}) "
            "ORDER BY due LIMIT ?"
        )
        with self._lock:
            rows = self._db.execute(query, (time.time(), *but, *but_hosts, most)).fetchall()
        return [Message(*row) for row in rows]

    def seconds_to_next(self) -> float | None:
        """Until the next message is due; None when there is none."""
        with self._lock:
            first = self._db.execute("SELECT min(due) FROM messages").fetchone()[0]
        return None if first is None else max(0.0, first - time.time())

    def put_off(self, message: Message, seconds: float) -> None:
        """A try has failed, or is under way: look again after this time. Counts the try."""
        with self._lock:
            self._db.execute(
                "UPDATE messages SET tries=?, due=? WHERE id=?",
                (message.tries + 1, time.time() + seconds, message.id),
            )

    def delivered(self, message: Message) -> None:
        """It has arrived, or is given up."""
        with self._lock:
            self._db.execute("DELETE FROM messages WHERE id=?", (message.id,))

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._db.close()

"""What the depot has fetched, and what a manifest promised then (SQLite, WAL; in the state folder).

A manifest may point a name to other bytes. Then a file that the depot brought is replaced, and a file that
somebody put there never is: this tells them apart. What is noted counts for a file of exactly this name, size
and time of change, so who writes into a file, or puts another in its place, makes it theirs. Device and
inode do not count: a library that was copied to another disk with its dates is still the depot's.

A file is noted before it gets its name, and what was noted of the one that stands there stays: whenever the
process ends, both are known. Where nothing can be noted or read, nothing is the depot's.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from comfy_depot.digests import Digests
from comfy_depot.eviction import Stamp
from comfy_depot.hashing import digest_of, sha256_file
from comfy_depot.manifest import Entry

FILE_NAME = "arrivals.sqlite3"
MOST_OF_ONE = 8
"""Notes about one name: those of files that have gone are of no use."""
_CREATE = """
CREATE TABLE IF NOT EXISTS arrivals (
    folder TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    promise TEXT NOT NULL, PRIMARY KEY (folder, name, size, changed_ns))
"""
_FORGET_OLD = """
DELETE FROM arrivals WHERE folder = ?1 AND name = ?2 AND rowid NOT IN (
    SELECT rowid FROM arrivals WHERE folder = ?1 AND name = ?2 ORDER BY rowid DESC LIMIT ?3)
"""
_FIND = "SELECT promise FROM arrivals WHERE folder = ? AND name = ? AND size = ? AND changed_ns = ?"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Promise:
    """What a manifest's entry says about the bytes; long parts as digests. That of nothing: whatever comes is
    something else.
    """

    urls: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    pieces: str | None = None
    archive: str | None = None
    """The sha256 of the archive that it is a member of."""
    member: str | None = None

    @classmethod
    def of(cls, entry: Entry) -> Promise:
        """That of an entry."""
        bundle = entry.bundle
        has_pieces = entry.pieces is not None and entry.sha256 is None  # a sha256 says it all
        return cls(
            tuple(map(digest_of, entry.urls)), entry.sha256, entry.size,
            digest_of(repr(entry.pieces)) if has_pieces else None,
            None if bundle is None else bundle.sha256, None if bundle is None else bundle.member,
        )

    @property
    def content(self) -> str:
        """Which content that is: another text for other bytes, as far as a manifest tells."""
        return self.sha256 or digest_of(repr((self.urls, self.size, self.pieces, self.archive, self.member)))

    def names_other_bytes(self, then: Promise, *, size: int, sha256: str | None) -> bool:
        """Whether this promise is certainly or probably not about the file that was fetched for the promise
        `then`. It has `size` bytes, and `sha256` where that is known.

        With a sha256 on both sides that alone counts. A promise without one is about other bytes where size,
        pieces or place in the archive differ, or where no url is one of those of then; a mirror more or less
        is none of these.
        """
        if self.sha256 is not None and (then.sha256 or sha256) is not None:
            return self.sha256 != (then.sha256 or sha256)
        if self.sha256 is not None or self.size not in (None, size) or self.member != then.member:
            return True
        for now, before in ((self.pieces, then.pieces), (self.archive, then.archive)):
            if now is not None and before is not None:
                return now != before
        return not set(self.urls) & set(then.urls)


class Arrivals:
    """The notes of one state folder. Every method may be called from any thread and by several processes."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / FILE_NAME

    def note(self, entry: Entry, stamp: Stamp, promise: Promise) -> None:
        """The file with this stamp was brought for this promise, and gets the entry's name, or has it."""
        key = (entry.folder, entry.name)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=30)) as connection, connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(_CREATE)
                connection.execute("INSERT OR REPLACE INTO arrivals VALUES (?, ?, ?, ?, ?)",
                                   (*key, stamp.size, stamp.changed_ns, json.dumps(asdict(promise))))
                connection.execute(_FORGET_OLD, (*key, MOST_OF_ONE))
        except (sqlite3.Error, OSError) as error:
            log.error("That %s was fetched cannot be noted in %s (%s). It counts as a file of yours, which "
                      "is not replaced when the manifest names other bytes. Correct the rights of the file, "
                      "or delete it.", entry.key, self._file, error)

    def of(self, entry: Entry, stamp: Stamp) -> Promise | None:
        """What the file with this stamp was fetched for; None when it was not the depot that brought it."""
        if not self._file.exists():
            return None
        try:
            with closing(sqlite3.connect(self._file, timeout=30)) as connection:
                values = (entry.folder, entry.name, stamp.size, stamp.changed_ns)
                row = connection.execute(_FIND, values).fetchone()
            if row is None:
                return None
            fields = json.loads(row[0])
            return Promise(**{**fields, "urls": tuple(fields["urls"])})
        except (sqlite3.Error, OSError, ValueError, LookupError, TypeError) as error:
            log.warning("What %s was fetched for cannot be read from %s: %s", entry.key, self._file, error)
            return None


def is_what_is_named(
    file: Path, stamp: Stamp, entry: Entry, *, state_dir: Path, check: Callable[[], None]
) -> bool:
    """Whether the file with this stamp, which was fetched without a sha256, has the one that the entry names
    now: then it stays, and that is noted. Reads it where nobody has; `check` may raise to stop.
    """
    if entry.sha256 is None or Stamp.of(os.stat(file)) != stamp:
        return False
    digests = Digests(state_dir)
    found = digests.of(stamp)
    if found is None:
        found = sha256_file(file, check=check)
        if Stamp.of(os.stat(file)) != stamp:
            return False
        digests.note(stamp, found)
    if found == entry.sha256:
        Arrivals(state_dir).note(entry, stamp, Promise.of(entry))
    return found == entry.sha256

"""What the depot has fetched, and what a manifest promised then: a note beside each model.

    models/checkpoints/.depot/sd15.safetensors.5f1c0e2a.arrival

A manifest may point a name to other bytes. Then a file that the depot brought is replaced, and a file that
somebody put there never is: this note tells them apart. It counts for a file of exactly its size and time of
change, so who writes into a file, or puts another in its place, makes it theirs.

The note is written before the file gets its name, and keeps what it said of the file that stands there:
whenever the process ends, the file under the name has its note.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comfy_depot.digests import Digests
from comfy_depot.eviction import Stamp
from comfy_depot.hashing import digest_of, sha256_file
from comfy_depot.layout import Place
from comfy_depot.manifest import Entry
from comfy_depot.replacing import replace_file
from comfy_depot.watch import fsync

VERSION = 1


@dataclass(frozen=True)
class Promise:
    """What a manifest's entry says about the bytes; long parts as digests."""

    folder: str
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
            entry.folder, tuple(map(digest_of, entry.urls)), entry.sha256, entry.size,
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


@dataclass(frozen=True)
class Arrival:
    """A file that the depot has brought."""

    size: int
    changed_ns: int
    promise: Promise

    def is_of(self, stamp: Stamp) -> bool:
        """Whether the file with this stamp is that one. Device and inode do not count: a library that was
        copied to another disk with its dates is still the depot's.
        """
        return (self.size, self.changed_ns) == (stamp.size, stamp.changed_ns)


def read(place: Place, stamp: Stamp) -> Arrival | None:
    """How the file with this stamp came to its place; None when it was not the depot that brought it."""
    return next((arrival for arrival in _read_all(place.arrival) if arrival.is_of(stamp)), None)


def note(place: Place, stamp: Stamp, promise: Promise) -> None:
    """The file with this stamp was brought for this promise, and gets its name next, or has it.

    OSError when that cannot be written. Whoever calls holds the lock of the place.
    """
    arrivals = [Arrival(stamp.size, stamp.changed_ns, promise)]
    here = _stamp_of(place.file)
    if here is not None and not arrivals[0].is_of(here):
        arrivals += [arrival for arrival in _read_all(place.arrival) if arrival.is_of(here)]
    content = {"version": VERSION, "files": [asdict(arrival) for arrival in arrivals]}
    replace_file(place.arrival, json.dumps(content), durable=True)
    fsync(place.arrival.parent)


def is_what_is_named(
    place: Place, stamp: Stamp, entry: Entry, *, digests: Digests, check: Callable[[], None]
) -> bool:
    """Whether the file with this stamp, which was fetched without a sha256, has the one that the entry names
    now: then it stays, and that is noted. Reads it where nobody has; `check` may raise to stop.
    """
    if entry.sha256 is None or _stamp_of(place.file) != stamp:
        return False
    found = digests.of(stamp)
    if found is None:
        found = sha256_file(place.file, check=check)
        if _stamp_of(place.file) != stamp:
            return False
        digests.note(stamp, found)
    if found == entry.sha256:
        note(place, stamp, Promise.of(entry))
    return found == entry.sha256


def _read_all(file: Path) -> list[Arrival]:
    try:
        content = json.loads(file.read_bytes())
        if content["version"] != VERSION:
            return []
        return [_arrival(one) for one in content["files"]]
    except (OSError, ValueError, LookupError, TypeError):  # none, or damaged: then nothing is the depot's
        return []


def _arrival(written: Mapping[str, Any]) -> Arrival:
    promise = {**written["promise"], "urls": tuple(written["promise"]["urls"])}
    return Arrival(int(written["size"]), int(written["changed_ns"]), Promise(**promise))


def _stamp_of(path: Path) -> Stamp | None:
    try:
        return Stamp.of(os.stat(path))
    except OSError:
        return None

"""Files that the depot has fetched, and whose name a manifest has meanwhile given to other bytes.

Such a file is replaced at the next need: the new one is fetched beside it, verified, and renamed over it, so
that whoever has the old one open or mapped keeps its bytes. Where the new one cannot be had, the old one goes
on being used, with a warning, and after a while the new one is tried again.

A file that the depot did not bring (see `arrivals.py`) is never replaced. That it is not what the manifest
says is a problem that is shown, with what to do.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import TYPE_CHECKING

from comfy_depot import layout, places
from comfy_depot.arrivals import Arrivals, Promise
from comfy_depot.digests import Digests
from comfy_depot.errors import TransferCancelled, UnsafeName
from comfy_depot.eviction import Stamp
from comfy_depot.manifest import Entry, Problem
from comfy_depot.policies import Key

if TYPE_CHECKING:
    from comfy_depot.transfers import Transfer

FIRST_PAUSE = 60.0
LONGEST_PAUSE = 1800.0
"""Seconds until new bytes that could not be had are tried again: twice as long each time."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Failure:
    """New bytes that could not be had."""

    content: str
    tries: int
    until: float
    """When they are tried again (`time.monotonic()`)."""
    why: str


class Outdated:
    """Which files of one depot are outdated. Every method may be called from any thread."""

    def __init__(
        self, state_dir: Path, *, digests: Digests, find: Callable[[str, str], Entry | None],
        local_path: Callable[[str, str], str | None],
    ) -> None:
        """`find` gives the manifest's entry of a model, `local_path` the file that is used for it."""
        self._arrivals = Arrivals(state_dir)
        self._digests = digests
        self._find = find
        self._local_path = local_path
        self._lock = threading.Lock()  # guards what follows
        self._failures: dict[Key, _Failure] = {}
        self._strangers: dict[Key, tuple[Stamp, Promise, bool]] = {}
        """Files of the user's under names of manifests, and whether they are certainly something else."""
        self._promises: dict[Key, tuple[Stamp, Promise | None]] = {}
        """What the file of a model was fetched for."""

    def stamp_of(self, entry: Entry) -> Stamp | None:
        """The file that must give way to the one that an entry names. None where there is none: nothing is
        there, or the right file, or one that the depot did not bring.
        """
        path = self._local_path(entry.folder, entry.name)
        stamp = None if path is None else _stamp_of(path)
        if path is None or stamp is None:
            return None
        promise, then = Promise.of(entry), self._promise_of(entry, stamp)
        if then is None:
            self._look_at_stranger(entry, promise, stamp)
            return None
        self._strangers.pop((entry.folder, entry.name), None)
        known = None if then.sha256 or promise.sha256 in (None, then.sha256) else self._digests.of(stamp)
        is_other = promise.names_other_bytes(then, size=stamp.size, sha256=known)
        # What a workflow names replaces nothing, and only what stands where it would be fetched to can be.
        return stamp if is_other and not entry.is_anonymous and _is_destination(entry, path) else None

    def is_wanted(self, entry: Entry) -> bool:
        """Whether a file should be replaced now: it is outdated, and the new one has not just failed."""
        return self.stamp_of(entry) is not None and not self._is_put_off(entry)

    def content_of(self, entry: Entry) -> str:
        """A text for the content that a loader gets which asks for an entry's model now, another one for
        other bytes.
        """
        content = Promise.of(entry).content
        path = self._local_path(entry.folder, entry.name)
        stamp = None if path is None else _stamp_of(path)
        if stamp is None:
            return content
        then = self._promise_of(entry, stamp)
        if then is None:
            return f"{stamp.inode} {stamp.size} {stamp.changed_ns}"
        if then.content == content or not self.is_wanted(entry):
            return then.content
        failure = self._failure_of(entry)
        return content if failure is None else f"{content} after {failure.tries} failures"

    def adopt(self, entry: Entry) -> None:
        """Let a file of the user's be replaced like one of the depot's: somebody asked for that."""
        path = self._local_path(entry.folder, entry.name)
        stamp = None if path is None else _stamp_of(path)
        if stamp is not None and self._promise_of(entry, stamp) is None:
            self._arrivals.note(entry, stamp, Promise())
            self._promises[entry.folder, entry.name] = (stamp, Promise())

    # What becomes of a replacement.

    def note_end(self, transfer: Transfer) -> None:
        """A transfer has ended; whether one that was to replace a file has done so counts."""
        if transfer.replaces is not None and not isinstance(transfer.error, TransferCancelled):
            if transfer.error is None:
                key = (transfer.entry.folder, transfer.entry.name)
                with self._lock:
                    self._failures.pop(key, None)
                    self._promises.pop(key, None)  # a file that was recognised has another one now
            else:
                self.note_failure(transfer.entry, transfer.error)

    def note_failure(self, entry: Entry, error: BaseException) -> None:
        """The new file could not be had: the old one is used, and the new one tried again later."""
        content, key = Promise.of(entry).content, (entry.folder, entry.name)
        with self._lock:
            before, now = self._failures.get(key), monotonic()
            tries = 1 if before is None or before.content != content else before.tries + 1
            if before is not None and tries > 1 and now < before.until:  # all who waited tell the same
                return
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries - 1, 10))
            self._failures[key] = _Failure(content, tries, now + pause, str(error))
        log.error("%s is OUTDATED, and its old bytes go on being used: the manifest names others, which "
                  "cannot be had. They are tried again at the first need after %.0f s. %s",
                  entry.key, pause, error)

    def problems(self) -> list[Problem]:
        """What is not as the manifests say, of all that was asked for since the start."""
        with self._lock:
            keys = sorted({*self._failures, *self._strangers})
            for key, (_, _, is_other) in list(self._strangers.items()):
                if not is_other or self._local_path(*key) is None:
                    del self._strangers[key]  # looked at again: its sha256 may be known by now
        found = []
        for key in keys:
            entry = self._find(*key)
            if entry is None:
                continue
            is_outdated, failure = self.stamp_of(entry) is not None, self._failure_of(entry)
            if is_outdated and failure is not None:
                found.append(Problem(
                    entry.key, None, "the manifest names other bytes, and the old ones go on being used "
                    f"because the new ones cannot be had: {failure.why}"))
            elif key in self._strangers and self._strangers[key][2]:
                found.append(Problem(entry.key, None, advice(entry)))
        return found

    # Inside.

    def _failure_of(self, entry: Entry) -> _Failure | None:
        """The last failure to get what an entry names now."""
        failure = self._failures.get((entry.folder, entry.name))
        return failure if failure is not None and failure.content == Promise.of(entry).content else None

    def _is_put_off(self, entry: Entry) -> bool:
        failure = self._failure_of(entry)
        return failure is not None and monotonic() < failure.until

    def _promise_of(self, entry: Entry, stamp: Stamp) -> Promise | None:
        """What the file with this stamp was fetched for. A file is noted before it stands under its name, so
        what was found for a stamp once goes on being true.
        """
        key = (entry.folder, entry.name)
        known = self._promises.get(key)
        if known is None or known[0] != stamp:
            known = self._promises[key] = (stamp, self._arrivals.of(entry, stamp))
        return known[1]

    def _look_at_stranger(self, entry: Entry, promise: Promise, stamp: Stamp) -> None:
        """Find out, once, whether a file that stays as it is is certainly not what the manifest names."""
        key = (entry.folder, entry.name)
        if self._strangers.get(key, ())[:2] == (stamp, promise):
            return
        known = None if promise.sha256 is None else self._digests.of(stamp)
        is_other = promise.size not in (None, stamp.size) or known not in (None, promise.sha256)
        with self._lock:
            self._strangers[key] = (stamp, promise, is_other)
        if is_other:
            log.warning("%s: %s", entry.key, advice(entry))


def advice(entry: Entry) -> str:
    """What to do about a file of the user's that is not what the manifest names."""
    return ("the manifest names other bytes than those of the file on this disk, which the depot did not "
            "fetch and so does not replace. To have those of the manifest, delete or rename the file, or "
            f"run: python -m comfy_depot fetch --replace {quote(entry.key)}")


def _is_destination(entry: Entry, path: str) -> bool:
    """Whether a plain file stands where the depot would put what an entry names."""
    directory = places.directory_for(entry.folder)
    folder, name = os.path.split(path)
    try:
        return (directory is not None and not os.path.islink(path) and
                layout.destination(Path(directory), entry.name) == Path(os.path.realpath(folder), name))
    except UnsafeName:  # a link leads out of the folder
        return False


def _stamp_of(path: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(path))
    except OSError:
        return None

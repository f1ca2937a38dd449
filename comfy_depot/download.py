"""One file from its sources to its final name.

    lock -> for each url: resolve -> room? -> keep or discard the partial -> aria2 -> verify -> publish

Nothing stands under the final name before the last step, which is one rename (or link) after fsync.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from comfy_depot import arrivals, copies, hashing, journal, library, schemes, sources, windows
from comfy_depot.aria2 import DaemonGone, is_alive
from comfy_depot.arrivals import Arrivals, Promise
from comfy_depot.digests import Digests
from comfy_depot.errors import DepotError, DiskFull, DownloadFailed, SentTooMuch, WrongContent
from comfy_depot.eviction import Stamp
from comfy_depot.growth import Growth
from comfy_depot.journal import Pieces, Record, Validator
from comfy_depot.layout import Place
from comfy_depot.manifest import Entry
from comfy_depot.piece_hashes import PieceCheck, PieceHashes
from comfy_depot.prefix import NICENESS, PrefixDigest
from comfy_depot.pull import Kept, Pull, Reopened
from comfy_depot.room import Shortage, explain, still_to_come
from comfy_depot.services import Priority, Progress, Services
from comfy_depot.sources import Busy, Remote
from comfy_depot.watch import fsync

MOST_RESTARTS = 3
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
LEAST_TO_DIGEST_AHEAD = 64 << 20  # bytes; less is digested at the end in a moment
log = logging.getLogger(__name__)


@dataclass
class Download:
    """The work of one transfer, on the thread that calls `run`."""

    entry: Entry
    place: Place
    services: Services
    progress: Progress
    resumed: bool = False
    digest: PrefixDigest | None = None
    pieces: PieceCheck | None = None
    in_windows: bool = True
    growth: Growth | None = None
    only: Pieces | None = None
    """These pieces are wanted; None: the whole file."""
    replaces: Stamp | None = None
    """The file that gives way to this one; any other that stands there is left alone."""

    def run(self) -> Path:
        """Bring the file and return its path; raises DepotError and nothing else that is expected."""
        try:
            self._make_folder()
            with self.services.leases.hold(self.place, on_wait=self._wait_for_lock):
                if self._is_free_to_come() and not self._is_here_after_all():
                    self._from_any_source()
        except OSError as error:
            if isinstance(error, DepotError):
                raise
            raise self._disk_error(error) from error
        finally:
            self.services.room.give_back(self.place.partial)
            self._drop_digest()
            self.services.streams.drop(self.place.file)
        return self.place.file

    def _is_free_to_come(self) -> bool:
        """Whether nothing stands under the final name but what is to be replaced."""
        try:
            return Stamp.of(os.stat(self.place.file)) == self.replaces
        except FileNotFoundError:
            return True

    def _is_here_after_all(self) -> bool:
        """Whether the file that should be replaced turns out to be the one that the manifest names."""
        return self.replaces is not None and self.place.file.exists() and arrivals.is_what_is_named(
            self.place.file, self.replaces, self.entry, state_dir=self.services.options.depot_dir,
            check=self.progress.check)

    def _make_folder(self) -> None:
        """Make the hidden folder; it must be one from which a file can be renamed to its final name."""
        hidden, folder = self.place.partial.parent, self.place.file.parent
        if self.place.file.is_dir():
            raise DownloadFailed(
                f"'{self.entry.key}' cannot be fetched: {self.place.file} is a folder. Move it away."
            )
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # a file or a link to nothing: told below
            hidden.mkdir(exist_ok=True)
        if not hidden.is_dir() or hidden.stat().st_dev != folder.stat().st_dev:
            raise DownloadFailed(
                f"'{self.entry.key}' cannot be fetched: {hidden} is no folder on the disk of {folder}. "
                "Remove it; the depot makes it anew and keeps unfinished downloads in it."
            )

    def _wait_for_lock(self) -> None:
        self.progress.tell(state="waiting")
        self.progress.check()

    def _from_any_source(self) -> None:
        """Try the urls, those of fast hosts first; the last error names them all."""
        if self._from_this_machine():
            return
        failures: list[DownloadFailed] = []
        for url in self.services.speeds.in_order(self.entry.urls, _host):
            try:
                self._from(url)
                return
            except DiskFull:
                raise
            except DownloadFailed as error:
                log.warning("%s", error)
                self.services.speeds.note_failure(_host(url))
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if not failures:
            raise DownloadFailed(f"'{self.entry.key}' has no url. Add one to the manifest.")
        kinds = {type(f) for f in failures}
        kind = kinds.pop() if len(kinds) == 1 and Busy not in kinds else DownloadFailed
        raise kind(
            f"'{self.entry.key}': none of {len(failures)} urls gave it. " + " // ".join(map(str, failures))
        )

    def _from(self, url: str) -> None:
        """One source until the file stands, with retries where they can help."""
        if (file := schemes.local_file(url)) is not None:
            self._from_library(file, url)
            return
        fruitless = restarts = filled_up = 0
        while True:
            done_before = self.progress.bytes_done
            try:
                self._attempt(url)
                return
            except Reopened:
                log.debug("%s is waited for now and goes on with new connections.", self.entry.key)
            except Changed:
                restarts += 1
                if restarts > MOST_RESTARTS:
                    raise DownloadFailed(
                        f"'{self.entry.key}': {sources.shown(url)} changes while it is read. "
                        "Try again later, or give the manifest the sha256 or a url with a fixed revision."
                    ) from None
                self._discard_partial()
            except FilledUp:  # the next try asks for room anew, and models are evicted for it
                filled_up += 1
                if filled_up > MOST_RESTARTS:
                    raise
                log.info("The disk of %s is full; room is made.", self.place.file.parent)
            except Busy as problem:
                fruitless = 0 if self.progress.bytes_done > done_before else fruitless + 1
                patience = self.services.patience
                # What lives a moment only, as some signed addresses do, must be used at once and as a whole.
                self.in_windows = self.in_windows and not fruitless
                if fruitless >= patience.tries:
                    raise
                pause = min(problem.retry_after or patience.pause(fruitless), patience.longest_pause)
                log.info("Trying again in %.1f s: %s", pause, problem)
                self.progress.tell(state="resolving", bytes_per_second=0)
                self.progress.pause(pause)

    def _from_this_machine(self) -> bool:
        """Whether a file of another name has this content, and now stands here too."""
        digests = Digests(self.services.options.depot_dir)
        for source in copies.find(digests, self.entry, self.place.file):
            try:
                how = self._bring_local(source.path, "this machine", known=source.stamp)
                self.progress.tell(state="verifying", bytes_per_second=0)
                copies.check(self.place.partial, self.entry, source, how, digests=digests,
                             stop=self.progress.check)
                self._publish()
                log.info("%s is on this machine as %s and comes from there by %s.",
                         self.entry.key, source.path, how)
                return True
            except DiskFull:
                raise
            except OSError as error:  # also DownloadFailed: its sources are left
                log.warning("%s is not taken from %s: %s", self.entry.key, source.path, error)
                self._discard_partial()
        return False

    def _bring_local(self, file: Path, source: str, *, known: Stamp | None = None) -> str:
        """Make the partial hold what a file of this machine holds; how."""
        self.progress.tell(state="resolving", source=source)
        if file.exists():  # else a partial of another source would be lost for nothing
            self._discard_partial()

        def tell(done: int, total: int) -> None:
            self.progress.check()
            self.progress.tell_bytes(done, state="downloading", bytes_total=total)

        return library.bring(self.entry.key, file, self.place.partial, promise=self._promise_room, tell=tell,
                             known=known)

    def _from_library(self, file: Path, url: str) -> None:
        """A file of this machine: linked or copied, never through aria2, and verified like any other."""
        how = self._bring_local(file, "library")
        log.info("%s comes from the library by %s.", self.entry.key, how)
        try:
            self._verify(url)
        except WrongContent:
            self._quarantine()
            raise
        self._publish()

    def _attempt(self, url: str) -> None:
        """One try. An aria2c that dies is started by the next one."""
        try:
            self._bring(url)
        except DaemonGone as error:
            raise Busy(f"'{self.entry.key}': {error}", retry_after=0.1) from error
        except OSError as error:
            if not isinstance(error, DepotError) and error.errno in NO_ROOM:
                raise self._full_by_now() from error
            raise

    def _bring(self, url: str) -> None:
        self.progress.check()
        self.progress.tell(state="resolving", source=schemes.host_of(url))
        remote = self._resolve(url)
        self._promise_room(remote.validator.size)  # first: what a source says of its size may be absurd
        kept = self._prepare(url, remote.validator, remote.ranges)
        self.progress.tell_bytes(kept.bytes_done, state="downloading", bytes_total=remote.validator.size)
        if remote.ranges and remote.validator.size:
            self.services.streams.see(self.place, self.entry.key, kept.pieces)
        try:
            if remote.validator.size is None or kept.bytes_done < remote.validator.size:
                self._pull(url, remote, kept)
            is_proven = self.entry.sha256 or self.entry.pieces
            if not is_proven and self._resolve(url).validator != remote.validator:
                raise Changed
            self._verify(url)
        except WrongContent:
            if not self.resumed:
                self._quarantine()
                raise
            raise Changed from None  # the kept part may be the bad one: once more from the start
        self._publish()

    def _resolve(self, url: str) -> Remote:
        self._await_turn(_host(url), 1)
        options = self.services.options
        return sources.resolve(
            self.entry, url, allow_hosts=options.depot_allow_hosts, tokens=options.tokens
        )

    def _await_turn(self, host: str, requests: int) -> None:
        """Wait until the limits allow so many requests to a host."""
        state = self.progress.state
        while (seconds := self.services.limits.take(host, requests)) > 0:
            self.progress.tell(state="waiting", bytes_per_second=0)
            self.progress.pause(seconds)
        self.progress.state = state

    # -- the partial

    def _prepare(self, url: str, validator: Validator, ranges: bool) -> Kept:
        """Make the partial ready for aria2; returns what is there already."""
        place, source = self.place, hashing.digest_of(schemes.plain_url(url))
        record = journal.read_record(place.record)
        self._await_writer(record)
        known = record is not None and place.partial.exists() and ranges and validator.size is not None
        if record is None or not known or not self._same_bytes(record, source, validator):
            self._discard_partial()
            record = Record(source=source, validator=validator, sha256=self.entry.sha256)
        self.resumed = False
        if not ranges or not validator.size:
            place.partial.touch()
            return Kept(record)
        if not place.partial.exists():
            record = replace(record, grain=journal.create_partial(place.partial, validator.size))
        pieces, blocks = journal.believed(record, place.partial)
        kept = journal.kept_bytes(pieces, blocks)
        self.resumed = kept > 0
        self.services.daemon.ensure()
        record = replace(
            record,
            source=source,
            validator=validator,
            pieces=pieces.hex,
            boot=journal.boot_id(),
            writer=str(self.services.daemon.alive_file or ""),
        )
        journal.write_record(place.record, record)
        return Kept(record, pieces, blocks, kept)

    def _same_bytes(self, record: Record, source: str, validator: Validator) -> bool:
        """Whether a partial may go on: the source is unchanged, or another one has the same known digest."""
        if record.source == source:
            return record.validator.same_file(validator) and record.sha256 in (None, self.entry.sha256)
        same_digest = bool(self.entry.sha256) and record.sha256 == self.entry.sha256
        return same_digest and record.validator.size == validator.size

    def _await_writer(self, record: Record | None) -> None:
        """Wait until the aria2c of a dead process is gone too; it ends within a moment of its parent."""
        if record is None or not record.writer or record.writer == str(self.services.daemon.alive_file):
            return
        deadline = time.monotonic() + 10
        while is_alive(Path(record.writer)):
            if time.monotonic() > deadline:
                raise DownloadFailed(
                    f"'{self.entry.key}': another aria2c still writes {self.place.partial}. "
                    "End that process or wait until it is done."
                )
            self.progress.pause(0.05)

    def _discard_partial(self) -> None:
        for path in (self.place.partial, self.place.control, self.place.record):
            path.unlink(missing_ok=True)
        windows.remove(self.place)
        self._drop_digest()
        self.services.streams.drop(self.place.file)
        self.resumed = False

    def _drop_digest(self) -> None:
        if self.digest is not None:
            self.digest.close()
        if self.pieces is not None:
            self.pieces.close()
        self.digest = self.pieces = None

    def _quarantine(self) -> None:
        """Keep one bad copy aside, for whoever wants to know what the source sent."""
        with contextlib.suppress(FileNotFoundError):  # thrown away already, because it was too much
            os.replace(self.place.partial, self.place.quarantine)
        self._discard_partial()

    # -- the disk

    def _promise_room(self, size: int | None) -> None:
        """Raise DiskFull when the rest of the file does not fit beside reserve and other transfers."""
        may_evict = self.progress.priority() < Priority.WARM  # nobody wants it yet
        room = self.services.room
        if size is None:
            self.growth = Growth(room, self.place.partial, size=self.entry.size, may_evict=may_evict)
            shortage = self.growth.shortage
        else:
            self.growth, shortage = None, room.promise(self.place.partial, size, may_evict=may_evict)
        if shortage is not None:
            if shortage.fits_never:
                self._discard_partial()
            raise self._disk_full(shortage)

    def _disk_full(self, shortage: Shortage) -> DiskFull:
        given_up = None if self.growth is None else self.progress.bytes_done
        error = DiskFull(explain(shortage, self.entry.key, self.place.file.parent,
                                 reserve=self.services.options.depot_reserve, given_up=given_up))
        error.fits_never = shortage.fits_never
        return error

    def _disk_error(self, error: OSError) -> DownloadFailed:
        if error.errno in NO_ROOM:
            return self._full_by_now()
        return DownloadFailed(
            f"'{self.entry.key}' cannot be written into {self.place.file.parent} "
            f"({error.strerror or error}). Check the folder's owner and rights."
        )

    def _full_by_now(self) -> DiskFull:
        """Somebody else has taken the room that was there, or a file of unknown size is too large for it."""
        if self.growth is not None and self.growth.shortage is not None:
            return self._disk_full(self.growth.shortage)
        needed = still_to_come(self.place.partial, self.progress.bytes_total or 0)
        free = shutil.disk_usage(self.place.file.parent).free
        return FilledUp(str(self._disk_full(Shortage(needed, free, 0, fits_never=False))))

    def _pull(self, url: str, remote: Remote, kept: Kept) -> None:
        """Let aria2 fetch what is missing, with the digest close behind."""
        is_long = self.only is None and (remote.validator.size or 0) >= LEAST_TO_DIGEST_AHEAD
        if self.entry.sha256 and remote.ranges and is_long:
            self.digest = self.digest or PrefixDigest(self.place.partial, niceness=self._niceness())
        if self.entry.pieces and self.only is None and remote.ranges and remote.validator.size:
            self.pieces = self.pieces or self._piece_check(self.entry.pieces)
        pull = Pull(
            self.entry,
            self.place,
            self.services,
            self.progress,
            remote,
            kept,
            self.digest,
            self.in_windows and self.digest is not None,
            self._full_by_now,
            self._await_turn,
            self.growth,
            self.only,
            self.pieces,
        )
        try:
            pull.run()
        except (DiskFull, SentTooMuch) as error:
            if self.growth is not None or isinstance(error, SentTooMuch):  # nobody can go on with it
                self._discard_partial()
            raise
        arrived = _size_of(self.place.partial) if self.only is None else pull.watch.bytes_done
        self.services.speeds.note(_host(url), arrived - kept.bytes_done, pull.watch.seconds_running)
        self.progress.tell(bytes_done=arrived, bytes_per_second=0)

    # -- the end

    def _verify(self, url: str) -> None:
        """Raise WrongContent unless the partial is what was promised."""
        self._verify_promise(url)
        if self.entry.name.endswith(".safetensors"):
            hashing.check_safetensors(self.place.partial, self.entry.key)

    def _shown(self, url: str) -> str:
        return sources.shown(url)

    def _verify_promise(self, url: str) -> None:
        """Raise WrongContent unless size and sha256 are those of the manifest."""
        self.progress.tell(state="verifying", bytes_per_second=0)
        entry, where = self.entry, self._shown(url)
        size = _size_of(self.place.partial)
        if entry.size is not None and size != entry.size:
            raise WrongContent(
                f"'{entry.key}': {where} sent {size} bytes and the manifest promises {entry.size}. "
                "The file is quarantined; correct the manifest or choose another url."
            )
        if entry.pieces:
            self.pieces = self.pieces or self._piece_check(entry.pieces)
            self.pieces.finish(self.place.partial, self.progress.check)
        if entry.sha256:
            found = self._sha256()
            if found != entry.sha256.lower():
                raise WrongContent(
                    f"'{entry.key}': what {where} sent has the sha256 {found}, and the manifest promises "
                    f"{entry.sha256.lower()}. The file is quarantined as {self.place.quarantine}; "
                    "correct the manifest or choose another url."
                )

    def _niceness(self) -> int:
        """Of the threads that compute digests: what somebody waits for is not held up by other programs."""
        return 0 if self.progress.priority() == Priority.DEMAND else NICENESS

    def _piece_check(self, pieces: PieceHashes) -> PieceCheck:
        """The comparison of the partial's pieces; WrongContent when there are more or fewer."""
        size = _size_of(self.place.partial)
        if not pieces.fits(size):
            raise WrongContent(
                f"'{self.entry.key}': the source sends {size} bytes, and the manifest has "
                f"{len(pieces.digests)} pieces of {pieces.length}. "
                "Correct the manifest or choose another url."
            )
        return PieceCheck(self.place.partial, pieces, size, self.entry.key, niceness=self._niceness())

    def _sha256(self) -> str:
        """The digest of the partial. One computed on the way is believed when it is the promised one only."""
        digest, self.digest = self.digest, None
        if digest is not None:
            found = digest.finish(self.place.partial, self.progress.check)
            if found == (self.entry.sha256 or "").lower():
                return found
        return hashing.sha256_file(self.place.partial, check=self.progress.check)

    def _publish(self) -> None:
        """Give the file its name, in one step and durably; a file that is there already is left alone, but
        for the one that this replaces.
        """
        place = self.place
        fsync(place.partial)
        if self._is_free_to_come():
            stamp = Stamp.of(os.stat(place.partial))
            Arrivals(self.services.options.depot_dir).note(self.entry, stamp, Promise.of(self.entry))
            os.replace(place.partial, place.file)
            if self.entry.sha256:
                Digests(self.services.options.depot_dir).note(stamp, self.entry.sha256)
        fsync(place.file.parent)
        self.services.streams.finish(place)
        self._discard_partial()
        place.quarantine.unlink(missing_ok=True)


class FilledUp(DiskFull):
    """The disk became full on the way, although room had been promised."""


class Changed(Exception):
    """The source has changed since the partial was begun: from the start again."""


def _host(url: str) -> str:
    return schemes.host_of(url)


def _size_of(path: Path) -> int:
    return path.stat().st_size

"""Archives that hold many models: one download for all members that are asked for at once.

    MemberDownload ──┐                                  ┌─> partial of a.safetensors ─> verify ─> rename
    MemberDownload ──┼─> archive (one lease, one holder) ┼─> partial of b.safetensors ─> ...
    MemberDownload ──┘                                  └─> ...

Whoever gets the lease of the archive works for all who wait at that moment: of a zip or a plain tar whose
source honours ranges it reads the directory and then only the parts in which those members lie; of anything
else the whole archive. The archive is a partial like any other (journal, resume, validators), which never
gets a final name:

    <state folder>/bundles/.depot/KEY.archive.*.part     or in --depot-scratch, see scratch.py

When nobody waits any more the archive is deleted. What is left of one whose members were not served (stopped,
killed, a source that is busy) stays for the next try, and one that can only be read as a whole stays while
manifests name members of it that are not on the disk; both count and are evicted like unfinished downloads.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from comfy_depot import archives, schemes
from comfy_depot.archives import Archive, ArchiveRefused, Bytes, Member, Scattered
from comfy_depot.aria2 import PIECE_BYTES
from comfy_depot.download import Changed, Download
from comfy_depot.errors import DepotError, DiskFull, DownloadFailed, WrongContent
from comfy_depot.eviction import Stamp
from comfy_depot.journal import Pieces
from comfy_depot.layout import Layout, Place
from comfy_depot.locks import shared_mark
from comfy_depot.manifest import Entry
from comfy_depot.members import MemberDownload, Use, same_for
from comfy_depot.pull import Kept
from comfy_depot.ranged import RemoteBytes, SourceChanged
from comfy_depot.scratch import Scratch, occupied, remove
from comfy_depot.services import Priority, Progress, Services
from comfy_depot.sources import Busy, Remote

SMALL_BYTES = PIECE_BYTES  # a part that is not larger is fetched by one request, without aria2
log = logging.getLogger(__name__)


class Bundles:
    """The archives of this process."""

    def __init__(self, services: Services, *, is_needed: Callable[[Entry], bool]) -> None:
        """`is_needed` tells whether members of an entry's archive are named and not on the disk."""
        self.services = services
        self.is_needed = is_needed  # asked when the last one is served, and its file stands
        state = services.options.depot_dir
        self.scratch = Scratch(services.options.depot_scratch, state)
        self.layout = Layout(state)
        self._lock = threading.Lock()
        self._wants: dict[str, list[MemberDownload]] = {}
        self.scratch.sweep()

    def download(self, entry: Entry, place: Place, progress: Progress) -> MemberDownload:
        """The work of a transfer whose entry names a member of an archive."""
        return MemberDownload(entry, place, self.services, progress, bundles=self)

    @contextlib.contextmanager
    def wanting(self, want: MemberDownload) -> Iterator[Place]:
        """Be one of those who want members of an archive; gives the place whose lease is the archive's."""
        key = key_of(want.entry)
        place = self.layout.archive(key)
        place.partial.parent.mkdir(parents=True, exist_ok=True)
        with shared_mark(self.layout.archive_mark(key), when_last=lambda: self._tidy(key, want)):
            with self._lock:
                self._wants.setdefault(key, []).append(want)
            try:
                yield place
            finally:
                want.leave()
                with self._lock:
                    self._wants[key] = [other for other in self._wants[key] if other is not want]
                    if not self._wants[key]:
                        del self._wants[key]

    def lead(self, leader: MemberDownload, url: str) -> None:
        """Serve all who wait for the leader's archive; the caller holds its lease."""
        key = key_of(leader.entry)
        work = ArchiveDownload(self, key, leader)
        use = Use.RESUME
        try:
            work.run_from(url)
            use = Use.OTHERS if work.is_whole_only else Use.NONE
        except DownloadFailed as error:
            use = Use.RESUME if isinstance(error, (Busy, DiskFull)) else Use.NONE
            for want in work.take_all():
                want.refuse(same_for(want, error, leader))
        finally:
            work.close()
            for want in work.wants:
                want.archive_is_for = use
        for want in work.wants:
            want.is_served = True

    def waiting(self, key: str) -> list[MemberDownload]:
        """Those who wait for members of an archive now."""
        with self._lock:
            return [want for want in self._wants.get(key, ()) if not want.is_served]

    def _tidy(self, key: str, last: MemberDownload) -> None:
        """Nobody waits for an archive any more: give memory back, and the disk when it is of no use."""
        in_scratch = self.scratch.place(key)
        if in_scratch is not None:
            remove(in_scratch)
            self.scratch.release(key)
        use = last.archive_is_for
        if use is Use.NONE or (use is Use.OTHERS and not self.is_needed(last.entry)):
            remove(self.layout.archive(key))


def key_of(entry: Entry) -> str:
    """The name of an archive. Two entries share it when they fetch the same bytes with the same rights."""
    assert entry.bundle is not None
    parts = (*entry.urls, entry.bundle.size, entry.bundle.sha256, *sorted(entry.headers.items()),
             entry.is_anonymous)
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]


class ArchiveDownload(Download):
    """As much of an archive as those who wait need, and their members out of it."""

    def __init__(self, bundles: Bundles, key: str, leader: MemberDownload) -> None:
        bundle = leader.entry.bundle
        assert bundle is not None
        entry = replace(leader.entry, size=bundle.size, sha256=bundle.sha256, bundle=None)
        progress = Progress(
            changed=self._tell_all, stopped=leader.progress.stopped, priority=self._priority,
            woken=leader.progress.woken,
        )
        super().__init__(entry, bundles.layout.archive(key), bundles.services, progress)
        self.bundles, self.key, self.leader = bundles, key, leader
        self.wants: list[MemberDownload] = [leader]
        """Those who are served: whoever waits when the parts to fetch are chosen, else when all has come."""
        self.is_whole_only = False
        """Whether the last try could not leave anything out, at a source that lets us keep what came."""
        self._is_unpacking = False

    def run_from(self, url: str) -> None:
        """Serve all from one source; raises DownloadFailed where none of them can be served from it."""
        try:
            self._from(url)
        except OSError as error:
            if isinstance(error, DepotError):
                raise
            raise self._disk_error(error) from error

    def take_all(self) -> list[MemberDownload]:
        """From now on it works for all who wait at this moment."""
        self.wants = list(dict.fromkeys([*self.wants, *self.bundles.waiting(self.key)]))
        return self.wants

    def close(self) -> None:
        """Give back the room; the archive itself is up to `Bundles`."""
        self.services.room.give_back(self.bundles.layout.archive(self.key).partial)
        self._drop_digest()
        self.services.streams.drop(self.place.file)

    def _priority(self) -> Priority:
        """That of the most urgent of those who wait."""
        return min(want.progress.priority() for want in self.wants if want.is_waiting or want is self.leader)

    def _tell_all(self) -> None:
        """All who wait show how far the archive is."""
        ours = self.progress
        wants = self.wants if self.only is not None else self.bundles.waiting(self.key)
        for want in wants if not self._is_unpacking else ():
            if want.is_waiting:
                want.progress.tell(state=ours.state, bytes_done=ours.bytes_done, bytes_total=ours.bytes_total,
                                   bytes_per_second=ours.bytes_per_second, source=ours.source)

    # -- where the bytes come from

    def _from_library(self, file: Path, url: str) -> None:
        """An archive of this machine: read where it is."""
        self.progress.tell(state="resolving", source="library")
        try:
            with _opened(file) as source:
                self.take_all()
                self._unpack(url, source)
        except ArchiveRefused as refusal:
            raise self.leader.wrong(str(refusal), url) from None
        except OSError as error:
            if isinstance(error, DepotError):
                raise
            raise DownloadFailed(
                f"'{self.entry.key}': the archive {file} cannot be read ({error.strerror or error}). "
                "Mount the library, or correct the path in the manifest."
            ) from None

    def _bring(self, url: str) -> None:
        """See `Download._bring`; the end is not one file but those of all who wait."""
        self.progress.check()
        self.progress.tell(state="resolving", source=schemes.host_of(url))
        remote = self._resolve(url)
        try:
            self._bring_from(url, remote)
        except SourceChanged:
            raise Changed from None
        except ArchiveRefused as refusal:
            if self.resumed:
                raise Changed from None  # parts of two tries may be the cause
            self._discard_partial()
            raise self.leader.wrong(str(refusal), url) from None

    def _bring_from(self, url: str, remote: Remote) -> None:
        parts = self._parts(remote)
        self.only, self.is_whole_only = None, parts is None and remote.ranges
        if parts is not None:
            self.only = parts.wanted
            if not any(want.is_waiting for want in self.wants):
                return
        needed = remote.validator.size if self.only is None else self.only.bytes_done
        if needed != 0:
            self._choose_place(needed)
            self._fetch_missing(url, remote)
        if not self.entry.sha256 and self._resolve(url).validator != remote.validator:
            raise Changed
        if parts is not None:
            with _opened(self.place.partial) if needed else contextlib.nullcontext() as here:
                self._unpack(url, _PartlyHere(parts.remote, here, parts.wanted))
            return
        self._verify_archive(url)
        self.take_all()
        with _opened(self.place.partial) as source:
            self._unpack(url, source)

    def _verify_archive(self, url: str) -> None:
        try:
            self._verify_promise(url)
        except WrongContent:
            if self.resumed:
                raise Changed from None
            self._quarantine()
            raise

    def _fetch_missing(self, url: str, remote: Remote) -> None:
        kept = self._prepare(url, remote.validator, remote.ranges)
        missing = _missing(kept, self.only, remote.validator.size)
        total = None if missing is None else kept.pieces.bytes_done + missing
        self.progress.tell_bytes(kept.bytes_done, state="downloading", bytes_total=total)
        if missing != 0:
            self._pull(url, remote, kept)

    def _parts(self, remote: Remote) -> _Parts | None:
        """What of the archive is needed, or None when that is all of it."""
        validator = remote.validator
        self.take_all()
        must_prove = self.entry.sha256 and not all(want.entry.sha256 for want in self.wants)
        if not remote.ranges or not validator.size or must_prove or not (validator.etag or
        validator.last_modified):
            return None
        source = RemoteBytes(
            self.entry, remote, allow_hosts=self.services.options.depot_allow_hosts,
            before_each=lambda: self._before_request(remote.host),
        )
        try:
            if archives.is_packed(source.read_at(0, 512)):
                return None
            return _Parts(source, self._named(archives.open_archive(source)))
        except Scattered:
            return None

    def _before_request(self, host: str) -> None:
        self.progress.check()
        self._await_turn(host, 1)

    def _members(self, archive: Archive) -> Iterator[Member]:
        """All members; only until each that is waited for has come when a sha256 proves them all."""
        waiting = [want for want in self.wants if want.is_waiting]
        names = {want.member for want in waiting}
        is_proved = all(want.entry.sha256 for want in waiting)
        for member in archive.members():
            yield member
            names.discard(member.name)
            if is_proved and not names:
                return

    def _named(self, archive: Archive) -> list[Member]:
        """The members that somebody waits for; those who wait for others are refused now."""
        members = list(self._members(archive))
        by_name = _by_name(members)
        for want in self.wants:
            self._judge(want, by_name, members)
            if want.is_waiting:
                with want._refusing():
                    want._promise_room(by_name[want.member][0].size)
        names = {want.member for want in self.wants if want.is_waiting}
        return [by_name[name][0] for name in names]

    def _choose_place(self, needed: int | None) -> None:
        """In the scratch if it fits, else in the state folder."""
        own = self.bundles.layout.archive(self.key)
        scratch = None if own.partial.exists() else self.bundles.scratch.place(self.key)
        if scratch is not None and needed is not None:
            there = 0 if self.only is None else occupied(scratch.partial)  # members that came before
            if self.bundles.scratch.claim(self.key, scratch, needed + there):
                self.place = scratch
                return
        if self.place != own:  # it has filled up
            remove(self.place)
            self.bundles.scratch.release(self.key)
            self.place = own
        there = 0 if self.only is None else occupied(own.partial)
        self._promise_room(None if needed is None else needed + there)

    # -- what comes out

    def _unpack(self, url: str, source: Bytes) -> None:
        """Give all who wait their members."""
        archive = archives.open_archive(source)
        names = {want.member for want in self.wants if want.is_waiting}
        seen: list[Member] = []
        self._is_unpacking = True
        try:
            for member in self._members(archive):
                self.progress.check()
                seen.append(replace(member, detail=None))
                if member.name in names:
                    names.discard(member.name)
                    self._hand_out(archive, member)
            by_name = _by_name(seen)
            for want in self.wants:
                if want.is_waiting:
                    self._judge(want, by_name, seen)
                want.accept(url, was_resumed=self.resumed)
        finally:
            self._is_unpacking = False

    def _hand_out(self, archive: Archive, member: Member) -> None:
        """The bytes of a member to each who waits for it; it is read once."""
        takers = [want for want in self.wants if want.is_waiting and want.member == member.name]
        for want in takers:
            want.begin(member)
        if not any(want.is_waiting for want in takers):
            return
        done = 0
        for chunk in archive.chunks(member):
            self.progress.check()
            done += len(chunk)
            if done > member.size:
                raise ArchiveRefused(
                    f"its member '{member.name}' unpacks to more than the {member.size:,} bytes that it "
                    "announces. Take the model from elsewhere, or pack it anew."
                )
            for want in takers:
                want.take(chunk)

    def _judge(self, want: MemberDownload, by_name: dict[str, list[Member]], members: list[Member]) -> None:
        """Refuse a want whose member is not there, stands there twice, or is no model."""
        found = by_name.get(want.member, [])
        if not found:
            want.refuse(want.wrong(f"it has no member '{want.member}'. {_advice(want.member, members)}"))
        elif len(found) > 1:
            want.refuse(want.wrong(
                f"the name '{want.member}' stands in it {len(found)} times, and programs disagree about "
                "which one counts. Pack it anew with each name once."
            ))
        elif found[0].problem is not None:
            want.refuse(want.wrong(f"its member '{want.member}' is refused: {found[0].problem}."))


def _by_name(members: list[Member]) -> dict[str, list[Member]]:
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.name, []).append(member)
    return found


def _advice(wanted: str, members: list[Member]) -> str:
    """What a manifest may have meant."""
    nested = next((member.name for member in members
                   if wanted.startswith(f"{member.name}/") and member.problem is None), None)
    if nested is not None:
        return f"'{nested}' is a file in it, and archives inside archives are not opened. Unpack it."
    base = wanted.rpartition("/")[2]
    near = [member.name for member in members if member.name.rpartition("/")[2] == base]
    near = near or [member.name for member in members if member.name.endswith(".safetensors")]
    if not near:
        return "Correct the manifest or choose another url."
    return f"Correct the manifest; it has: {', '.join(map(repr, near[:5]))[:500]}."


def _missing(kept: Kept, only: Pieces | None, size: int | None) -> int | None:
    """Bytes of the pieces that are to be fetched; None when nobody knows."""
    if size is None or not kept.pieces.count:
        return size
    wanted = (i for i in range(kept.pieces.count) if (only is None or i in only) and i not in kept.pieces)
    return sum(map(kept.pieces.length, wanted))


class _Parts:
    """The parts of an archive at a source in which the wanted members lie; small ones are fetched at once."""

    def __init__(self, remote: RemoteBytes, members: list[Member]) -> None:
        self.remote = remote
        self.wanted = Pieces(remote.size)
        """The pieces that are worth a download."""
        for member in members:
            if member.end - member.start > SMALL_BYTES:
                for index in range(member.start // PIECE_BYTES, -(-member.end // PIECE_BYTES)):
                    self.wanted.add(index)
        for member in members:
            if member.end - member.start <= SMALL_BYTES:
                with contextlib.suppress(Scattered):  # then it is read while it is unpacked, or refused there
                    remote.read_at(member.start, member.end - member.start)


class _File:
    """`archives.Bytes` of an opened file."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self.size = fd, size

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""
        return os.pread(self._fd, min(count, max(0, self.size - offset)), offset)


class _PartlyHere:
    """An archive of which some pieces have been downloaded; all else is asked for."""

    def __init__(self, remote: RemoteBytes, here: _File | None, pieces: Pieces) -> None:
        self.size, self._remote, self._here, self._pieces = remote.size, remote, here, pieces

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""
        end = min(offset + count, self.size)
        found = bytearray()
        while (position := offset + len(found)) < end:
            index = position // PIECE_BYTES
            until = min(end, (index + 1) * PIECE_BYTES)
            source: Bytes = self._here if self._here is not None and index in self._pieces else self._remote
            piece = source.read_at(position, until - position)
            if not piece:
                break
            found += piece
        return bytes(found)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[_File]:
    """A plain file for reading; ArchiveRefused when it is none, or another one at the end."""
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ArchiveRefused("it is no plain file. Correct the path in the manifest.")
        yield _File(fd, status.st_size)
        if Stamp.of(os.fstat(fd)) != Stamp.of(status):
            raise ArchiveRefused("it changed while it was read. Try again later.")
    finally:
        os.close(fd)

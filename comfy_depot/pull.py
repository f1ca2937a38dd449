"""What is missing of one file, through aria2, until all of it is there or something goes wrong."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from comfy_depot import sources, windows
from comfy_depot.aria2 import PIECE_BYTES
from comfy_depot.errors import DiskFull, DownloadFailed, SentTooMuch
from comfy_depot.growth import Growth
from comfy_depot.journal import Pieces, Record
from comfy_depot.layout import Place
from comfy_depot.manifest import Entry
from comfy_depot.piece_hashes import PieceCheck
from comfy_depot.prefix import PrefixDigest
from comfy_depot.services import Priority, Progress, Services
from comfy_depot.sources import Busy, Remote
from comfy_depot.watch import Watch
from comfy_depot.windows import Window

LEAST_TO_REOPEN = 64 << 20  # bytes that are still to come


class Reopened(Exception):
    """The same download goes on with other connections."""


MOST_SENT_TWICE = 64 << 20  # bytes that the gate lets in beyond twice a window


@dataclass(frozen=True)
class Kept:
    """What of a partial is there already."""

    record: Record
    pieces: Pieces = field(default_factory=lambda: Pieces(0))
    blocks: dict[int, int] = field(default_factory=dict)
    bytes_done: int = 0


@dataclass
class Pull:
    """One way of a file from a source that was resolved to its partial."""

    entry: Entry
    place: Place
    services: Services
    progress: Progress
    remote: Remote
    kept: Kept
    digest: PrefixDigest | None
    in_order: bool
    disk_full: Callable[[], DiskFull]
    await_turn: Callable[[str, int], None]
    growth: Growth | None = None
    """The promise of room that grows, for a file of unknown size."""
    only: Pieces | None = None
    """These pieces are wanted; None: all."""
    pieces: PieceCheck | None = None

    def __post_init__(self) -> None:
        self.is_journalled = bool(self.remote.ranges and self.remote.validator.size)
        limits, self.connections = self.services.limits, 1
        if self.remote.ranges:
            self.connections = self.services.options.depot_connections
        if (most := limits.most_requests(self.remote.host)) > 0:
            self.connections = min(self.connections, max(1, most - 1))  # one was the look at the source
        self._answers_head: bool | None = None
        self._priority = self.progress.priority()
        self.watch = Watch(self.place, self.kept.record, journalled=self.is_journalled)

    def run(self) -> None:
        """Bring what is missing, and journal what has come."""
        self.windows = self._plan()
        host, limits = self.remote.host, self.services.limits
        self.await_turn(host, self.connections)
        try:
            with limits.share(host, self.progress.priority):
                share = limits.bytes_per_second(host, self._priority)
                self._start(self.windows[0])
                while not self._look():
                    self._start_next()
                    if self.watch.is_silent:
                        self.services.daemon.check()
                    share = self._keep_to_share(share)
                    self._keep_to_priority()
                    self.progress.pause(self.watch.seconds_to_next_look)
        finally:
            self.services.daemon.remove(*(window.gid for window in self.windows if window.gid))
            self.watch.end()
            windows.remove(self.place)

    def _plan(self) -> list[Window]:
        """The windows, in order when a digest can follow them and aria2 can begin in the middle."""
        if not self.is_journalled:
            return [Window(self.place.partial, Pieces(0), {})]
        is_counted = self.services.limits.most_requests(self.remote.host) > 0
        share = windows.LARGE_SHARE if is_counted else windows.SHARE
        for in_order in (self.in_order, False):
            planned = windows.plan_windows(
                self.place, self.kept.pieces, self.kept.blocks, in_order=in_order, only=self.only,
                share=share,
            )
            if len(planned) == 1 or (self._may_use_head(planned[1]) and windows.link(planned)):
                break
        return planned

    def _look(self) -> bool:
        """Ask aria2 how far it is; returns whether everything has come."""
        self._refuse_more_than_said()
        running = [window for window in self.windows if window.is_running]
        answers = self.services.daemon.status(*(window.gid for window in running))
        for window, answer in zip(running, answers, strict=True):
            window.status = answer
        status = self.windows[0].status
        if self.is_journalled:
            status = windows.status_of_all(self.windows, self.kept.pieces)
        if self.watch.see(status) or self.progress.bytes_per_second:
            self.progress.tell_bytes(self.watch.bytes_done)
        if self.digest is not None:
            self.digest.allow(self.watch.bytes_in_order)
        if self.pieces is not None:
            self.pieces.allow(self.watch.pieces)
        if self.is_journalled:
            self.services.streams.see(self.place, self.entry.key, self.watch.pieces)
        for window in self.windows:
            if window.is_running and window.status["status"] not in ("active", "waiting"):
                raise self._aria2_error(window.status)
        if self.growth is not None and self.windows[0].is_running:
            self._grow(self.growth)
        if self.watch.seconds_idle > self.services.patience.stall:
            raise Busy(
                f"'{self.entry.key}': {sources.shown(self.remote.url)} has sent nothing for a while."
            )
        return all(window.is_complete for window in self.windows)

    def _refuse_more_than_said(self) -> None:
        """A source that named a small size and sends without end must not fill the disk."""
        said, found = self.remote.validator.size, 0
        with contextlib.suppress(FileNotFoundError):
            found = self.place.partial.stat().st_size
        if said is not None and found > said:
            raise SentTooMuch(
                f"'{self.entry.key}': {sources.shown(self.remote.url)} said {said} bytes and sends more. "
                "What it sent is thrown away: choose another url in the manifest."
            )

    def _grow(self, growth: Growth) -> None:
        """Promise more room in time, and let no more come than is promised."""
        if self.entry.size is not None and self.watch.bytes_done > self.entry.size:
            raise SentTooMuch(
                f"'{self.entry.key}': {sources.shown(self.remote.url)} sends more than the {self.entry.size} "
                "bytes that the manifest promises. Correct the size or the url there."
            )
        growth.see(self.services.daemon.allow(self.windows[0].gid, growth.bytes_promised))
        if growth.shortage is not None:
            raise self.disk_full()

    def _start_next(self) -> None:
        """Begin further windows when connections of the ones before are about to have nothing to do."""
        for new in [window for window in self.windows if not window.gid]:
            running = [window for window in self.windows if window.is_running]
            if not windows.is_time_for_next(running, self.connections, self.watch.bytes_per_second,
                                            self.remote.seconds_to_answer):
                return
            if self.services.limits.take(self.remote.host, self.connections) > 0:
                return
            self._start(new)

    def _keep_to_share(self, share: int) -> int:
        """Give aria2 the rate that the limits allow now."""
        now = self.services.limits.bytes_per_second(self.remote.host, self._priority)
        for window in self.windows:
            if window.is_running and now != share:
                self.services.daemon.limit(window.gid, now)
        return now

    def _keep_to_priority(self) -> None:
        """Tell the gate when this has become more or less urgent. What somebody waits for now, and is large,
        gets new connections, without the narrow buffers of those that give way.
        """
        if (now := self.progress.priority()) == self._priority:
            return
        before, self._priority = self._priority, now
        for window in self.windows:
            if window.is_running:
                self.services.daemon.move(window.gid, now)
        left = (self.remote.validator.size or 0) - self.progress.bytes_done
        if now < before and now == Priority.DEMAND and self.is_journalled and left >= LEAST_TO_REOPEN:
            raise Reopened

    def _start(self, window: Window) -> None:
        remote = self.remote
        if self.is_journalled:
            window.write_control()
        headers = list(remote.headers)
        if remote.validator.if_range and remote.ranges:
            # A file that has changed is then sent whole, and aria2 gives up instead of mixing.
            headers.append(f"If-Range: {remote.validator.if_range}")
        wishes = {
            "dir": str(window.file.parent),
            "out": window.file.name,
            "header": headers,
            "split": str(self.connections),
            "min-split-size": str(self._least_split(window)),
            "max-connection-per-server": str(self.connections),
            "continue": "true" if remote.ranges else "false",
            "max-tries": "1" if self.growth else "3",  # one door counts one try
            "use-head": "true" if self._may_use_head(window) else "false",
            "timeout": str(max(1, round(self.services.patience.silence))),
            "max-download-limit": str(
                self.services.limits.bytes_per_second(remote.host, self._priority)),
        }
        allowance = self.growth.bytes_promised if self.growth else 2 * window.bytes_wanted + MOST_SENT_TWICE
        window.gid = self.services.daemon.add(
            remote.url, wishes, (remote.host, remote.port), allowance,
            owner=str(self.place.file), urgency=self._priority,
        )

    def _least_split(self, window: Window) -> int:
        """What is left of a window is not divided ever more finely where the next one has work for all.

        A part that is given to another connection ends the request of the one that had it, and what is on its
        way then has been sent for nothing.
        """
        if window is self.windows[-1]:
            return PIECE_BYTES
        return max(PIECE_BYTES, window.bytes_wanted // (2 * self.connections))

    def _may_use_head(self, window: Window) -> bool:
        """aria2 begins with a request for the whole file; when it needs another part that is for nothing."""
        needs_a_part = self.kept.bytes_done or window.file != self.place.partial or self.only is not None
        if not self.is_journalled or not needs_a_part:
            return False
        if self._answers_head is None:
            self._answers_head = sources.answers_head(
                self.entry, self.remote, allow_hosts=self.services.options.depot_allow_hosts
            )
        return self._answers_head

    def _aria2_error(self, status: dict[str, str]) -> DownloadFailed:
        code, text = status.get("errorCode", "?"), status.get("errorMessage", "")
        free = shutil.disk_usage(self.place.partial.parent).free
        if code == "9" or "space" in text.lower() or (code in ("15", "16", "17") and free < PIECE_BYTES):
            return self.disk_full()
        where = sources.shown(self.remote.url)
        return Busy(
            f"'{self.entry.key}': the download from {where} broke off (aria2 error {code}). "
            "Try again later or add another url to the manifest; what has arrived is kept."
        )

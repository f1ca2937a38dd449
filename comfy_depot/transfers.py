"""All transfers of this process: one per destination file, joined by everybody who wants that file."""

from __future__ import annotations

import copy
import enum
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfy_depot.aria2 import Daemon
from comfy_depot.bundles import Bundles
from comfy_depot.download import Download
from comfy_depot.errors import DepotError, DownloadFailed, TransferCancelled
from comfy_depot.events import EVENT, SECONDS_BETWEEN, transfer_payload
from comfy_depot.eviction import Stamp
from comfy_depot.layout import Layout
from comfy_depot.leases import FileLeases, Leases
from comfy_depot.limits import Limits, MemoryLimits
from comfy_depot.manifest import Entry
from comfy_depot.neighbours import Neighbours
from comfy_depot.options import Options
from comfy_depot.room import Evictor, Room
from comfy_depot.services import Patience, Priority, Progress, Services
from comfy_depot.speeds import Speeds
from comfy_depot.stream import Streams

CHECK_SECONDS = 0.2
REMEMBERED = 100  # finished transfers that `get` still knows
log = logging.getLogger(__name__)


class State(str, enum.Enum):
    """The life of a transfer."""

    WAITING = "waiting"
    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    UNPACKING = "unpacking"
    VERIFYING = "verifying"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Transfer:
    """One file on its way; made by `Transfers.fetch`."""

    def __init__(
        self,
        number: str,
        entry: Entry,
        destination: Path,
        priority: Priority,
        publish: Callable[[str, dict[str, Any]], None],
        replaces: Stamp | None = None,
        on_end: Callable[[Transfer], None] = lambda transfer: None,
    ) -> None:
        self.id = number
        self.entry = entry
        self.destination = destination
        self.priority = priority
        self.replaces = replaces
        """The file that gives way to it, if one stands there."""
        self.error: BaseException | None = None
        self._publish = publish
        self._on_end = on_end
        self._published_at = 0.0
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._end: State | None = None
        self._waiters: Counter[Priority] = Counter()
        self._claims = Counter([priority])
        """Those who have it from `fetch` and do not wait yet; they count like waiters."""
        self._progress = Progress(
            changed=self._changed, stopped=self._stop.is_set, priority=lambda: self.priority
        )
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> State:
        """Where the transfer is in its life."""
        return self._end or State(self._progress.state)

    @property
    def bytes_done(self) -> int:
        """Bytes that are here, those of an earlier try included."""
        return self._progress.bytes_done

    @property
    def bytes_total(self) -> int | None:
        """Size of the file; None until the source has told it."""
        return self._progress.bytes_total if self._progress.bytes_total is not None else self.entry.size

    @property
    def bytes_per_second(self) -> int:
        """The rate of the last seconds; 0 while nothing comes or it is not known yet."""
        return self._progress.bytes_per_second

    @property
    def seconds_left(self) -> float | None:
        """Until all bytes are here, at the rate of now; None where nothing tells."""
        total, rate = self.bytes_total, self.bytes_per_second
        return None if total is None or rate <= 0 else (total - self.bytes_done) / rate

    @property
    def source(self) -> str | None:
        """The host that is asked; never more of the URL."""
        return self._progress.source

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen."""
        return self._end is not None

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._stop.is_set()

    def join(self, priority: Priority) -> bool:
        """Take part in this transfer; False when it is too late for that."""
        with self._change:
            if self.is_finished or self.is_stopping:
                return False
            self._claims[priority] += 1
            self._settle()
            return True

    def leave(self, priority: Priority) -> None:
        """Give up what `fetch` or `join` gave with this priority, without waiting for the end."""
        with self._change:
            self._claims[priority] -= 1
            self._settle()

    def _settle(self) -> None:
        """Be as urgent as the most urgent of those who want it, and stop when nobody does."""
        wanted = [*(+self._claims), *(+self._waiters)]
        if self.is_finished:
            return
        if not wanted:
            self.stop()
        elif self.priority != min(wanted):
            self.priority = min(wanted)
            self._progress.woken.set()

    def stop(self) -> None:
        """Ask the transfer to stop; what has arrived stays for the next fetch."""
        self._stop.set()

    def wait(
        self,
        *,
        on_progress: Callable[[Transfer], None] | None = None,
        check: Callable[[], None] | None = None,
        priority: Priority = Priority.DEMAND,
    ) -> Path:
        """Block until the verified file stands under its final name and return that; raise what went wrong.
        `priority` is the one with which it was fetched or joined.

        `check` is called at least every 0.25 s and may raise to leave. When the last one who waits
        leaves, the transfer stops; its partial stays.
        """
        with self._change:
            self._claims[priority] = max(0, self._claims[priority] - 1)
            self._waiters[priority] += 1
            self._settle()
        try:
            while not self.is_finished:
                with self._change:
                    if not self.is_finished:
                        self._change.wait(CHECK_SECONDS)
                if check is not None:
                    check()
                if on_progress is not None:
                    on_progress(self)
        finally:
            with self._change:
                self._waiters[priority] -= 1
                self._settle()
        if self.error is not None:
            raise _copy_of(self.error)
        return self.destination

    # -- the thread of the transfer

    def _run(self, download: Download) -> None:
        try:
            download.run()
            end = State.DONE
        except TransferCancelled as error:
            self.error, end = error, State.CANCELLED
        except DepotError as error:
            self.error, end = error, State.FAILED
        except Exception as error:  # the edge of the thread: whoever waits must hear of it
            log.exception("The transfer of %s ended in an error that was not foreseen.", self.entry.key)
            self.error, end = (
                DownloadFailed(
                    f"'{self.entry.key}' could not be fetched because of an error in the depot ({error!r}). "
                    "Please report it with the log."
                ),
                State.FAILED,
            )
        self._progress.bytes_per_second = 0
        self._on_end(self)
        with self._change:
            self._end = end
            self._change.notify_all()
        self._publish(EVENT, transfer_payload(self))

    def _changed(self) -> None:
        with self._change:
            self._change.notify_all()
        now = time.monotonic()
        if now - self._published_at >= SECONDS_BETWEEN * 0.95:
            self._published_at = now
            self._publish(EVENT, transfer_payload(self))


def _copy_of(error: BaseException) -> BaseException:
    """The error for one of those who wait. Its traceback holds their frames, and what these hold (models of a
    prompt), and a transfer that has ended is remembered for a while.
    """
    copied = copy.copy(error).with_traceback(error.__traceback__)
    copied.__cause__, copied.__suppress_context__ = error.__cause__, error.__suppress_context__
    return copied


class Transfers:
    """Starts transfers and joins them.

    The first one starts the aria2 daemon, unless a `daemon` is given, which is then left to its owner.
    `leases` and `limits` may reach over more than this machine. `is_bundle_needed` tells whether manifests
    name members of an entry's archive that are not on the disk. `on_end` is told of each transfer that ends,
    on its thread and before those who wait for it.
    """

    def __init__(
        self,
        options: Options,
        *,
        publish: Callable[[str, dict[str, Any]], None],
        patience: Patience | None = None,
        daemon: Daemon | None = None,
        leases: Leases | None = None,
        limits: Limits | None = None,
        neighbours: Neighbours | None = None,
        evictor: Evictor | None = None,
        streams: Streams | None = None,
        is_bundle_needed: Callable[[Entry], bool] = lambda entry: False,
        on_end: Callable[[Transfer], None] = lambda transfer: None,
    ) -> None:
        self.options = options
        self.layout = Layout(options.depot_dir)
        self.daemon = daemon or Daemon(
            options.depot_dir, allow_hosts=options.depot_allow_hosts, rate=options.depot_rate.total
        )
        self._owns_daemon = daemon is None
        self._publish = publish
        self._on_end = on_end
        self._owns_neighbours = neighbours is None
        self._neighbours = neighbours or Neighbours(options.depot_dir)
        room = Room(
            options.depot_reserve, self._neighbours, max_size=options.depot_max_size, evictor=evictor
        )
        self._services = Services(
            options,
            self.daemon,
            room,
            leases or FileLeases(),
            limits or MemoryLimits(options.depot_rate, options.depot_requests),
            Speeds(options.depot_dir),
            patience or Patience(),
            streams or Streams(),
        )
        self._bundles = Bundles(self._services, is_needed=is_bundle_needed)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._by_id: dict[str, Transfer] = {}

    def fetch(self, entry: Entry, destination: Path, *, priority: Priority = Priority.DEMAND,
              replaces: Stamp | None = None) -> Transfer:
        """Start the transfer of `entry` to `destination`, or join the one that runs. `replaces` is the file
        there that it replaces in the end, if that is still the same one then.

        When the manifest has changed since that one began, the new one waits for its end: it goes on from
        what is there if that failed (the change may be the cure), and is content with a file that stands.
        """
        file = Path(destination).absolute()
        with self._lock:
            for running in self._by_id.values():
                wanted = (running.destination, running.entry, running.replaces)
                if wanted == (file, entry, replaces) and running.join(priority):
                    return running
            transfer = Transfer(f"t{next(self._numbers)}", entry, file, priority, self._publish, replaces,
                                self._on_end)
            self._remember(transfer)
        place, progress = self.layout.place(file), transfer._progress
        work: Download
        if entry.bundle is None:
            work = Download(entry, place, self._services, progress)
        else:
            work = self._bundles.download(entry, place, progress)
        work.replaces = replaces
        transfer._thread = threading.Thread(
            target=transfer._run, args=(work,), name=f"transfer-{transfer.id}", daemon=True
        )
        transfer._thread.start()
        return transfer

    def active(self) -> list[Transfer]:
        """Transfers that are not finished, oldest first."""
        with self._lock:
            return [transfer for transfer in self._by_id.values() if not transfer.is_finished]

    def get(self, number: str) -> Transfer | None:
        """A transfer by its id; finished ones are known for a while."""
        with self._lock:
            return self._by_id.get(number)

    def cancel(self, number: str) -> bool:
        """Stop a transfer for everybody who waits; returns whether there was one to stop."""
        transfer = self.get(number)
        if transfer is None or transfer.is_finished:
            return False
        transfer.stop()
        return True

    def close(self) -> None:
        """Stop all transfers (what has arrived is kept) and the daemon."""
        for transfer in self.active():
            transfer.stop()
        for transfer in self.active():
            if transfer._thread is not None:
                transfer._thread.join(5)
        if self._owns_daemon:
            self.daemon.close()
        if self._owns_neighbours:
            self._neighbours.close()

    def _remember(self, transfer: Transfer) -> None:
        self._by_id[transfer.id] = transfer
        finished = [number for number, known in self._by_id.items() if known.is_finished]
        for number in finished[: max(0, len(finished) - REMEMBERED)]:
            del self._by_id[number]

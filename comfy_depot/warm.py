"""Warm-up: models that nobody waits for, brought in idle time and evicting nothing.

    asked for     by POST /depot/warm or on the command line; at once, and after everything else
    configured    --depot-warm checkpoints/base.safetensors,loras/style-*
    guessed       what a tenant who is there will probably switch to (--depot-predict, see guesses.py)
    popular       what the access log names most, as far as it fits into popular=SIZE of --depot-warm

Idle means that no node waits for a download and none is made for a prompt in the queue. One model comes at a
time, and what comes in between goes before it (`lanes.py`).
"""

from __future__ import annotations

import fnmatch
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from comfy_depot import access
from comfy_depot.errors import DepotError
from comfy_depot.guesses import DAY, SECONDS_PRESENT, Ledger, worth
from comfy_depot.manifest import Entry
from comfy_depot.policies import Key
from comfy_depot.predict import Predictor, Score
from comfy_depot.services import Priority

if TYPE_CHECKING:
    from comfy_depot.depot import Depot
    from comfy_depot.transfers import Transfer

PAUSE_SECONDS = 5.0
SECONDS_TO_RETRY = 600.0
MOST_ROWS = 20_000
"""How far back the access log is read; what counts is of late."""
POPULAR_HALF_LIFE = 7 * DAY
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """A model that should be on the disk and is not, or is outdated there."""

    folder: str
    name: str
    size: int | None
    why: str
    """"asked", "configured", "guessed" or "popular"."""

    def as_json(self) -> dict[str, Any]:
        """As routes and `--json` give it."""
        return asdict(self)


class Foresight:
    """The predictor and the ledger of guesses, fed from the access log of one state folder."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._lock = threading.Lock()
        self._row = 0
        self.predictor = Predictor()
        self.ledger = Ledger()
        self.scores: dict[str, Score] = {}
        self._last_use: dict[tuple[str, str], float] = {}
        """{(tenant, folder type): time}"""

    def follow(self) -> None:
        """Take in what is new in the log."""
        self._depot.access.flush()
        with self._lock:
            self._row, rows = access.read_since(self._depot.options.depot_dir, self._row, limit=MOST_ROWS)
            for row in rows:
                self._take_in(row)

    def _take_in(self, row: access.Access) -> None:
        key, tenant = (row.folder, row.name), row.tenant or ""
        if row.outcome == "guessed":
            self.ledger.guessed(row.time, key, row.bytes)
        if not row.is_use:
            return
        self.ledger.used(key)
        predicted = self.predictor.use(tenant, key)
        for folder in {"", row.folder}:
            self.scores.setdefault(folder, Score()).add(predicted, row.name)
        self._last_use[tenant, row.folder] = row.time

    def guesses(self, now: float) -> Iterator[Wish]:
        """What should be fetched because it will probably be asked for, within the budget of waste."""
        depot = self._depot
        with self._lock:
            left = depot.options.depot_predict - self.ledger.at_stake(now)
            present = [one for one, when in self._last_use.items() if now - when < SECONDS_PRESENT]
            present.sort(key=lambda one: -self._last_use[one])
            found = list(worth(
                self.predictor, present, is_missing=lambda key: depot.local_path(*key) is None,
                size_of=self._size_of, bytes_left=left,
            ))
        for (folder, name), size, _ in found:
            yield Wish(folder, name, size, "guessed")

    def stats(self, now: float) -> dict[str, Any]:
        """How often predictions were right, and what guesses have brought."""
        self.follow()
        with self._lock:
            folders = {folder: score.as_json() for folder, score in sorted(self.scores.items()) if folder}
            whole = self.scores.get("", Score()).as_json()
            return {"budget": self._depot.options.depot_predict, **whole, "folders": folders,
                    "guesses": self.ledger.as_json(now)}

    def _size_of(self, key: Key) -> int | None:
        entry = self._depot.catalogue.find(*key)
        return None if entry is None else entry.size


class Warm:
    """Brings models in idle time. Every method may be called from any thread."""

    def __init__(self, depot: Depot, *, pause: float = PAUSE_SECONDS) -> None:
        self._depot = depot
        self._pause = pause
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._refused: dict[Key, float] = {}
        """{model: when it may be tried again}"""
        self.foresight = Foresight(depot)
        self.models = self.bytes = 0
        """That were brought."""

    def start(self) -> None:
        """Begin, when there is anything to do in idle time."""
        options = self._depot.options
        if options.depot_warm.models or options.depot_warm.popular or options.depot_predict:
            self._thread = threading.Thread(target=self._run, name="depot-warm", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop. Downloads are stopped by their owner."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(5)

    def ask(self, folder: str, name: str) -> Transfer:
        """Bring a model now, after everything else that is under way; ModelUnavailable when none names it."""
        entry = self._depot.entry(folder, name)
        transfer = self._depot.begin_transfer(entry, Priority.WARM)
        threading.Thread(target=self._bring, args=(entry, transfer, "asked", None),
                         name=f"depot-warm-{name}", daemon=True).start()
        return transfer

    def bring(self, wish: Wish, on_progress: Callable[[Transfer], None] | None = None) -> str | None:
        """Bring a model and wait for it; why not, or None."""
        entry = self._depot.entry(wish.folder, wish.name)
        transfer = self._depot.begin_transfer(entry, Priority.WARM)
        return self._bring(entry, transfer, wish.why, on_progress)

    def bring_if_known(self, wish: Wish) -> None:
        """The same for a model that may have left the manifests meanwhile."""
        try:
            self.bring(wish)
        except DepotError as error:
            log.info("%s/%s was not fetched in idle time: %s", wish.folder, wish.name, error)

    @property
    def is_closed(self) -> bool:
        """Whether the depot ends."""
        return self._closed.is_set()

    def plan(self) -> list[Wish]:
        """What is configured or popular and not on the disk, in the order in which it is brought."""
        wishes: dict[Key, Wish] = {}
        for wish in (*self._configured(), *self._popular()):
            wishes.setdefault((wish.folder, wish.name), wish)
        return list(wishes.values())

    def stats(self) -> dict[str, int]:
        """What was brought since the start."""
        return {"models": self.models, "bytes": self.bytes}

    def _bring(self, entry: Entry, transfer: Transfer, why: str,
               on_progress: Callable[[Transfer], None] | None) -> str | None:
        try:
            transfer.wait(on_progress=on_progress, priority=Priority.WARM)
        except DepotError as error:
            log.info("%s was not fetched in idle time: %s", entry.key, error)
            return str(error)
        if transfer.priority == Priority.WARM:  # else who waited for it has written it down
            self._depot.note_arrival(entry, "guessed" if why == "guessed" else "warmed")
        with self._lock:
            self.models += 1
            self.bytes += transfer.bytes_done
        return None

    # -- the thread

    def _run(self) -> None:
        while not self._closed.wait(self._pause):
            try:
                self.look()
            except Exception:  # the thread must outlive a damaged log and whatever a host does
                log.exception("Nothing is fetched in idle time this time.")

    def look(self) -> None:
        """Bring what is missing, one after the other, as long as nothing else is to be done."""
        while not self._closed.is_set() and self.is_idle():
            wish = next(self._wishes(), None)
            if wish is None:
                return
            key = (wish.folder, wish.name)
            self._refused[key] = time.monotonic() + SECONDS_TO_RETRY  # also when it is evicted again
            self.bring_if_known(wish)

    def is_idle(self) -> bool:
        """Whether no download is made that anybody needs."""
        busy = any(one.priority < Priority.WARM for one in self._depot.active_transfers())
        return not busy and not self._depot.preload.is_busy()

    def _wishes(self) -> Iterator[Wish]:
        sources: list[Callable[[], Iterator[Wish]]] = [self._configured]
        if self._depot.options.depot_predict:
            sources.append(self._guessed)
        sources.append(self._popular)
        now = time.monotonic()
        for source in sources:
            for wish in source():
                if self._refused.get((wish.folder, wish.name), 0.0) <= now:
                    yield wish

    def _configured(self) -> Iterator[Wish]:
        patterns = self._depot.options.depot_warm.models
        for pattern in patterns:
            for entry in self._depot.catalogue:
                if fnmatch.fnmatchcase(f"{entry.folder}/{entry.name}", pattern) and self._is_missing(entry):
                    yield Wish(entry.folder, entry.name, entry.size, "configured")

    def _guessed(self) -> Iterator[Wish]:
        self.foresight.follow()
        yield from self.foresight.guesses(time.time())

    def _popular(self) -> Iterator[Wish]:
        """Those of the most used models that are missing; those on the disk count towards the size too."""
        left = self._depot.options.depot_warm.popular
        if not left:
            return
        worths: dict[Key, float] = {}
        now = time.time()
        self._depot.access.flush()
        for use in access.read(self._depot.options.depot_dir, limit=MOST_ROWS):
            if use.is_use:
                key = (use.folder, use.name)
                worths[key] = worths.get(key, 0.0) + 0.5 ** ((now - use.time) / POPULAR_HALF_LIFE)
        for key in sorted(worths, key=lambda one: -worths[one]):
            entry = self._depot.catalogue.find(*key)
            if entry is None or entry.size is None:
                continue
            left -= entry.size
            if left < 0:
                return
            if self._is_missing(entry):
                yield Wish(*key, entry.size, "popular")

    def _is_missing(self, entry: Entry) -> bool:
        return self._depot.usable_path(entry.folder, entry.name) is None

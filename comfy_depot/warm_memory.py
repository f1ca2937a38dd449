"""Brings pinned models into memory: at start, when a pin comes, when a file is replaced; one at a time.

    waiting -> fetching (it is only in the cloud) -> loading -> ready
                                                 \\-> failed, with a message; tried again later

It gives way to prompts: nothing is begun while one runs or waits, for at most SECONDS_OF_PATIENCE per model.
How a model is loaded is the host's affair (`Host.load_model`), which does it as a workflow would, so that the
workflow finds it. A model that a workflow has loaded meanwhile is ready.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from comfy_depot.errors import ModelUnavailable, TransferCancelled
from comfy_depot.events import EVENT, memory_payload
from comfy_depot.memory_pins import Pin, in_words, pattern_of
from comfy_depot.pinning import Target

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

PAUSE_SECONDS = 2.0
"""Between looks; so soon a change of another process is taken up."""
SHARE_OF_LOOKS = 0.02
"""A look that takes long comes less often."""
SECONDS_OF_PATIENCE = 30.0
"""For which a model waits for a moment without prompts."""
SECONDS_BETWEEN_GLANCES = 0.1
SECONDS_TO_RETRY = 600.0
REMEMBERED = 50
NOT_KEPT = ("It is not in memory: nothing here loads it ahead of a workflow, its loader keeps nothing, or it "
            "is not pinned and --resident-budget is full. A pinned one stays once a workflow has loaded it.")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Warming:
    """A model on its way into memory."""

    folder: str
    name: str
    bytes: int | None
    state: str = "waiting"
    """"waiting", "fetching", "loading", "ready" or "failed"."""
    message: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As the routes and the event give it."""
        return asdict(self)


NOTHING = Warming("", "", None)


class WarmMemory:
    """The thread that loads, and what it knows. Every method may be called from any thread."""

    def __init__(self, depot: Depot, *, pause: float = PAUSE_SECONDS,
                 patience: float = SECONDS_OF_PATIENCE) -> None:
        self._depot = depot
        self._pause = pause
        self._patience = patience
        self._closed = threading.Event()
        self._woken = threading.Event()
        self._seconds_to_look = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards what follows
        self._known: dict[str, Warming] = {}
        """{title: how far it is} of what was begun."""
        self._failed: dict[str, tuple[Hashable, float]] = {}
        """{title: (its content then, when it may be tried again)}"""
        self._asked: deque[str] = deque(maxlen=REMEMBERED)
        self._to_do: list[str] = []
        """Those of the asked ones that were not begun yet."""
        self._warned: set[Pin] = set()

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="depot-warm-memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. A load under way is not waited for long."""
        self._closed.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(5)

    def wake(self) -> None:
        """Look now: the pins have changed. What has failed is tried again."""
        with self._lock:
            self._failed.clear()
        self._woken.set()

    def warm_all(self) -> list[Warming]:
        """Load all pinned models now, also those that have failed; how far they are."""
        found = self.pinned()
        self.wake()
        return found

    def ask(self, folder: str, name: str) -> Warming:
        """Load a model now, pinned or not, before others; how far it is. ModelUnavailable: none is known."""
        target = self._find(folder, name)
        with self._lock:
            self._asked.append(target.title)
            self._to_do.append(target.title)
            self._failed.pop(target.title, None)
            if self._known.get(target.title, NOTHING).state == "failed":
                del self._known[target.title]
        self._woken.set()
        return self.state_of(target)

    def plan(self, folder: str, name: str) -> Warming:
        """What `ask` would load."""
        return self.state_of(self._find(folder, name))

    def asked(self) -> list[Warming]:
        """The models that were asked for of late and are on their way, in memory, or failed."""
        with self._lock:
            titles = [title for title in dict.fromkeys(self._asked)
                      if title in self._to_do or title in self._known]
        return [self.state_of(target) for target in map(self._of_title, titles) if target is not None]

    def pinned(self) -> list[Warming]:
        """All pinned models."""
        return [self.state_of(target) for target in self._targets()]

    def state_of(self, target: Target) -> Warming:
        """How far a model is."""
        plain = Warming(target.folder, target.name, target.size)
        with self._lock:
            known = self._known.get(target.title, plain)
        in_memory = self._depot.residents.find(target.title, target.path)
        if in_memory is None:
            return replace(known, bytes=target.size) if known.state != "ready" else plain
        size, is_pinned = in_memory
        if target.pins and not is_pinned:
            return replace(plain, bytes=size, state="failed", message=self._does_not_fit(size))
        is_gone = target.path is None
        return replace(plain, bytes=size, state="ready", message="Its file is gone." if is_gone else None)

    # -- the thread

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self.look()
            except Exception:  # the thread must outlive whatever a host, a pack or a folder does
                log.exception("Pinned models are not loaded this time.")
            self._woken.wait(max(self._pause, self._seconds_to_look / SHARE_OF_LOOKS))
            self._woken.clear()

    def look(self) -> None:
        """Take up what has changed and load what is missing, one after the other."""
        self._depot.memory_pins.refresh()
        while not self._closed.is_set():
            following = self._next(self._survey())
            if following is None:
                return
            if self._wait_for_quiet() and self._is_still_wanted(following):
                self._bring(following)

    def _is_still_wanted(self, target: Target) -> bool:
        """Whether it is to be loaded now as well: it may be there by now, or unpinned."""
        is_held = not target.pins or self._depot.memory_pins.of([target.title])
        return bool(is_held) and self.state_of(target).state != "ready"

    def _survey(self) -> list[Target]:
        """The pinned models as they are now; what is in memory already is taken up."""
        started = time.perf_counter()
        targets = self._targets()
        self._warn(targets)
        for target in targets:
            if target.path is not None:
                self._depot.residents.recognise(target.path)
        self._depot.residents.apply_pins()
        self._seconds_to_look = time.perf_counter() - started
        return targets

    def _next(self, targets: list[Target]) -> Target | None:
        """What is to be loaded first: what was asked for, then pinned models in the order of their pins, and
        those that must be fetched last.
        """
        with self._lock:
            titles, self._to_do = self._to_do, []
            failed = dict(self._failed)
        asked = [target for target in map(self._of_title, titles) if target is not None]
        waiting = [target for target in asked if self.state_of(target).state != "ready"]
        if waiting:
            with self._lock:
                self._to_do = [*(target.title for target in waiting[1:]), *self._to_do]
            return waiting[0]
        for target in sorted(targets, key=lambda target: target.path is None):
            content, again_at = failed.get(target.title, (None, 0.0))
            is_refused = content == target.content and time.monotonic() < again_at
            if not is_refused and self.state_of(target).state != "ready":
                return target
        return None

    def _wait_for_quiet(self) -> bool:
        """Wait for a moment without prompts, but not for ever; False at the end of the depot."""
        deadline = time.monotonic() + self._patience
        while self._depot.host.queued_prompts(1) and time.monotonic() < deadline:
            if self._closed.wait(SECONDS_BETWEEN_GLANCES):
                return False
        return not self._closed.is_set()

    def _bring(self, target: Target) -> None:
        started = time.perf_counter()
        self._tell(target, "waiting")
        try:
            message = self._load(target)
        except Exception as error:  # whatever a source, a host or a file does wrong is this model's failure
            message = str(error) or type(error).__name__
        self._depot.residents.apply_pins()
        now = self._of_title(target.title)  # it may have been fetched
        found = None if now is None else self.state_of(now)
        if message is None and (found is None or found.state != "ready"):
            message = (found and found.message) or NOT_KEPT
        if message is None:
            log.info("%s is in memory after %.1f s.", target.title, time.perf_counter() - started)
            self._tell(target, "ready")
            return
        if not self._closed.is_set():
            log.warning("%s was not loaded ahead: %s", target.title, message)
        with self._lock:
            self._failed[target.title] = (target.content, time.monotonic() + SECONDS_TO_RETRY)
        self._tell(target, "failed", message)

    def _load(self, target: Target) -> str | None:
        """Fetch and load a model; why not, or None."""
        residents = self._depot.residents
        if target.pins and target.size is not None and not self._fits(target.size):
            return self._does_not_fit(target.size)
        if target.path is None:
            self._tell(target, "fetching")
            self._depot.fetch(target.folder, target.name, check=self._stop_if_closed)
        self._tell(target, "loading")
        with residents.placing.purpose("for warm-up"):
            is_loaded = self._depot.host.load_model(target.folder, target.name)
        return None if is_loaded else NOT_KEPT

    def _stop_if_closed(self) -> None:
        if self._closed.is_set():
            raise TransferCancelled("The server stops.")

    def _fits(self, size: int) -> bool:
        pinned = sum(model.size for model in self._depot.residents.pinned())
        return pinned + size <= self._depot.residents.pin_limit

    def _does_not_fit(self, size: int) -> str:
        pinned = sum(model.size for model in self._depot.residents.pinned())
        limit = self._depot.residents.pin_limit
        return (f"Its {in_words(size)} do not fit into --pin-budget: {in_words(pinned)} of {in_words(limit)} "
                "are pinned. Unpin another model, or start with a larger budget.")

    def _tell(self, target: Target, state: str, message: str | None = None) -> None:
        known = Warming(target.folder, target.name, target.size, state, message)
        with self._lock:
            self._known[target.title] = known
        self._depot.host.send(EVENT, memory_payload(known))

    def _warn(self, targets: list[Target]) -> None:
        for pin in self._depot.pinning.without_models(targets):
            if pin not in self._warned:
                self._warned.add(pin)
                log.warning("%s: %s", pin.by, self._depot.pinning.warning(pin.pattern))

    # -- names

    def _targets(self) -> list[Target]:
        return self._depot.pinning.targets(self._depot.memory_pins.all())

    def _of_title(self, title: str) -> Target | None:
        """A model by its name, with its pins if it has any."""
        pins = self._depot.memory_pins.of([title])
        found = self._depot.pinning.targets([Pin(title, "", 0.0)])
        return next((replace(target, pins=pins) for target in found if target.title == title), None)

    def _find(self, folder: str, name: str) -> Target:
        found = self._of_title(pattern_of(folder, name))
        if found is None:
            raise ModelUnavailable(self._depot.explain_missing(folder, name))
        return found

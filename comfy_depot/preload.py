"""Preload: the models that waiting prompts name are on their way before a node asks for them.

    the queue changes --> which models do its prompts name? --> those that are missing, in the order of need

Prompts count in the order in which they will run, and the nodes of one in the order in which the executor
will take them. A few models are fetched at once; the next one begins when one has arrived. Who waits for a
model joins the download that is under way, which then goes before the others (`lanes.py`). When a prompt
leaves the queue, what only it needed is let go; what has arrived stays for later.

Only choices from lists count: a name in a text field may be anything. A full disk means later: nothing that a
prompt in the queue names is ever evicted, and the models that are needed first are asked for first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_depot.errors import DepotError, DiskFull, TransferCancelled
from comfy_depot.host import Chosen, QueuedPrompt
from comfy_depot.manifest import Entry
from comfy_depot.policies import Key
from comfy_depot.services import Priority

if TYPE_CHECKING:
    from comfy_depot.depot import Depot
    from comfy_depot.transfers import Transfer

MOST_PROMPTS = 100
"""So many of the waiting prompts are looked at."""
LOOK_SECONDS = 0.2
"""Between two looks while something is under way, and at least between two looks at the queue."""
LOOK_SHARE = 0.02
"""Of the time may be spent with looking at the queue."""
DISK_SECONDS = 30.0
"""After a full disk."""
WAY_SECONDS = 3.0
"""In which a download that is let go has given back its room."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Need:
    """A model that a prompt names."""

    entry: Entry
    prompt: QueuedPrompt

    @property
    def key(self) -> Key:
        return self.entry.folder, self.entry.name


def folders_of(chosen: Chosen, known: Mapping[str, Mapping[str, Entry]],
               lists: Any) -> list[str]:
    """The folder types in which a chosen text names a model of a manifest. Where it does in several, those
    count of which the input offers the whole list. `lists(folder)` gives the list of a type.
    """
    name = chosen.text.replace("\\", "/")
    found = [folder for folder, models in known.items() if name in models]
    if len(found) < 2:
        return found
    offered = {text for text in chosen.choices if isinstance(text, str)}
    return [folder for folder in found if offered.issuperset(lists(folder))]


class Preload:
    """Fetches ahead what the host's queue will need. Every method may be called from any thread."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._woken = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # guards what follows
        self._named: dict[str, tuple[object, object, list[Entry]]] = {}
        """{prompt id: (its graph, the manifests' entries then, the models that it names)}"""
        self._held: dict[Key, tuple[Transfer, Need]] = {}
        self._refused: dict[Key, Entry] = {}
        """What cannot be fetched; it is tried again when the manifest changes or a node asks."""
        self._full_until = float("-inf")
        self._is_put_off = False
        """Whether something may be needed for which there was no room."""
        self._seconds_to_look = 0.0
        self.started = self.arrived = self.let_go = self.bytes_arrived = 0

    def start(self) -> None:
        """Follow the queue from now on, unless `--depot-preload 0`."""
        if self._depot.options.depot_preload:
            self._thread = threading.Thread(target=self._run, name="depot-preload", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop. Downloads are stopped by their owner."""
        self._closed = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join(5)

    def wake(self) -> None:
        """The queue has changed. Costs next to nothing: it is called for each change, under the queue's lock.
        """
        if not self._woken.is_set():
            self._woken.set()

    def make_way(self) -> bool:
        """Somebody waits for a model for which there is no room: give back the room that is promised to
        models which nobody waits for yet. Returns whether there was any.
        """
        with self._lock:
            self._full_until = time.monotonic() + DISK_SECONDS
            going = [(key, transfer) for key, (transfer, _) in self._held.items()
                     if not transfer.is_finished and transfer.priority != Priority.DEMAND]
            for key, _ in going:
                self._let_go(key)
        deadline = time.monotonic() + WAY_SECONDS
        while any(not one.is_finished for _, one in going) and time.monotonic() < deadline:
            time.sleep(0.02)
        return bool(going)

    def is_busy(self) -> bool:
        """Whether something is under way for a waiting prompt."""
        with self._lock:
            return bool(self._held)

    def stats(self) -> dict[str, int]:
        """What was fetched ahead so far."""
        with self._lock:
            return {"under_way": len(self._held), "started": self.started, "arrived": self.arrived,
                    "bytes": self.bytes_arrived, "let_go": self.let_go}

    # -- the thread

    def _run(self) -> None:
        while not self._closed:
            self._woken.wait(self._seconds_to_next_look())
            self._woken.clear()
            try:
                if not self._closed:
                    self.look()
            except Exception:  # the thread must outlive whatever a host or a pack does
                log.exception("Models of waiting prompts are not fetched ahead this time.")
            time.sleep(min(2.0, self._seconds_to_look / LOOK_SHARE))

    def _seconds_to_next_look(self) -> float | None:
        """None: there is nothing to look at until the queue changes."""
        if self.is_busy():
            return LOOK_SECONDS
        return max(0.0, self._full_until - time.monotonic()) if self._is_put_off else None

    def look(self) -> None:
        """Compare the queue with what is under way, once."""
        begin = time.perf_counter()
        with self._lock:
            self._settle_finished()
        needs = self._needs()
        self._seconds_to_look = time.perf_counter() - begin
        with self._lock:
            # What has arrived since it was settled is not needed any more either: the next look counts it.
            for key in [key for key, (transfer, _) in self._held.items() if key not in needs
                        and not transfer.is_finished and self._depot.usable_path(*key) is None]:
                self._let_go(key)
            self._refused = {key: entry for key, entry in self._refused.items()
                             if key in needs and needs[key].entry == entry}
            self._is_put_off = time.monotonic() < self._full_until
            if not self._is_put_off:
                self._start(needs.values())

    def _start(self, needs: Iterable[Need]) -> None:
        room = self._depot.options.depot_preload - len(self._held)
        for need in needs:
            if room <= 0:
                return
            if need.key in self._held or need.key in self._refused:
                continue
            try:
                transfer = self._depot.begin_transfer(need.entry, Priority.PRELOAD)
            except DepotError as error:
                log.warning("%s is not fetched ahead: %s", need.entry.key, error)
                self._refused[need.key] = need.entry
                continue
            self._held[need.key] = (transfer, need)
            self.started += 1
            room -= 1

    def _let_go(self, key: Key) -> None:
        transfer, _ = self._held.pop(key)
        if not transfer.is_finished:
            self.let_go += 1
        transfer.leave(Priority.PRELOAD)

    def _settle_finished(self) -> None:
        for key, (transfer, need) in list(self._held.items()):
            if not transfer.is_finished:
                continue
            del self._held[key]
            if transfer.error is None:
                self.arrived += 1
                self.bytes_arrived += transfer.bytes_done
                if transfer.priority == Priority.PRELOAD:  # else who waited for it has written it down
                    self._depot.note_arrival(need.entry, "preloaded", need.prompt)
            elif isinstance(transfer.error, DiskFull):
                self._full_until = time.monotonic() + DISK_SECONDS
                log.info("%s is fetched ahead later: %s", need.entry.key, transfer.error)
            else:
                self._refused[key] = need.entry
                if not isinstance(transfer.error, TransferCancelled):
                    log.warning("%s was not fetched ahead: %s", need.entry.key, transfer.error)

    # -- what is needed

    def _needs(self) -> dict[Key, Need]:
        """What the prompts of the queue name and the disk lacks or has outdated, in the order of need."""
        prompts = self._depot.host.queued_prompts(MOST_PROMPTS)
        entries = self._depot.catalogue.snapshot().entries
        named: dict[str, tuple[object, object, list[Entry]]] = {}
        needs: dict[Key, Need] = {}
        for prompt in prompts:
            known = self._named.get(prompt.prompt_id)
            if known is None or known[0] is not prompt.graph or known[1] is not entries:
                known = (prompt.graph, entries, self._models_of(prompt, entries))
            named[prompt.prompt_id] = known
            for entry in known[2]:
                key = (entry.folder, entry.name)
                if key not in needs and self._depot.usable_path(*key) is None:
                    needs[key] = Need(entry, prompt)
        self._named = named
        return needs

    def _models_of(self, prompt: QueuedPrompt, known: Mapping[str, Mapping[str, Entry]]) -> list[Entry]:
        """The models of manifests that a prompt names, each once, in the order of need."""
        if not _names_any(prompt.graph, known):  # most prompts need no look at their node classes
            return []
        found: dict[Key, Entry] = {}
        for chosen in self._depot.host.chosen(prompt):
            for folder in folders_of(chosen, known, self._list_of):
                entry = known[folder][chosen.text.replace("\\", "/")]
                found[folder, entry.name] = entry
        return list(found.values())

    def _list_of(self, folder: str) -> Sequence[str]:
        return folder_paths.get_filename_list(folder)


def _names_any(graph: Mapping[str, Any], known: Mapping[str, Mapping[str, Entry]]) -> bool:
    """Whether any input holds the name of a model in a manifest."""
    for node in graph.values():
        for value in node["inputs"].values():
            texts = value if isinstance(value, list) else (value,)
            for text in texts:
                if isinstance(text, str) and any(text.replace("\\", "/") in models
                                                 for models in known.values()):
                    return True
    return False

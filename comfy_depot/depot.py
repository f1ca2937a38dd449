"""The started depot: catalogue, transfers and access log behind the hooks, the routes and the command line.

Who may start a download: a running node (through the hooks), an accepted prompt that will need it
(`preload.py`), and whoever asks for it by name (`fetch`, `start_fetch`: the command line, `POST
/depot/fetch`). A list, a validation or a route that looks a path up never does, so that opening a page cannot
start a 7 GB transfer.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.cli_args import args
from comfy_depot import budget, hooks, layout, model_headers, offers, places, survey
from comfy_depot.access import Access, AccessLog
from comfy_depot.catalog import Catalogue
from comfy_depot.checked import CheckedManifests
from comfy_depot.digests import Digests
from comfy_depot.errors import DepotError, DiskFull, ModelUnavailable
from comfy_depot.eviction import Limits, Plan
from comfy_depot.hasher import Hasher
from comfy_depot.history import History
from comfy_depot.host import Chosen, Executing, Host, QueuedPrompt
from comfy_depot.index import Index
from comfy_depot.listing import FileList
from comfy_depot.lists import Lists
from comfy_depot.manifest import Entry, Problem
from comfy_depot.memory_pins import MemoryPins
from comfy_depot.neighbours import Neighbours
from comfy_depot.options import Options, from_args
from comfy_depot.outdated import Outdated
from comfy_depot.pinning import Pinning
from comfy_depot.pins import Pins
from comfy_depot.policies import Key
from comfy_depot.preload import Preload, folders_of
from comfy_depot.residency import Residents
from comfy_depot.scratch import Scratch
from comfy_depot.stream import Streams
from comfy_depot.warm import Warm
from comfy_depot.warm_memory import WarmMemory

if TYPE_CHECKING:
    from aiohttp import web

    from comfy_depot.services import Priority
    from comfy_depot.transfers import Transfer, Transfers

EMBEDDING_ENDINGS = (".safetensors", ".pt", ".bin")
"""What may be left out of an embedding's name."""
SECONDS_TO_READ = 10.0
"""For which the end of reading manifests is waited for."""
log = logging.getLogger(__name__)

Found = tuple[list[str], dict[str, float]]
"""What `folder_paths.recursive_search` returns."""


class Depot:
    """Models from the cloud to the disk. Every method may be called from any thread."""

    def __init__(self, options: Options, host: Host) -> None:
        self.options = options
        self.host = host
        self.catalogue = Catalogue(
            options.model_manifests, allow_pickle=options.allow_pickle, guests=offers.files_of(options),
            checked=CheckedManifests(options.depot_dir),
        )
        self.offers = offers.Offers(options, self.catalogue, local_path=self.local_path)
        self.lists = Lists(options, on_change=self.catalogue.report)
        self.index = Index(self.catalogue, options.depot_dir)
        self.access = AccessLog(options.depot_dir)
        self.digests = Digests(options.depot_dir)
        self.outdated = Outdated(options.depot_dir, digests=self.digests, find=self.catalogue.find,
                                 local_path=self.local_path)
        self.history = History(options.depot_dir, options.depot_policy)
        self.pins = Pins(options.depot_dir)
        self.neighbours = Neighbours(options.depot_dir, why_busy=budget.why_busy(self))
        self.idle_eviction = budget.IdleEviction(self)
        self.memory_pins = MemoryPins(
            options.depot_dir, patterns=options.pin, groups=dict(options.pin_group))
        self.residents = Residents(
            options.resident_budget, host=host, digests=self.digests, local_path=self.usable_path,
            pins=self.memory_pins, pin_budget=options.pin_budget,
        )
        self.preload = Preload(self)
        maps_files = not getattr(args, "disable_mmap", False)  # not every core has the option
        self.streams = Streams(is_on=options.depot_stream == "on" and maps_files)
        self.warm = Warm(self)
        self.hasher = Hasher(self)
        self.pinning = Pinning(self)
        self.warm_memory = WarmMemory(self)
        self._transfers: Transfers | None = None
        self._reader: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def transfers(self) -> Transfers:
        """The downloads. aria2 and what speaks to it are loaded when first needed, not at start."""
        from comfy_depot.transfers import Transfers

        with self._lock:
            if self._transfers is None:
                self._transfers = Transfers(
                    self.options, publish=self.host.send, neighbours=self.neighbours,
                    evictor=budget.Budget(self), streams=self.streams,
                    is_bundle_needed=self._is_bundle_needed, on_end=self.outdated.note_end)
            return self._transfers

    def active_transfers(self) -> list[Transfer]:
        """The transfers under way; looking does not load what downloads."""
        return [] if self._transfers is None else self._transfers.active()

    def close(self) -> None:
        """Stop the downloads (what has arrived stays for a later resume) and write the access log out."""
        self.idle_eviction.close()
        self.preload.close()
        self.warm.close()
        self.warm_memory.close()
        self.hasher.close()
        if self._reader is not None:
            self._reader.join(SECONDS_TO_READ)
        with self._lock:
            if self._transfers is not None:
                self._transfers.close()
                self._transfers = None
        self.lists.close()
        self.neighbours.close()
        self.residents.close()
        self.access.close()
        self.index.close()

    def look_after_the_disk(self, *, is_serving: bool) -> None:
        """Be known to the processes that share the state folder; a server evicts in idle time as well."""
        try:
            self.neighbours.start()
        except OSError as error:
            log.error("The depot's state folder %s cannot be written (%s); downloads and eviction will fail. "
                      "Correct its rights or choose another with --depot-dir.", self.options.depot_dir, error)
        if is_serving:
            Scratch(self.options.depot_scratch, self.options.depot_dir).sweep()
            self.idle_eviction.start()
            self.preload.start()
            self.index.indexer.start()
            self.warm.start()
            self.warm_memory.start()
            self.hasher.start()

    def read_manifests_soon(self) -> None:
        """Have the manifests read, and say how many models they name. A hundred thousand entries take
        seconds, and a server's first answers need none of them; who needs them waits.
        """
        def read() -> None:
            models, folder = sum(1 for _ in self.catalogue), self.options.model_manifests
            log.info("The depot knows %d models from the manifests in %s.", models, folder)

        self._reader = threading.Thread(target=read, name="depot-manifests", daemon=True)
        self._reader.start()

    # What the hooks call.

    def add_names(self, directory: str, found: Found) -> Found:
        """The files of a folder with the manifest's names beside them and the depot's partials taken out."""
        names, times = found
        if any(_is_hidden(path) for path in times):
            names = [name for name in names if not _is_hidden(os.path.dirname(name))]
            times = {path: changed for path, changed in times.items() if not _is_hidden(path)}
        more = self.catalogue.names_in(directory)
        if more:
            present = set(names)
            names = [*names, *(name for name in more if name not in present)]
        return names, times

    def search(self, function: Callable[..., Found], directory: str, *args: Any, **kwargs: Any) -> Found:
        """The files of a folder and the manifest's names: from memory for a model folder."""
        found = self.index.search(directory, *args, **kwargs)
        return self.add_names(directory, function(directory, *args, **kwargs) if found is None else found)

    def current_list(self, function: Callable[[str], FileList | None], folder_name: str) -> FileList | None:
        """The list of a folder type as it is now; None where `folder_paths` must make it."""
        return self.index.current_list(function, folder_name)

    def is_fresh(self, listed_at: float) -> bool:
        """Whether a file list made then still holds what the manifests name."""
        return self.catalogue.is_fresh(listed_at)

    def path_in_node(self, folder: str, name: str, path: str | None) -> str | None:
        """The path to give to whoever asked: fetched when a running node asks for a model that is missing."""
        if path is not None and _is_hidden(name):  # a partial: nobody has verified what is in it
            return None
        node = self.host.current_node()
        if node is None:
            return path
        entry, outcome = self.catalogue.find(folder, name), "hit"
        if entry is not None and (path is None or self.outdated.is_wanted(entry)):
            try:
                path, outcome = self._fetch_for_node(entry), "fetched"
            except DepotError as error:
                if path is None:
                    raise
                self.outdated.note_failure(entry, error)  # the old bytes are better than none
        if path is not None:
            self._note(folder, name, path, node, outcome)
        return path

    def embedding_in_node(self, name: str) -> None:
        """Have an embedding that a prompt's text names here, and its use logged; one that nobody knows is
        left to whoever asked.
        """
        for ending in ("", *EMBEDDING_ENDINGS):
            if folder_paths.get_full_path("embeddings", name + ending) is not None:
                return

    def contents_of(self, chosen: Iterable[tuple[str, str, Sequence[Any]]]) -> dict[str, dict[str, str]]:
        """{node id: {model: a text for its content now}} of (node id, chosen text, list it was chosen from),
        for the models that manifests name.
        """
        entries = self.catalogue.snapshot().entries
        found: dict[str, dict[str, str]] = {}
        are_models: dict[str, bool] = {}  # most texts are none, and many nodes choose the same
        for node_id, text, choices in chosen:
            if text not in are_models:
                name = text.replace("\\", "/")
                are_models[text] = any(name in models for models in entries.values())
            if are_models[text]:
                for folder in folders_of(Chosen(text, choices), entries, folder_paths.get_filename_list):
                    entry = entries[folder][text.replace("\\", "/")]
                    found.setdefault(node_id, {})[entry.key] = self.outdated.content_of(entry)
        return found

    def note_plain_access(self, folder: str, name: str, path: str) -> None:
        """Log a path that was asked for outside a running node: a pack's own thread opens files too."""
        if self.host.current_node() is None:
            self._note(folder, name, path, None, "hit")

    @contextlib.contextmanager
    def explaining(self, folder: str, name: str) -> Iterator[None]:
        """Say where a missing model could come from."""
        try:
            yield
        except DepotError:
            raise
        except FileNotFoundError:
            raise ModelUnavailable(self.explain_missing(folder, name)) from None

    def add_routes(self, routes: web.RouteTableDef) -> None:
        """Add `/depot/...`."""
        from comfy_depot.routes import add_routes

        add_routes(routes, self)
        self.host.on_routes(self)

    # What the command line and the routes call.

    def fetch(
        self, folder: str, name: str, *, on_progress: Callable[[Transfer], None] | None = None,
        check: Callable[[], None] | None = None, replace_own: bool = False,
    ) -> str:
        """The path of a model, fetched when it is missing or outdated (with `replace_own` also when it is a
        file of the user's); ModelUnavailable when no manifest names it.
        """
        if replace_own:
            self.outdated.adopt(self.entry(folder, name))
        path = self.current_path(folder, name)
        if path is not None:
            return path
        entry = self.entry(folder, name)
        path = self._wait_for(self._transfer(entry), entry, on_progress=on_progress, check=check)
        self._note(folder, name, path, None, "fetched")
        return path

    def start_fetch(self, folder: str, name: str) -> Transfer:
        """Start a download, or join the one under way, and return at once. A thread waits for its end."""
        entry = self.entry(folder, name)
        transfer = self._transfer(entry)

        def wait() -> None:
            try:
                path = self._wait_for(transfer, entry, on_progress=None, check=None)
            except DepotError as error:
                log.warning("%s was not fetched: %s", entry.key, error)
            else:
                self._note(folder, name, path, None, "fetched")

        threading.Thread(target=wait, name=f"depot-fetch-{entry.name}", daemon=True).start()
        return transfer

    def plan_eviction(self, limits: Limits) -> Plan:
        """What to evict so that the limits hold; `execute()` of the plan deletes.

        A name that is not on the disk raises ModelUnavailable.
        """
        limits = replace(limits, names=None if limits.names is None else
                         {(folder_paths.map_legacy(folder), name.replace(os.sep, "/"))
                          for folder, name in limits.names})
        models = survey.local_models(self)
        there = {key for model in models for key in (model.key, *model.aliases)}
        for folder, name in sorted(set(limits.names or ()) - there):
            if self.catalogue.find(folder, name) is None:
                raise ModelUnavailable(self.explain_missing(folder, name))
            raise ModelUnavailable(f"'{folder}/{name}' is not on this disk, so there is nothing to evict.")
        return budget.plan_by_hand(self, limits, models)

    def pin(self, folder: str, name: str, *, is_dry_run: bool = False) -> Key:
        """Keep a model on the disk, now or once it is there; ModelUnavailable when nobody knows the name."""
        if self.local_path(folder, name) is None:
            self.entry(folder, name)
        key = (folder_paths.map_legacy(folder), name.replace(os.sep, "/"))
        if not is_dry_run:
            self.pins.change(add=[key])
        return key

    def unpin(self, folder: str, name: str, *, is_dry_run: bool = False) -> Key:
        """Let a model go again when room is needed; ModelUnavailable when it is not pinned."""
        key = (folder_paths.map_legacy(folder), name.replace(os.sep, "/"))
        if key not in self.pins.all():
            raise ModelUnavailable(f"'{key[0]}/{key[1]}' is not pinned. What is: python -m comfy_depot pin")
        if not is_dry_run:
            self.pins.change(remove=[key])
        return key

    def entry(self, folder: str, name: str) -> Entry:
        """The manifest's entry of a model; ModelUnavailable says what there is instead."""
        entry = self.catalogue.find(folder, name)
        if entry is None:
            raise ModelUnavailable(self.explain_missing(folder, name))
        return entry

    def local_path(self, folder: str, name: str) -> str | None:
        """Where a model stands on the disk, or None. Neither fetches nor logs."""
        unhooked = getattr(folder_paths.get_full_path, "__wrapped__", folder_paths.get_full_path)
        path: str | None = unhooked(folder, name)
        return path

    def current_path(self, folder: str, name: str) -> str | None:
        """The same, but None also for a file that is to be replaced."""
        entry = self.catalogue.find(folder, name)
        is_outdated = entry is not None and self.outdated.stamp_of(entry) is not None
        return None if is_outdated else self.local_path(folder, name)

    def usable_path(self, folder: str, name: str) -> str | None:
        """The same, but the old file where the new one could not be had a moment ago."""
        entry = self.catalogue.find(folder, name)
        is_wanted = entry is not None and self.outdated.is_wanted(entry)
        return None if is_wanted else self.local_path(folder, name)

    def problems(self) -> list[Problem]:
        """Mistakes in the manifests, and files that are not what these say."""
        return [*self.catalogue.snapshot().problems, *self.outdated.problems()]

    def base_model_of(self, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, Any]) -> str | None:
        """The family of a file's tensors, for a message."""
        return model_headers.family_of(metadata, shapes)

    def explain_missing(self, folder: str, name: str) -> str:
        """Why there is no path for a name, and what to do."""
        folder = folder_paths.map_legacy(folder)
        if folder not in places.table():
            return places.unknown_type(folder)
        entry = self.catalogue.find(folder, name)
        if entry is not None:
            return (f"'{entry.key}' is named by a manifest but not on this disk, and only a running node has "
                    f"it fetched by asking. To fetch it now: python -m comfy_depot fetch {quote(entry.key)}")
        problems = self.catalogue.snapshot().problems
        for problem in problems:
            if f"'{name}' in '{folder}'" in problem.message:
                return f"'{name}' is not on this disk, and what a manifest says of it is refused. {problem}"
        names = folder_paths.get_filename_list(folder)
        near = difflib.get_close_matches(name, names[:5000], n=3)
        advice = f"Near: {', '.join(near)}. " if near else ""
        return (f"'{name}' is in no manifest and not in models/{folder}. {advice}"
                f"{_perhaps_hidden(problems)}"
                "Add it to a manifest, or see what there is: python -m comfy_depot list")

    def _fetch_for_node(self, entry: Entry) -> str:
        def report(transfer: Transfer) -> None:
            if transfer.bytes_total:
                self.host.report(transfer.bytes_done, transfer.bytes_total)

        log.info("%s is not on the disk, or outdated there, and is fetched now.", entry.key)

        def wait() -> str:
            transfer = self._transfer(entry)
            with self.streams.wanted(transfer.destination):
                return self._wait_for(
                    transfer, entry, on_progress=report, check=self.host.raise_if_interrupted
                )

        while True:
            try:
                return wait()
            except DiskFull as error:
                if not self._make_way(error):
                    raise
            self.host.raise_if_interrupted()

    def _make_way(self, full: DiskFull) -> bool:
        """Give up what stands in the way of a model that somebody waits for; False when there is nothing."""
        if full.fits_never:
            return False
        return (self.preload.make_way() or self._free_idle_model()
                or self.host.let_models_go() and self._free_idle_model())

    def _free_idle_model(self) -> bool:
        return self.residents.free_idle("the disk was full", most=1)

    def begin_transfer(self, entry: Entry, priority: Priority) -> Transfer:
        """Start a download for later, or join the one under way; `leave` of it gives it up."""
        return self._transfer(entry, priority)

    def note_arrival(self, entry: Entry, outcome: str, prompt: QueuedPrompt | None = None) -> None:
        """Write down that a model has come which nobody has used yet."""
        if (path := self.local_path(entry.folder, entry.name)) is not None:
            asked_by = None if prompt is None else Executing(prompt.prompt_id, "", prompt.tenant)
            self._note(entry.folder, entry.name, path, asked_by, outcome)

    def _transfer(self, entry: Entry, priority: Priority | None = None) -> Transfer:
        directory = places.directory_for(entry.folder)
        if directory is None:
            raise ModelUnavailable(f"Folder type '{entry.folder}' has no folder to put '{entry.name}' into. "
                                   "Add one to extra_model_paths.yaml.")
        destination = layout.destination(Path(directory), entry.name)
        replaces = self.outdated.stamp_of(entry)
        if priority is None:
            return self.transfers.fetch(entry, destination, replaces=replaces)
        return self.transfers.fetch(entry, destination, replaces=replaces, priority=priority)

    def _wait_for(
        self, transfer: Transfer, entry: Entry, *, on_progress: Callable[[Transfer], None] | None,
        check: Callable[[], None] | None,
    ) -> str:
        path = transfer.wait(on_progress=on_progress, check=check)
        return self.local_path(entry.folder, entry.name) or str(path)

    def _is_bundle_needed(self, entry: Entry) -> bool:
        """Whether manifests name members of the same archive that are not on the disk."""
        return any(other.bundle is not None and other.urls == entry.urls
                   and self.local_path(other.folder, other.name) is None
                   for other in self.catalogue)

    def _note(self, folder: str, name: str, path: str, node: Executing | None, outcome: str) -> None:
        try:
            size = os.stat(path).st_size
        except OSError:  # gone again between the answer and this line
            size = 0
        plain = name.replace(os.sep, "/")
        prompt, node_id, tenant = (node.prompt_id, node.node_id, node.tenant) if node else (None, None, None)
        self.access.note(Access(
            time.time(), folder_paths.map_legacy(folder), plain, prompt, node_id, tenant, size, outcome
        ))


def _perhaps_hidden(problems: Sequence[Problem]) -> str:
    """What to say of a manifest that could not be read as a whole: it may name what is not known."""
    of_files = [problem for problem in problems if "' in '" not in problem.message]
    return f"A manifest that cannot be read may name it: {of_files[0]} " if of_files else ""


def _is_hidden(path: str) -> bool:
    return layout.HIDDEN in path and layout.HIDDEN in path.split(os.sep)


def start(options: Options | None = None, host: Host | None = None) -> Depot | None:
    """Start the depot and arm the hooks; a depot that was started before is stopped first."""
    stop()
    if options is None:
        options = from_args(args, base_directory=Path(folder_paths.base_path))
    if options.depot_off:
        log.info("The depot is off: no manifest is read and no model is fetched.")
        return None
    depot = Depot(options, host or Host())
    folder_paths.filename_list_cache.clear()
    hooks.arm(depot)
    depot.catalogue.report(depot.lists.check())
    if host is not None:  # the command line fetches lists only when told to
        depot.lists.start()
    depot.look_after_the_disk(is_serving=host is not None)
    depot.read_manifests_soon()
    return depot


def stop() -> None:
    """Disarm the hooks and close the started depot, if there is one."""
    started: Any = hooks.armed()
    hooks.disarm()
    if started is not None:
        started.close()
    folder_paths.filename_list_cache.clear()  # its lists hold the other state's names

"""Models that workflows name, taken up by policy (`--workflow-models`), below every manifest and every file.

    <state folder>/workflow/
    ├── allowed.json     named by a workflow at a host of --workflow-hosts; no token of this server is sent
    ├── accepted.json    accepted by the server's owner; like a manifest of their own
    └── pending.json     waits for the owner; in no list

All three have the form of a manifest and pass its gates when they are read. They outlive the server,
because a prompt in the queue does, and because a file that nothing names any more is never evicted.
"""

from __future__ import annotations

import json
import logging
import shlex
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import folder_paths
from comfy_depot import places, sources, workflow_models
from comfy_depot.catalog import Catalogue
from comfy_depot.errors import ModelUnavailable, SourceRefused
from comfy_depot.locks import file_lock
from comfy_depot.manifest import Entry, read_manifest
from comfy_depot.options import Options
from comfy_depot.replacing import replace_file
from comfy_depot.schemes import plain_url

log = logging.getLogger(__name__)

FOLDER = "workflow"
STATES = ("accepted", "allowed", "pending")
MOST_OF_A_WORKFLOW = 200
MOST_KEPT = 2000
"""Models in each of the three files: whoever may post prompts must not fill the lists without end."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Offer:
    """What became of a model that a workflow names: one of STATES, "known", or "refused" (see `message`)."""

    folder: str
    name: str
    state: str
    message: str | None = None
    url: str | None = None
    """Without its query."""


def files_of(options: Options) -> dict[Path, bool]:
    """The manifests that the catalogue reads beside its own, and whether their models get no token."""
    if options.workflow_models == "off":
        return {}
    folder = options.depot_dir / FOLDER
    return {folder / "accepted.json": False, folder / "allowed.json": True}


class Offers:
    """The offers of one depot. Every method may be called from any thread."""

    def __init__(
        self, options: Options, catalogue: Catalogue, *, local_path: Callable[[str, str], str | None]
    ) -> None:
        self.options = options
        self.directory = options.depot_dir / FOLDER
        self._catalogue = catalogue
        self._local_path = local_path
        self._lock = threading.Lock()

    def on_prompt(self, body: Any) -> Any:
        """Take up what the workflow of a POST /prompt names and its prompt uses; the body as it is."""
        try:
            workflow, prompt = body["extra_data"]["extra_pnginfo"]["workflow"], body["prompt"]
        except (KeyError, TypeError, IndexError):
            return body
        if self.options.workflow_models != "off" and isinstance(prompt, dict):
            for offer in self.offer(workflow, only=_texts_of(prompt)):
                if offer.state == "pending":
                    log.warning("A workflow names a model at %s, which waits. To take it up: python -m "
                                "comfy_depot offers --accept %s", offer.url,
                                shlex.quote(f"{offer.folder}/{offer.name}"))
        return body

    def offer(self, workflow: Any, *, only: Collection[str] | None = None) -> list[Offer]:
        """Take up the models of a workflow (those with names in `only`) as the policy says."""
        offers: dict[Key, Offer] = {}
        new: dict[str, list[Entry]] = {"allowed": [], "pending": []}
        for model in workflow_models.models_in(workflow):
            key = (str(model.get("directory")), str(model.get("name")))
            if key in offers or (only is not None and key[1] not in only):
                continue
            if len(offers) == MOST_OF_A_WORKFLOW:
                log.warning("Of a workflow, %d models are looked at and no more.", MOST_OF_A_WORKFLOW)
                break
            offers[key], entry = self._judge(*key, model)
            if entry is not None:
                new[offers[key].state].append(entry)
        for state, entries in new.items():
            self._add(state, entries)
        if new["allowed"]:
            self._catalogue.read_guest(self.directory / "allowed.json")
        return list(offers.values())

    def listed(self) -> list[Offer]:
        """Every offer that was taken up or waits."""
        return [Offer(entry.folder, entry.name, state, url=sources.shown(entry.urls[0]))
                for state in STATES for entry in self._read(state)]

    def accept(self, folder: str, name: str) -> None:
        """Let a model count like one of the owner's manifests; ModelUnavailable when no workflow named it."""
        entry = self._find(folder, name)
        self._add("accepted", [entry])
        self._drop({"allowed", "pending"}, (entry.folder, name))
        self._catalogue.refresh()

    def forget(self, folder: str, name: str) -> None:
        """Take a model out of all three files; a file on the disk stays."""
        entry = self._find(folder, name)
        self._drop(set(STATES), (entry.folder, name))
        self._catalogue.refresh()

    # -- one model

    def _judge(self, folder: str, name: str, model: dict[str, Any]) -> tuple[Offer, Entry | None]:
        """What becomes of a model, and its entry when that is new."""
        folder = folder_paths.map_legacy(folder)
        try:
            if self.options.workflow_models == "off":
                raise ValueError("this server takes up no models of workflows (--workflow-models off)")
            entry = workflow_models.entry_of({**model, "directory": folder})
            reason = places.why_refused(entry, allow_pickle=self.options.allow_pickle)
            if reason is not None:
                raise ValueError(reason)
            is_allowed = self._is_allowed(entry.urls[0])
        except ValueError as error:
            return Offer(folder, name, "refused", f"{error}."), None
        if self._catalogue.find(folder, name) is not None or self._local_path(folder, name) is not None:
            return Offer(folder, name, "known"), None
        state = "allowed" if is_allowed else "pending"
        return Offer(folder, name, state, url=sources.shown(entry.urls[0])), entry

    def _is_allowed(self, url: str) -> bool:
        """Whether a url leads, over https and the usual port, to a host whose models are taken up unasked."""
        try:
            parts = urlsplit(plain_url(url))
            is_usual = parts.scheme == "https" and parts.port in (None, 443)
        except SourceRefused:
            return False
        is_listed = (parts.hostname or "") in self.options.workflow_hosts
        return self.options.workflow_models == "allow-hosts" and is_usual and is_listed

    # -- the files

    def _read(self, state: str) -> list[Entry]:
        file = self.directory / f"{state}.json"
        return list(read_manifest(file).entries) if file.exists() else []

    def _find(self, folder: str, name: str) -> Entry:
        folder = folder_paths.map_legacy(folder)
        for state in ("pending", "allowed", "accepted"):
            for entry in self._read(state):
                if (entry.folder, entry.name) == (folder, name):
                    return entry
        raise ModelUnavailable(f"No workflow has named '{folder}/{name}'. "
                               "GET /depot/offers and python -m comfy_depot offers list those that wait.")

    def _add(self, state: str, entries: list[Entry]) -> None:
        """Write entries into a file; what it names already stays as it is."""
        if entries:
            self._change(state, lambda known: {**{(one.folder, one.name): one for one in entries}, **known})

    def _drop(self, states: set[str], key: Key) -> None:
        for state in sorted(states):
            if any((entry.folder, entry.name) == key for entry in self._read(state)):
                self._change(state, lambda known: {one: entry for one, entry in known.items() if one != key})

    def _change(self, state: str, change: Callable[[dict[Key, Entry]], dict[Key, Entry]]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / f"{state}.json"
        with self._lock, file_lock(file.with_suffix(".lock"), on_wait=lambda: None, pause=0.005):
            known = {(entry.folder, entry.name): entry for entry in self._read(state)}
            changed = change(known)
            if len(changed) > max(MOST_KEPT, len(known)):
                log.warning("%s holds %d models, which is the most; more are passed over. To make room: "
                            "python -m comfy_depot offers --forget FOLDER/NAME", file, len(known))
                return
            content: dict[str, dict[str, Any]] = {}
            for (folder, name), entry in sorted(changed.items()):
                value = {"url": entry.urls[0], **({"sha256": entry.sha256} if entry.sha256 else {})}
                content.setdefault(folder, {})[name] = value
            replace_file(file, json.dumps(content, indent=1) + "\n")


def _texts_of(prompt: dict[str, Any]) -> set[str]:
    """Every text that is an input of a node, with "/" between folders: the names of models are among them."""
    nodes = [node for node in prompt.values() if isinstance(node, dict)]
    inputs = [node["inputs"] for node in nodes if isinstance(node.get("inputs"), dict)]
    values = [value for one in inputs for value in one.values()]
    return {value.replace("\\", "/") for value in values if isinstance(value, str)}

"""How workflows load models: which loader node, and with which settings.

A text encoder is loaded as one of many types, a diffusion model in one of several dtypes, and each is a
model of its own in memory. Whoever loads a model ahead of a workflow must ask for the one that the workflow
will ask for, so the way that a workflow has loaded it is remembered, in `loaders.json` of the state folder.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
import nodes
from app.queued_models import all_sources
from comfy_depot.replacing import replace_file
from comfy_execution import schema_nodes

log = logging.getLogger(__name__)

FILE_NAME = "loaders.json"
MOST_KEPT = 2000
LONGEST_TEXT = 1000
"""Whoever may post prompts must not fill the file without end; the newest stay."""

Key = tuple[str, str]
Literal = str | int | float | bool


@dataclass(frozen=True)
class Loader:
    """A node class that loads models from files, and keeps what it read in memory."""

    class_type: str
    files: Mapping[str, str]
    """{input: folder type of the file that it names}"""
    settings: Mapping[str, Literal] | None = None
    """What its other inputs are where no workflow has said; None where that cannot be known."""


LOADERS = {loader.class_type: loader for loader in (
    Loader("CheckpointLoaderSimple", {"ckpt_name": "checkpoints"}, {}),
    Loader("unCLIPCheckpointLoader", {"ckpt_name": "checkpoints"}),
    Loader("UNETLoader", {"unet_name": "diffusion_models"}, {"weight_dtype": "default"}),
    Loader("VAELoader", {"vae_name": "vae"}, {}),
    Loader("CLIPLoader", {"clip_name": "text_encoders"}),
    Loader("DualCLIPLoader", {"clip_name1": "text_encoders", "clip_name2": "text_encoders"}),
    Loader("ControlNetLoader", {"control_net_name": "controlnet"}, {}),
    Loader("CLIPVisionLoader", {"clip_name": "clip_vision"}, {}),
    Loader("UpscaleModelLoader", {"model_name": "upscale_models"}, {}),
    Loader("StyleModelLoader", {"style_model_name": "style_models"}, {}),
)}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """One way to load a model: the class of the node, and all its inputs."""

    class_type: str
    inputs: Mapping[str, Literal]

    @property
    def files(self) -> list[Key]:
        """(folder type, name) of each file that it opens."""
        named = LOADERS[self.class_type].files
        return [(folder, str(self.inputs[name]).replace("\\", "/")) for name, folder in named.items()]


def default_recipe(folder: str, name: str) -> Recipe | None:
    """How a model is loaded that no workflow has loaded yet; None where that cannot be known."""
    for loader in LOADERS.values():
        if loader.settings is not None and folder in loader.files.values():
            (file,) = loader.files
            return Recipe(loader.class_type, {file: name, **loader.settings})
    return None


def recipes_in(graph: Mapping[str, Any], outputs: Sequence[str]) -> Iterator[Recipe]:
    """How the nodes behind these outputs load models. One that is linked to gets its settings elsewhere, and
    is passed over.
    """
    if not any(node.get("class_type") in LOADERS for node in graph.values()):
        return
    for node_id in all_sources(graph, outputs):
        class_type, given = graph[node_id]["class_type"], graph[node_id]["inputs"]
        if class_type not in LOADERS:
            continue
        spec = schema_nodes.parameters(nodes.NODE_CLASS_MAPPINGS[class_type])
        inputs = {name: given[name] for name in (*spec.args, *spec.kwonlyargs) if name in given}
        if LOADERS[class_type].files.keys() <= inputs.keys() and all(map(_is_literal, inputs.values())):
            yield Recipe(class_type, inputs)


def _is_literal(value: Any) -> bool:
    is_text = isinstance(value, str) and len(value) <= LONGEST_TEXT
    return is_text or isinstance(value, (int, float, bool))


class Recipes:
    """The recipes that are remembered, the last one of each model. Every method may be called from any
    thread; of several processes that share the folder, the last one that writes wins.
    """

    def __init__(self, state_directory: Path) -> None:
        self.file = state_directory / FILE_NAME
        self._lock = threading.Lock()
        self._known: dict[Key, Recipe] | None = None

    def find(self, folder: str, name: str) -> Recipe | None:
        """How a workflow has loaded this model last."""
        with self._lock:
            return self._read().get(_key(folder, name))

    def learn(self, graph: Mapping[str, Any], outputs: Sequence[str]) -> None:
        """Remember how a prompt that has run has loaded its models."""
        with self._lock:
            is_new = False
            for recipe in recipes_in(graph, outputs):
                for folder, name in recipe.files:
                    is_new = self._put(_key(folder, name), recipe) or is_new
            if is_new:
                self._write()

    def _put(self, key: Key, recipe: Recipe) -> bool:
        """The newest stands last; whether anything is to be written."""
        known = self._read()
        before = known.pop(key, None)
        known[key] = recipe
        while len(known) > MOST_KEPT:
            del known[next(iter(known))]
        return recipe != before

    def _read(self) -> dict[Key, Recipe]:
        if self._known is None:
            try:
                self._known = dict(map(_entry_of, json.loads(self.file.read_text(encoding="utf-8"))))
            except FileNotFoundError:
                self._known = {}
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                log.warning("%s, which tells how workflows load models, cannot be read (%s). It is begun "
                            "anew with the next workflow; until then, usual settings count.",
                            self.file, error)
                self._known = {}
        return self._known

    def _write(self) -> None:
        content = [
            {"folder": folder, "name": name, "class_type": recipe.class_type, "inputs": dict(recipe.inputs)}
            for (folder, name), recipe in self._read().items()
        ]
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.file, json.dumps(content, indent=1) + "\n")
        except OSError as error:
            log.warning("How this workflow loads its models is forgotten when the server ends: %s cannot be "
                        "written: %s", self.file, error)


def _key(folder: str, name: str) -> Key:
    return folder_paths.map_legacy(folder), name.replace("\\", "/")


def _entry_of(item: Mapping[str, Any]) -> tuple[Key, Recipe]:
    """An item of the file; ValueError, TypeError, KeyError or AttributeError for anything else."""
    recipe = Recipe(item["class_type"], item["inputs"])
    key = (item["folder"], item["name"])
    if key not in recipe.files or not all(map(_is_literal, recipe.inputs.values())):
        raise ValueError(f"'{key[0]}/{key[1]}' has inputs that its loader does not have")
    return key, recipe

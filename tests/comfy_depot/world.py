"""A small installation in a temporary folder, with a depot that a test starts and stops."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy_depot
import folder_paths
from comfy.cli_args import args as program_arguments
from comfy_depot.depot import Depot
from comfy_depot.host import Chosen, Executing, Host, QueuedPrompt
from comfy_depot.options import Options


@dataclass
class World:
    """Folders, a manifest folder, and a host whose current node and interruption the test sets."""

    base: Path
    node: Executing | None = None
    interruption: BaseException | None = None
    reports: list[tuple[int, int]] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    models_in_use: set[tuple[str, str]] = field(default_factory=set)
    prompts: list[QueuedPrompt] = field(default_factory=list)
    load_model: Callable[[str, str], bool] = lambda folder, name: False
    bytes_of_device: int = 1 << 40

    @property
    def manifests(self) -> Path:
        return self.base / "model_manifests"

    def model(self, folder: str, name: str) -> Path:
        return self.base / "models" / folder / name

    def write_manifest(self, content: Any, name: str = "models.json") -> Path:
        """Write a manifest (text as it is, anything else as JSON). Threads that read it see no half of it."""
        beside = self.manifests / f"{name}.beside"
        text = content if isinstance(content, str) else json.dumps(content, indent=1)
        beside.write_text(text, encoding="utf-8")
        return beside.replace(self.manifests / name)

    def write_model(self, folder: str, name: str, body: bytes = b"local") -> Path:
        file = self.model(folder, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        return file

    def run_node(self, node: str = "4", prompt: str = "p1", tenant: str | None = None) -> None:
        """From now on a node is running."""
        self.node = Executing(prompt, node, tenant)

    def host(self) -> Host:
        return Host(
            current_node=lambda: self.node,
            report=lambda done, total: self.reports.append((done, total)),
            raise_if_interrupted=self._raise_if_interrupted,
            send=lambda event, data: self.events.append((event, data)),
            models_in_use=lambda: self.models_in_use,
            queued_prompts=lambda most: list(self.prompts[:most]),
            chosen=_chosen,
            load_model=lambda folder, name: self.load_model(folder, name),
            bytes_of_device=lambda: self.bytes_of_device,
            patched_weights=lambda: {"computed": 3, "put_back": 2, "bytes_kept": 1},
        )

    def _raise_if_interrupted(self) -> None:
        if self.interruption is not None:
            raise self.interruption

    @contextmanager
    def depot(self, **options: Any) -> Iterator[Depot]:
        """A started depot that may reach the loopback origin."""
        settings: dict[str, Any] = {
            "model_manifests": self.manifests,
            "depot_dir": self.base / "depot",
            "depot_reserve": 0,
            "depot_allow_hosts": ("127.0.0.1", "localhost"),
        }
        depot = comfy_depot.start(Options(**{**settings, **options}), self.host())
        assert depot is not None
        try:
            yield depot
        finally:
            comfy_depot.stop()


def queued(prompt: str, *models: str) -> QueuedPrompt:
    """A prompt that names models, in this order."""
    graph = {str(number): {"class_type": "Load", "inputs": {"model": name}}
             for number, name in enumerate(models)}
    return QueuedPrompt(prompt, graph, ("0",))


def _chosen(prompt: QueuedPrompt) -> list[Chosen]:
    """Each input of a node is a choice from nothing in particular."""
    return [Chosen(value, ()) for node in prompt.graph.values() for value in node["inputs"].values()]


@contextmanager
def world(base: Path, *, is_new: bool = True) -> Iterator[World]:
    """Folders below `base`; the program's own folders are set again afterwards."""
    made = World(base)
    made.manifests.mkdir(parents=True, exist_ok=not is_new)
    for folder in ("checkpoints", "loras"):
        (base / "models" / folder).mkdir(parents=True, exist_ok=not is_new)
    folder_paths.apply_arguments(Namespace(base_directory=str(base)))
    try:
        yield made
    finally:
        comfy_depot.stop()
        folder_paths.apply_arguments(program_arguments)



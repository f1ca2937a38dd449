"""A depot with a real loader behind its hook, which counts reads: what tests of pins in memory need.

Its models are called by their names without the extension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from comfy.model_patcher import ModelPatcher
from comfy_depot import hooks
from comfy_depot.depot import Depot
from comfy_depot.options import Budget
from tests.comfy_depot.world import World
from tests.fakes.waiting import wait_until


class Pinned:
    """A model's file of so many bytes becomes a torch module with as many bytes of weights."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reads: list[str] = []
        self.refusals: dict[str, Exception] = {}
        self.depot: Depot = None  # type: ignore[assignment]
        self.before_load: Callable[[str], None] = lambda name: None
        self.load = hooks.keeps_resident("path")(self._load)
        world.load_model = self.load_as_a_workflow

    def _load(self, path: str) -> tuple[ModelPatcher]:
        self.reads.append(Path(path).stem)
        content = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
        module = torch.nn.Module()
        module.register_buffer("weights", content)
        return (ModelPatcher(module, torch.device("cpu"), torch.device("cpu")),)

    def load_as_a_workflow(self, folder: str, name: str) -> bool:
        """The host's `load_model`."""
        self.before_load(name)
        if Path(name).stem in self.refusals:
            raise self.refusals[Path(name).stem]
        self.load(hooks.armed().local_path(folder, name))
        return True

    def write(self, *names: str, size: int = 1000, folder: str = "checkpoints") -> None:
        """Models of so many bytes, each with a content of its own."""
        for name in names:
            self.world.write_model(folder, f"{name}.safetensors", name.encode().ljust(size, b"."))

    def path(self, name: str, folder: str = "checkpoints") -> str:
        return str(self.world.model(folder, f"{name}.safetensors"))

    @contextmanager
    def start(self, **options: Any) -> Iterator[Depot]:
        with self.world.depot(**{"resident_budget": Budget(size=0), **options}) as self.depot:
            yield self.depot

    def states(self) -> dict[str, str]:
        return {Path(one.name).stem: one.state for one in self.depot.warm_memory.pinned()}

    def wait_for(self, **states: str) -> None:
        """Until these models are that far."""
        wait_until(lambda: states.items() <= self.states().items())

    def in_memory(self) -> set[str]:
        return {Path(name).stem for one in self.depot.residents.models() for name in one["names"]}

    def resident(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.depot.residents.models()
                    if name in [Path(known).stem for known in one["names"]]]
        return found

    def pin(self, name: str, folder: str = "checkpoints") -> None:
        pinning = self.depot.pinning
        pinning.carry_out(lambda: pinning.plan_pin(folder, name, "me"), is_dry_run=False)

    def unpin(self, name: str, folder: str = "checkpoints") -> None:
        pinning = self.depot.pinning
        pinning.carry_out(lambda: pinning.plan_unpin(folder, name), is_dry_run=False)

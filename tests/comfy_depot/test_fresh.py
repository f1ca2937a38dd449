"""Who wants a model for himself gets one that nobody shares, and clones refer to no one but themselves."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from comfy_depot import fresh, hooks
from comfy_depot.resident import Part
from tests.comfy_depot.world import World


class Module:
    """The weights."""


class Patcher:
    """Upstream's patcher of 2026: it knows its loader, and clones know it too."""

    def __init__(self, module: Module, init: Any = None) -> None:
        self.model, self.cached_patcher_init = module, init

    def clone(self) -> Patcher:
        return Patcher(self.model, self.cached_patcher_init)

    def model_size(self) -> int:
        return 1


class Rig:
    """A loader behind the hook that gives patchers which load by it again."""

    def __init__(self) -> None:
        self.load = hooks.keeps_resident("path")(self._load)

    def _load(self, path: str, own: bool = True) -> Patcher:
        return Patcher(Module(), (self.load, (path,), 0) if own else None)


@pytest.fixture
def rig(depot_world: World) -> Iterator[tuple[Rig, str]]:
    path = str(depot_world.write_model("checkpoints", "a.safetensors"))
    with depot_world.depot():
        yield Rig(), path


def test_a_patcher_that_loads_its_model_again_gets_weights_of_its_own(rig: tuple[Rig, str]) -> None:
    loaders, path = rig
    first = loaders.load(path)
    assert loaders.load(path).model is first.model, "else it is shared"
    for patcher in (first, first.clone(), loaders.load(path)):
        reload, arguments, index = patcher.cached_patcher_init
        copies = [reload(*arguments) for _ in range(2)]
        assert copies[0].model is not copies[1].model and index == 0
        assert all(copy.model is not first.model for copy in copies)
    assert loaders.load(path).model is first.model, "afterwards it is shared as before"


def test_a_patcher_without_a_loader_stays_as_it_is(rig: tuple[Rig, str]) -> None:
    loaders, path = rig
    assert loaders.load(path, own=False).cached_patcher_init is None
    fresh.reload_alone(None)


def test_a_loader_that_fails_leaves_no_wish_behind() -> None:
    def fail() -> None:
        assert fresh.is_wanted()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fresh.Loader(fail)()
    assert not fresh.is_wanted()


class Wrapper:
    """A VAE, some of whose attributes are functions that are made for this very object."""

    def __init__(self) -> None:
        self.first_stage_model = Module()
        self.patcher = Patcher(self.first_stage_model)
        self.name = "first"
        factor = 2
        self.memory_used: Callable[..., Any] = lambda shape, more=1: (self.name, shape * factor + more)
        self.ratio = lambda size: size * factor
        self.told = self.tell

    def tell(self) -> str:
        return self.name


def test_functions_that_are_made_for_the_object_are_made_for_each_clone() -> None:
    whole = Wrapper()
    part, base = Part(whole), whole.patcher
    clone = part.clone()
    clone.name = "clone"
    assert clone.memory_used(3) == ("clone", 7) and clone.memory_used(3, more=0) == ("clone", 6)
    assert clone.told() == "clone" and clone.ratio(4) == 8 and whole.memory_used(3) == ("first", 7)
    assert clone.first_stage_model is base.model


def test_the_weights_are_let_go_although_such_functions_are_kept() -> None:
    whole = Wrapper()
    part, weights = Part(whole), weakref.ref(whole.first_stage_model)
    del whole
    gc.collect()
    assert weights() is None and not part.is_there

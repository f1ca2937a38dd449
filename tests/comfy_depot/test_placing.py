"""What comes to a device and leaves it is noted with its reason; pinned models stay there.

This file stands for upstream's module of memory: a device of CAPACITY bytes, the list of loaded models, and
functions with upstream's names and parameters, under the hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from comfy_depot import hooks
from comfy_depot.depot import Depot
from comfy_depot.options import Budget
from comfy_depot.placing import WHAT_TO_DO, is_out_of_memory
from tests.comfy_depot.world import World

CAPACITY = 100
current_loaded_models: list[Loaded] = []


class Module:
    """Stands for a torch module."""


class Patcher:
    """What every ModelPatcher has. The device is called "gpu", and weights rest on the "cpu"."""

    load_device, offload_device = "gpu", "cpu"

    def __init__(self, module: Module, size: int, parent: Patcher | None = None) -> None:
        self.model, self.size, self.parent = module, size, parent
        if parent is None:
            self.model.loaded = 0  # type: ignore[attr-defined]

    def clone(self) -> Patcher:
        return Patcher(self.model, self.size, self)

    def model_size(self) -> int:
        return self.size

    def loaded_size(self) -> int:
        return int(self.model.loaded)  # type: ignore[attr-defined]

    def current_loaded_device(self) -> str:
        return "gpu" if self.loaded_size() else "cpu"

    def bring(self, size: int) -> None:
        self.model.loaded = size  # type: ignore[attr-defined]


class Loaded:
    """Upstream's LoadedModel, as far as it matters here."""

    def __init__(self, model: Patcher) -> None:
        self.model = model

    @hooks.keeps_pinned
    def model_unload(self, memory_to_free: int | None = None, unpatch_weights: bool = True) -> bool:
        self.model.bring(0)
        return True


def room() -> int:
    return CAPACITY - sum(loaded.model.loaded_size() for loaded in current_loaded_models)


@hooks.makes_room
def free_memory(
    memory_required: float, device: str, keep_loaded: Any = (), for_dynamic: bool = False
) -> list[Loaded]:
    going = [loaded for loaded in reversed(current_loaded_models) if loaded not in keep_loaded]
    gone = []
    for loaded in going:
        if room() < memory_required and loaded.model_unload():
            current_loaded_models.remove(loaded)
            gone.append(loaded)
    return gone


@hooks.places_models
def load_models_gpu(models: list[Patcher], memory_required: int = 0) -> None:
    here = [loaded for loaded in current_loaded_models if loaded.model in models]
    free_memory(sum(model.size - model.loaded_size() for model in models), "gpu", keep_loaded=here)
    for model in models:
        if model.size - model.loaded_size() > room():
            raise MemoryError(f"{model.size} bytes do not fit")
        model.bring(model.size)
        current_loaded_models.insert(0, Loaded(model))


@pytest.fixture
def depot(depot_world: World) -> Iterator[Depot]:
    with depot_world.depot(pin=("checkpoints/p*",), resident_budget=Budget(size=1 << 20)) as made:
        yield made
    current_loaded_models.clear()


def load(world: World, name: str, size: int = 40) -> Patcher:
    @hooks.keeps_resident("path")
    def read(path: str) -> Patcher:
        return Patcher(Module(), size)

    read.__qualname__ = "read"
    loaded = read(str(world.write_model("checkpoints", f"{name}.safetensors", name.encode())))
    assert isinstance(loaded, Patcher)
    return loaded


def resident(depot: Depot, name: str) -> dict[str, Any]:
    names = [f"checkpoints/{name}.safetensors"]
    return next(one for one in depot.residents.models() if one["names"] == names)


def moves(depot: Depot, name: str) -> list[tuple[str, str, int, str]]:
    return [(move["from"], move["to"], move["bytes"], move["why"]) for move in resident(depot, name)["moves"]]


def test_who_comes_and_who_goes_is_noted_with_the_node_it_was_for(depot_world: World, depot: Depot) -> None:
    depot_world.run_node(node="3", prompt="p1")
    first, second = load(depot_world, "a", 60), load(depot_world, "b", 70)
    load_models_gpu([first])
    assert moves(depot, "a") == [("cpu", "gpu", 60, "needed in node 3 of prompt p1")]
    load_models_gpu([first])
    assert len(moves(depot, "a")) == 1, "nothing has moved"
    depot_world.run_node(node="4", prompt="p2")
    load_models_gpu([second])
    why = "0.1 kB were needed for checkpoints/b.safetensors in node 4 of prompt p2"
    assert moves(depot, "a")[0] == ("gpu", "cpu", 60, why)
    assert resident(depot, "a")["why"].endswith(f"; moved to host memory: {why}")
    depot_world.node = None
    free_memory(1e30, "gpu")
    assert moves(depot, "b")[0] == ("gpu", "cpu", 70, "all models were to leave their devices")
    load_models_gpu([first])
    assert moves(depot, "a")[0][3] == "asked for outside of a node"
    free_memory(90, "gpu")
    assert moves(depot, "a")[0][3] == "0.1 kB were needed on gpu"
    assert depot.residents.memory_stats()["moves"] == 6
    assert depot.residents.memory_stats()["bytes_moved"] == 4 * 60 + 2 * 70


def test_warm_up_is_named_as_what_a_model_was_brought_for(depot_world: World, depot: Depot) -> None:
    model = load(depot_world, "a")
    with depot.residents.placing.purpose("for warm-up"):
        load_models_gpu([model])
    assert moves(depot, "a")[0][3] == "needed for warm-up"


def test_a_part_that_moves_and_the_last_ten_moves_are_kept(depot_world: World, depot: Depot) -> None:
    model = load(depot_world, "a")
    for size in range(1, 13):
        model.bring(size)
        depot.residents.placing.place(lambda models: None, [model])
    assert [size for _, _, size, _ in moves(depot, "a")] == [1] * 10
    model.bring(4)
    depot.residents.placing.place(lambda models: None, [model])
    assert moves(depot, "a")[0][:3] == ("gpu", "cpu", 8)


def test_a_pinned_model_stays_on_its_device_whoever_asks(depot_world: World, depot: Depot) -> None:
    pinned, other = load(depot_world, "p", 40), load(depot_world, "a", 40)
    load_models_gpu([pinned])
    load_models_gpu([other])
    (entry,) = [loaded for loaded in current_loaded_models if loaded.model is pinned]
    assert entry.model_unload() is False and entry.model_unload(5, unpatch_weights=False) is False
    assert [loaded.model for loaded in free_memory(1e30, "gpu")] == [other]
    assert pinned.loaded_size() == 40 and current_loaded_models == [entry]
    assert [loaded.model for loaded in free_memory(1e30, "gpu", [entry], for_dynamic=True)] == []
    assert len(moves(depot, "p")) == 1


def test_without_a_depot_nothing_is_pinned(depot_world: World, depot: Depot) -> None:
    pinned = load(depot_world, "p")
    load_models_gpu([pinned])
    hooks.disarm()
    assert [loaded.model for loaded in free_memory(1e30, "gpu")] == [pinned]
    hooks.arm(depot)


def test_what_does_not_fit_beside_pinned_models_lists_them_and_unpinned_ones_have_gone(
    depot_world: World, depot: Depot
) -> None:
    pinned, idle, large = load(depot_world, "p", 40), load(depot_world, "a", 30), load(depot_world, "b", 70)
    load_models_gpu([pinned])
    load_models_gpu([idle])
    with pytest.raises(MemoryError) as caught:
        load_models_gpu([large])
    assert str(caught.value) == (
        "70 bytes do not fit\nPinned in memory are 0.0 kB: checkpoints/p.safetensors (0.0 kB, by --pin "
        f"checkpoints/p*). {WHAT_TO_DO}")
    assert (pinned.loaded_size(), idle.loaded_size()) == (40, 0), "what is not pinned has made room first"
    depot.memory_pins.change(lambda state: state.unpinned("checkpoints/p*", depot.memory_pins.setup))
    depot.residents.apply_pins()
    load_models_gpu([large])
    assert pinned.loaded_size() == 0


def test_a_loader_that_runs_out_of_memory_says_what_is_pinned(depot_world: World, depot: Depot) -> None:
    kept = load(depot_world, "p")

    @hooks.keeps_resident("path")
    def fail(path: str) -> Patcher:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(RuntimeError, match="can't allocate memory\nPinned in memory are .*--pin check"):
        fail(str(depot_world.write_model("checkpoints", "x.safetensors")))
    assert kept.model.is_pinned is True  # type: ignore[attr-defined]


class OutOfMemoryError(RuntimeError):
    """torch's has this name."""


class NotEnoughMemory(Exception):
    """So has the one of `comfy.errors`."""


@pytest.mark.parametrize("error, is_it", [
    (OutOfMemoryError("x"), True), (NotEnoughMemory("x"), True), (MemoryError(), True),
    (RuntimeError("CUDA out of memory"), True), (RuntimeError("shapes"), False),
    (ValueError("out of memory"), False),
])
def test_full_memory_is_told_from_other_errors(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it

"""Models stay in memory: by content, within a budget, as clones; and what is not there is read."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from comfy_depot import hooks
from comfy_depot.calls import NoKey, options_of
from comfy_depot.depot import Depot
from comfy_depot.digests import Digests
from comfy_depot.drops import Standing, plan_drops
from comfy_depot.errors import DiskFull
from comfy_depot.eviction import Limits, Stamp
from comfy_depot.host import Host
from comfy_depot.options import Budget
from comfy_depot.residency import Residents
from comfy_depot.resident import Part
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors

MEGABYTE = 1 << 20


class Module:
    """Stands for the torch module with the weights."""

    def __init__(self, content: bytes) -> None:
        self.content, self.itself = content, self  # as in a model: only the collector finds it


class Patcher:
    """What the store needs of a ModelPatcher, with its rule that a clone refers to what it came from."""

    def __init__(self, module: Module, size: int = MEGABYTE, *, load: str = "gpu", rest: str = "cpu") -> None:
        self.model, self.size = module, size
        self.load_device, self.offload_device = load, rest
        self.parent: Patcher | None = None
        self.patches: list[str] = []

    def clone(self) -> Patcher:
        new = Patcher(self.model, self.size, load=self.load_device, rest=self.offload_device)
        new.parent, new.patches = self, list(self.patches)
        return new

    def model_size(self) -> int:
        return self.size


class Wrapper:
    """What the store needs of a CLIP or a VAE."""

    def __init__(self, module: Module) -> None:
        self.first_stage_model = module
        self.patcher = Patcher(module)
        self.options: dict[str, int] = {}


class Rig:
    """Loaders that count their reads, behind the hook, with a started depot."""

    def __init__(self, world: World, depot: Depot) -> None:
        self.world, self.depot = world, depot
        self.reads: list[str] = []
        self.size = MEGABYTE
        self.rest = "cpu"
        self.load = hooks.keeps_resident("path")(self._load)

    def _load(self, path: Any, *, dtype: str = "fp16", options: Any = None) -> tuple[Patcher, Wrapper, None]:
        self.reads.append(os.path.basename(path))
        module = Module(Path(path).read_bytes())
        return Patcher(module, self.size, rest=self.rest), Wrapper(module), None

    @property
    def residents(self) -> Residents:
        return self.depot.residents

    def why_dropped(self) -> list[str]:
        return [drop["why"] for drop in self.residents.drops()]


@pytest.fixture
def rig(depot_world: World) -> Iterator[Rig]:
    with depot_world.depot(resident_budget=Budget(size=100 * MEGABYTE)) as depot:
        yield Rig(depot_world, depot)


@pytest.fixture
def file(depot_world: World) -> str:
    return str(depot_world.write_model("checkpoints", "a.safetensors", b"weights of a"))


# --- the same model is not read again ---


def test_a_loader_that_runs_again_reads_nothing_and_gets_the_same_weights(rig: Rig, file: str) -> None:
    first, again = rig.load(file), rig.load(file)
    assert rig.reads == ["a.safetensors"]
    assert again[0].model is first[0].model
    assert again[1].first_stage_model is first[1].first_stage_model is first[1].patcher.model
    assert again[2] is None


def test_what_one_user_does_to_its_model_reaches_nobody_else(rig: Rig, file: str) -> None:
    model, wrapper, _ = rig.load(file)
    model.patches.append("lora")
    wrapper.options["layer"] = -2
    wrapper.patcher.patches.append("lora")
    other, other_wrapper, _ = rig.load(file)
    assert (other.patches, other_wrapper.options, other_wrapper.patcher.patches) == ([], {}, [])


def test_an_idle_model_stays_and_a_later_user_finds_it(rig: Rig, file: str) -> None:
    rig.load(file)  # nobody keeps what it gave
    assert [(one["in_use"], one["kept"]) for one in rig.residents.models()] == [(False, True)]
    rig.load(file)
    assert rig.reads == ["a.safetensors"]


@pytest.mark.parametrize("other", [{"dtype": "fp32"}, {"options": {"dtype": "fp8"}}, {"options": [1]}])
def test_other_options_are_another_model(rig: Rig, file: str, other: dict[str, Any]) -> None:
    rig.load(file)
    rig.load(file, **other)
    rig.load(file, **other)
    assert len(rig.reads) == 2


def test_a_default_that_is_written_out_changes_nothing(rig: Rig, file: str) -> None:
    rig.load(file)
    rig.load(path=Path(file), dtype="fp16", options=None)
    assert len(rig.reads) == 1


def test_other_devices_are_another_model(depot_world: World, file: str) -> None:
    devices: list[Hashable] = ["cuda:0"]
    with depot_world.depot() as depot:
        depot.residents.host = Host(load_settings=lambda: tuple(devices))
        rig = Rig(depot_world, depot)
        rig.load(file)
        devices[:] = ["cuda:1"]
        rig.load(file)
        devices[:] = ["cuda:0"]
        rig.load(file)
    assert len(rig.reads) == 2


def test_one_file_under_two_names_is_one_model(rig: Rig, file: str) -> None:
    os.link(file, file + ".twin")
    os.symlink(file, file + ".link")
    models = [rig.load(path)[0].model for path in (file, file + ".twin", file + ".link")]
    assert len(rig.reads) == 1 and models[0] is models[1] is models[2]
    assert len(rig.residents.models()) == 1


def test_two_files_with_the_same_verified_content_are_one_model(rig: Rig, file: str) -> None:
    twin = shutil.copy(file, file + ".copy")
    for path in (file, twin):
        rig.depot.digests.note(Stamp.of(os.stat(path)), "ab" * 32)
    assert rig.load(file)[0].model is rig.load(twin)[0].model
    (resident,) = rig.residents.models()
    assert resident["names"] == ["checkpoints/a.safetensors", "checkpoints/a.safetensors.copy"]


@pytest.mark.parametrize("asked_for", ["itself", "its twin"])
def test_a_model_in_memory_is_found_when_its_content_becomes_known(
    rig: Rig, file: str, asked_for: str
) -> None:
    """Idle time computes a sha256 while the model is loaded already."""
    first, twin = rig.load(file), shutil.copy(file, file + ".copy")
    for path in (file, twin):
        rig.depot.digests.note(Stamp.of(os.stat(path)), "ab" * 32)
    assert rig.load(file if asked_for == "itself" else twin)[0].model is first[0].model
    assert rig.load(twin)[0].model is rig.load(file)[0].model is first[0].model
    assert rig.reads == ["a.safetensors"]


def test_of_two_models_that_turn_out_to_be_the_same_one_is_kept(rig: Rig, file: str) -> None:
    twin = shutil.copy(file, file + ".copy")
    used, other = rig.load(file), rig.load(twin)
    for path in (file, twin):
        rig.depot.digests.note(Stamp.of(os.stat(path)), "ab" * 32)
    again = [rig.load(path)[0].model for path in (twin, file)]
    assert again == [used[0].model] * 2 and len(rig.reads) == 2, "what was loaded is not loaded again"
    assert rig.why_dropped() == ["a model with the same content is in memory"]
    assert other[0].model.content == b"weights of a", "who has it keeps it"


def test_two_files_of_which_nothing_is_known_are_two_models(rig: Rig, file: str) -> None:
    rig.load(file)
    rig.load(shutil.copy(file, file + ".copy"))
    assert len(rig.reads) == 2


def test_a_loader_that_takes_a_name_finds_the_file_and_logs_each_use(rig: Rig) -> None:
    rig.world.write_model("loras", "x.safetensors", b"x")
    reads = []

    class Node:
        @hooks.keeps_resident("lora_name", folder="loras")
        def load(self, lora_name: str) -> tuple[Patcher]:
            import folder_paths

            reads.append(folder_paths.get_full_path_or_raise("loras", lora_name))
            return (Patcher(Module(b"x")),)

    rig.world.run_node()
    given = [Node().load("x.safetensors")[0], Node().load(lora_name="x.safetensors")[0]]
    assert len(reads) == 1 and given[0].model is given[1].model
    rig.depot.access.flush()
    from comfy_depot import access

    assert [row.outcome for row in access.read(rig.depot.options.depot_dir)] == ["hit", "hit"]
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        Node().load("none.safetensors")


# --- the content of a name changes ---


def test_a_replaced_file_is_read_and_who_has_the_old_model_keeps_it(rig: Rig, file: str) -> None:
    old, *_ = rig.load(file)
    Path(file + ".new").write_bytes(b"weights of b")  # as long as before
    os.replace(file + ".new", file)
    new, *_ = rig.load(file)
    assert (old.model.content, new.model.content) == (b"weights of a", b"weights of b")
    assert rig.why_dropped() == ["its file was replaced"]
    assert len(rig.residents.models()) == 2
    del old, _
    assert len(rig.residents.models()) == 1


def test_a_deleted_file_is_an_error_although_its_model_is_in_memory(rig: Rig, file: str) -> None:
    rig.load(file)
    os.unlink(file)
    with pytest.raises(FileNotFoundError):
        rig.load(file)
    assert rig.why_dropped() == ["its file is gone"] and rig.residents.models() == []


def test_a_file_that_is_replaced_while_it_is_read_is_not_kept(rig: Rig, file: str) -> None:
    read = rig._load

    def read_and_replace(path: str) -> Any:
        loaded = read(path)
        Path(path).write_bytes(b"something longer than before")
        return loaded

    hooks.keeps_resident("path")(read_and_replace)(file)
    assert rig.residents.models() == []


# --- models of several files ---


@pytest.fixture
def both(depot_world: World) -> list[str]:
    written = {"l": b"weights of l", "t5": b"weights of t5"}
    return [str(depot_world.write_model("text_encoders", f"{name}.safetensors", content))
            for name, content in written.items()]


def load_both(rig: Rig, paths: list[str]) -> Patcher:
    @hooks.keeps_resident("paths")
    def load(paths: list[str]) -> Patcher:
        rig.reads.extend(map(os.path.basename, paths))
        return Patcher(Module(b"".join(Path(path).read_bytes() for path in paths)), MEGABYTE)

    load.__qualname__ = "load"
    loaded = load(paths)
    assert isinstance(loaded, Patcher)
    return loaded


def test_a_model_of_several_files_is_read_once(rig: Rig, both: list[str]) -> None:
    first, again = load_both(rig, both), load_both(rig, both)
    assert rig.reads == ["l.safetensors", "t5.safetensors"] and again.model is first.model
    (known,) = rig.residents.models()
    assert known["names"] == ["text_encoders/l.safetensors", "text_encoders/t5.safetensors"]


def test_another_set_of_files_is_another_model(rig: Rig, both: list[str]) -> None:
    load_both(rig, both)
    load_both(rig, both[:1])
    load_both(rig, both[::-1])
    assert len(rig.reads) == 5 and len(rig.residents.models()) == 3


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_several_files_that_is_replaced_makes_another_model(
    rig: Rig, both: list[str], which: int
) -> None:
    before = load_both(rig, both).model
    Path(both[which] + ".new").write_bytes(b"other weights")
    os.replace(both[which] + ".new", both[which])
    assert load_both(rig, both).model is not before
    assert len(rig.residents.models()) == 1 and rig.why_dropped() == ["its file was replaced"]


def test_one_of_several_files_that_is_gone_is_the_loaders_error(rig: Rig, both: list[str]) -> None:
    load_both(rig, both)
    os.unlink(both[1])
    with pytest.raises(FileNotFoundError):
        load_both(rig, both)


# --- what cannot be kept ---


@pytest.mark.parametrize("odd", [object(), {"sd": [bytearray()]}, lambda: None])
def test_an_argument_that_cannot_be_compared_means_reading(rig: Rig, file: str, odd: Any) -> None:
    rig.load(file, options=odd)
    rig.load(file, options=odd)
    assert len(rig.reads) == 2 and rig.residents.models() == []


def test_a_result_that_cannot_be_cloned_is_passed_on(rig: Rig, file: str) -> None:
    weights = {"a": 1}
    assert hooks.keeps_resident("path")(lambda path: weights)(file) is weights
    assert rig.residents.models() == []


def test_a_call_that_is_wrong_is_the_loaders_error(rig: Rig, file: str) -> None:
    with pytest.raises(TypeError, match="bogus"):
        rig.load(file, bogus=1)
    with pytest.raises(TypeError):
        rig.load(None)


def test_a_loader_that_fails_leaves_nothing_and_is_asked_again(rig: Rig, file: str) -> None:
    def fail(path: str) -> Any:
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            hooks.keeps_resident("path")(fail)(file)
    assert rig.residents.models() == []


def test_equal_values_of_other_types_are_other_options() -> None:
    def load(path: str, value: Any) -> None: ...

    keys = {options_of(load, "path", ("a", value), {})[1] for value in (1, 1.0, True, "1", None, [1], (2,))}
    assert len(keys) == 7
    with pytest.raises(NoKey):
        options_of(load, "path", ("a", type("Made", (), {"__qualname__": "f.<locals>.Made"})), {})


def test_a_wrapper_without_weights_is_kept_as_it_is() -> None:
    empty = Wrapper(Module(b""))
    empty.patcher = empty.first_stage_model = None  # type: ignore[assignment]
    part = Part(empty)
    assert part.is_there and part.size == 0 and part.clone().patcher is None and part.clone() is not empty


# --- the budget ---


def use(rig: Rig, *names: str) -> None:
    """Load models of 2 MB, one after the other, that nobody keeps; each takes equally long to load."""
    for name in names:
        path = rig.world.model("checkpoints", name)
        rig.load(str(path if path.exists() else rig.world.write_model("checkpoints", name, name.encode())))
        for model in rig.residents._models.values():
            model.seconds_to_load = 1.0


def test_the_least_recently_used_idle_model_goes_when_the_budget_is_full(depot_world: World) -> None:
    with depot_world.depot(resident_budget=Budget(size=5 * MEGABYTE)) as depot:
        rig = Rig(depot_world, depot)
        use(rig, "a", "b", "a", "c", "a", "d", "a")
        assert rig.reads == ["a", "b", "c", "d"]
        assert [drop["names"] for drop in depot.residents.drops()] == [["checkpoints/c"], ["checkpoints/b"]]
        assert set(rig.why_dropped()) == {"over the budget"}
        stats = depot.residents.stats()
        assert (stats["bytes"], stats["loads"], stats["hits"], stats["drops"]) == (4 * MEGABYTE, 4, 3, 2)


def test_a_model_in_use_is_found_even_without_any_budget_and_is_gone_with_its_last_user(
    depot_world: World, file: str
) -> None:
    with depot_world.depot(resident_budget=Budget(size=0)) as depot:
        rig = Rig(depot_world, depot)
        first = rig.load(file)
        assert rig.load(file)[0].model is first[0].model and len(rig.reads) == 1
        clone = first[0].clone()  # as LoRA nodes do; the clone that the loader gave goes away
        vae = first[1]
        del first
        assert rig.load(file)[0].model is clone.model and len(rig.reads) == 1
        del clone, vae
        assert depot.residents.models() == []
        rig.load(file)
        assert len(rig.reads) == 2


def test_parts_that_are_in_use_are_shared_when_the_others_have_to_be_read_again(
    depot_world: World, file: str
) -> None:
    with depot_world.depot(resident_budget=Budget(size=0)) as depot:
        rig = Rig(depot_world, depot)
        model, vae, _ = rig.load(file)
        kept = model.model
        del vae
        assert rig.load(file)[0].model is kept and len(rig.reads) == 2


def standing(
    key: str, *, size: int = 10, seconds: float = 1.0, used: float = 0.0, idle: bool = True,
    pinned: bool = False,
) -> Standing:
    return Standing(key, size, seconds, used, idle, pinned)


@pytest.mark.parametrize("models, budget, going", [
    ([standing("a"), standing("b")], 20, []),
    ([standing("new", used=2), standing("old", used=1)], 19, ["old"]),
    ([standing("used", used=1, idle=False), standing("idle", used=2)], 10, ["idle"]),
    ([standing("used", used=1, idle=False), standing("idle", used=2)], 9, ["idle", "used"]),
    ([standing("dear", seconds=9, used=1), standing("cheap", seconds=1, used=2)], 10, ["cheap"]),
    ([standing("small", size=1, used=1), standing("large", size=100, used=2)], 50, ["large"]),
    # pinned ones neither go nor count
    ([standing("pinned", pinned=True), standing("a", used=1), standing("b", used=2)], 10, ["a"]),
    ([standing("pinned", pinned=True, size=1000, idle=False), standing("pinned too", pinned=True)], 0, []),
    # a difference that is no more than noise does not count: the older one goes
    ([standing("old", seconds=1.05, used=1), standing("new", seconds=1.0, used=2)], 10, ["old"]),
    ([standing("empty", size=0, seconds=0)], 0, []),
])  # fmt: skip
def test_which_models_go_first(models: list[Standing], budget: int, going: list[str]) -> None:
    assert [model.key for model in plan_drops(models, budget)] == going
    assert [model.key for model in plan_drops(reversed(models), budget)] == going


@pytest.mark.parametrize("seed", range(20))
def test_no_plan_ever_holds_a_pinned_model_and_the_others_go_as_without_it(seed: int) -> None:
    chance = random.Random(seed)
    models = [standing(str(number), size=chance.randint(0, 100), seconds=chance.uniform(0, 9),
                       used=number, idle=chance.random() < 0.5, pinned=chance.random() < 0.4)
              for number in range(chance.randint(0, 30))]  # fmt: skip
    budget = chance.randint(0, 1500)
    plan = plan_drops(models, budget)
    assert not any(model.is_pinned for model in plan)
    assert plan == plan_drops([model for model in models if not model.is_pinned], budget)
    left = sum(model.size for model in models if not model.is_pinned and model not in plan)
    assert left <= budget


# --- memory is needed ---


@pytest.mark.slow
def test_freeing_lets_go_of_idle_models_only(rig: Rig, file: str, caplog: pytest.LogCaptureFixture) -> None:
    used = rig.load(file)
    use(rig, "idle")
    with caplog.at_level(logging.INFO):
        hooks.free_idle_models()
    assert [one["names"] for one in rig.residents.models()] == [["checkpoints/a.safetensors"]]
    assert rig.load(file)[0].model is used[0].model
    assert "checkpoints/idle (2 MB) is not kept in memory any longer: memory was to be freed" in caplog.text


@pytest.mark.parametrize("rest, device, goes", [("gpu", "gpu", True), ("cpu", "gpu", False),
                                                ("gpu", "other", False)])
def test_a_device_that_is_full_gets_rid_of_idle_models_that_unloading_leaves_there(
    rig: Rig, file: str, rest: str, device: str, goes: bool
) -> None:
    def load(path: str) -> Patcher:
        return Patcher(Module(b"x"), rest=rest)

    free = {"gpu": 0.0, "other": 0.0}
    rig.residents.host = Host(bytes_free=free.__getitem__)
    hooks.keeps_resident("path")(load)(file)
    asked: list[Any] = []
    hooks.makes_room(lambda *args, **kwargs: asked.append((args, kwargs)))(5, device, for_dynamic=True)
    assert asked == [((5, device, []), {"for_dynamic": True})]
    assert (rig.residents.models() == []) is goes


def test_no_more_goes_than_is_needed(rig: Rig, depot_world: World) -> None:
    rig.residents.host = Host(bytes_free=lambda device: 10.0 if rig.residents.drops() else 0.0)

    @hooks.keeps_resident("path")
    def load(path: str) -> Patcher:
        return Patcher(Module(b"x"), rest="gpu")

    for name in ("a", "b", "c"):
        load(str(depot_world.write_model("checkpoints", name)))
    rig.residents.make_room(5, "gpu")
    assert len(rig.residents.models()) == 2


# --- what else knows of them ---


@pytest.mark.slow
def test_a_model_in_memory_is_not_evicted_from_the_disk(rig: Rig, file: str) -> None:
    size = os.path.getsize(file)
    entry = {"url": "https://example.com/a", "size": size}
    rig.world.write_manifest({"checkpoints": {"a.safetensors": entry}})
    rig.depot.catalogue.refresh()
    rig.load(file)
    limits = Limits(names={("checkpoints", "a.safetensors")})
    plan = rig.depot.plan_eviction(limits)
    assert [verdict.reason for verdict in plan.staying] == ["it is in memory"]
    rig.residents.free_idle()
    plan = rig.depot.plan_eviction(limits)
    assert [verdict.model.name for verdict in plan.going] == ["a.safetensors"]
    rig.load(file)  # between the plan and the deed
    assert plan.execute().going == () and os.path.exists(file)


@pytest.mark.slow
def test_idle_models_give_way_on_the_disk_to_one_that_a_node_waits_for(depot_world: World) -> None:
    with Origin() as origin:
        names = ("a.safetensors", "b.safetensors", "c.safetensors")
        depot_world.write_manifest({"checkpoints": {
            name: {"url": origin.put(f"/{name}", safetensors(MEGABYTE)), "size": MEGABYTE} for name in names
        }})
        with depot_world.depot(depot_max_size=5 * MEGABYTE // 2) as depot:
            rig = Rig(depot_world, depot)
            depot_world.run_node()
            for name in names[:2]:
                rig.load(depot.path_in_node("checkpoints", name, None))
            assert depot.path_in_node("checkpoints", names[2], None) is not None
            assert rig.why_dropped() == ["the disk was full"]  # no more than is needed
            here = [depot_world.model("checkpoints", name) for name in names]
            (gone,) = [path for path in here if not path.exists()]
            used = [rig.load(path) for path in here if path != gone]
            with pytest.raises(DiskFull, match="it is in memory"):
                depot.path_in_node("checkpoints", gone.name, None)
            assert used and len(rig.residents.models()) == 2


async def test_the_list_of_models_tells_what_is_in_memory_and_why_something_is_not(
    rig: Rig, file: str
) -> None:
    routes = web.RouteTableDef()
    hooks.add_routes(routes)
    application = web.Application()
    application.add_routes(routes)
    async with TestClient(TestServer(application)) as http:
        given = rig.load(file)
        rig.load(file)
        found = await (await http.get("/depot/models")).json()
        (resident,) = found["resident"]
        assert resident.pop("last_used") > 0 and resident.pop("seconds_to_load") >= 0
        assert re.fullmatch(r"used \d+ s ago; kept within the resident budget", resident.pop("why"))
        assert resident == {
            "names": ["checkpoints/a.safetensors"], "loader": "Rig._load", "bytes": 2 * MEGABYTE, "loads": 1,
            "hits": 1, "in_use": True, "kept": True, "pinned": None, "on": {}, "moves": [], "users": 1,
            "shared_by": [],
        }  # fmt: skip
        assert found["dropped"] == []
        del given
        rig.residents.free_idle()
        found = await (await http.get("/depot/models")).json()
        (dropped,) = found["dropped"]
        assert found["resident"] == [] and dropped.pop("time") > 0
        assert dropped == {"names": ["checkpoints/a.safetensors"], "bytes": 2 * MEGABYTE,
                           "why": "memory was to be freed", "in_use": False}


def test_the_store_is_empty_after_the_stop(depot_world: World, file: str) -> None:
    with depot_world.depot() as depot:
        Rig(depot_world, depot).load(file)
    assert depot.residents.models() == []


def budget_of(total: int) -> Callable[[], int]:
    return lambda: total


def test_the_budget_is_a_size_or_a_share() -> None:
    assert Budget(size=0).of(budget_of(100)) == 0
    assert Budget(share=0.25).of(budget_of(100)) == 25
    assert Budget().of(budget_of(100)) == 40


def test_a_share_is_one_of_the_memory_that_the_host_allows(tmp_path: Path) -> None:
    def budget_of(host: Host) -> int:
        return Residents(
            Budget(share=0.5), host=host, digests=Digests(tmp_path), local_path=lambda folder, name: None
        ).budget

    assert budget_of(Host(bytes_allowed=lambda: 4096)) == 2048
    assert budget_of(Host()) == psutil.virtual_memory().total // 2

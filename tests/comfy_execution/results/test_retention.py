"""Results of other workflows are kept as far as RAM allows (rules 52, 66 to 68, 70)."""

import gc
import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch

from comfy.ram import Ram
from comfy_execution import caching
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.results import stores
from comfy_execution.results.budget import Kept
from comfy_execution.results.retention import GIGABYTE, Budget, Ledger, budget_bytes, make_limit
from tests.comfy_execution.rig import INT, Rig, execution, make, node

ANY = ("*", {})
MEGABYTE = 2**20
BUDGET = execution.CacheType.BUDGET
BUDGET_DROP = {"reason": "dropped", "why": "budget"}


@pytest.fixture(autouse=True)
def each_node_takes_a_millisecond(monkeypatch):
    """What goes first depends on measured times: here they are all the same."""
    clock = itertools.count()
    monkeypatch.setattr(caching, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 1000))


def budget_rig(budget, **executor_options):
    rig = Rig(cache_type=BUDGET, cache_args={"budget": budget}, **executor_options)
    add_large(rig)
    return rig


def add_large(rig):
    """Blob makes tensors of some MB, Model a module of torch, Clone another object with the same weights."""

    class Patcher:
        def __init__(self, model):
            self.model = model

    def megabytes(size):
        return torch.zeros(size * MEGABYTE // 4)

    rig.add(
        Blob=make(lambda self, size, mark=0: (megabytes(size),), {"size": INT}, optional={"mark": INT}),
        Model=make(
            lambda self, size, mark=0: (Patcher(torch.nn.Linear(256, size * 1024, bias=False)),),
            {"size": INT}, optional={"mark": INT},
        ),
        Clone=make(lambda self, model: (Patcher(model.model),), {"model": ANY}),
        Look=make(
            lambda self, value: {"ui": {"text": ["seen"]}}, {"value": ANY}, returns=(), OUTPUT_NODE=True
        ),
    )  # fmt: skip


def blob(size, mark=0, class_type="Blob"):
    return {"1": node(class_type, size=size, mark=mark), "2": node("Look", value=["1", 0])}


def sums(value):
    return {"1": node("Number", value=value), "2": node("Add", a=["1", 0]), "3": node("Show", value=["2", 0])}


def stats(rig):
    return rig.executor.caches.stats()


# -- A, B, A -------------------------------------------------------------------------------------------------


def test_going_from_a_to_b_and_back_to_a_runs_nothing_of_a(rig):
    """Rule 68, in the default mode."""
    first = rig.run(sums(1))
    rig.run({"7": node("Show", value=5), "1": node("Number", value=9), "8": node("Show", value=["1", 0])})
    again = rig.run(sums(1))
    assert again.ran == [] and again.outputs == first.outputs and again.why == dict.fromkeys("123", "cached")


def test_a_budget_of_nothing_keeps_what_the_last_prompt_used(registry):
    """Rule 67."""
    rig = budget_rig(0)
    rig.run(sums(1))
    assert rig.run(sums(1)).ran == []
    rig.run(sums(2))
    assert rig.run(sums(1)).reasons == dict.fromkeys("123", BUDGET_DROP)


def test_children_of_an_expansion_are_found_again_after_another_workflow(rig):
    """Rule 52: the parent runs again, since it asks for it; its children do not."""

    def twice(self, value):
        graph = GraphBuilder()
        first = graph.node("Add", a=value, b=1)
        return {"result": (graph.node("Add", a=first.out(0), b=2).out(0),), "expand": graph.finalize()}

    rig.add(Twice=make(twice, {"value": INT}, IS_CHANGED=classmethod(lambda cls, value: float("nan"))))
    prompt = {"2": node("Twice", value=1), "3": node("Show", value=["2", 0])}
    rig.run(prompt)
    rig.run(sums(8))
    again = rig.run(prompt)
    assert again.ran == ["2", "3"] and again.outputs["3"] == {"text": [4]}
    assert again.why["2.0.0.1"] == again.why["2.0.0.2"] == "cached"


def test_force_outputs_finds_outputs_inside_an_expansion_after_another_workflow(rig):
    def shows(self, value):
        graph = GraphBuilder()
        added = graph.node("Add", a=value, b=1)
        graph.node("Show", value=added.out(0))
        return {"result": (added.out(0),), "expand": graph.finalize()}

    def plain(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Add", a=value, b=5).out(0),), "expand": graph.finalize()}

    bodies = {1: shows, 2: plain}
    rig.add(Either=make(lambda self, value: bodies[value](self, value), {"value": INT}))

    def prompt(value):
        return {"2": node("Either", value=value), "3": node("Show", value=["2", 0])}

    rig.run(prompt(1))
    rig.run(prompt(2))
    rig.run(prompt(1))
    forced = rig.run(prompt(1), extra_data={"force": "outputs"})
    assert [call for call in rig.calls if call[0] != "Show"] == []
    assert len(rig.calls) == 2 and forced.why["2"] == "forced"
    rig.run(prompt(2))
    assert rig.run(prompt(2), extra_data={"force": "outputs"}).why["2"] == "cached"


def test_node_objects_do_not_survive_a_prompt_without_their_node(rig):
    """Rule 66: results are kept longer than objects are."""
    rig.add(
        Counts=make(
            lambda self, value: (setattr(self, "n", getattr(self, "n", 0) + 1) or self.n,), {"value": INT}
        )
    )

    def run(value):
        return rig.run({"1": node("Counts", value=value), "2": node("Show", value=["1", 0])}).outputs["2"]

    assert [run(1), run(2)] == [{"text": [1]}, {"text": [2]}]
    rig.run({"5": node("Show", value=1)})
    assert [run(2), run(3)] == [{"text": [2]}, {"text": [1]}]


def test_results_whose_key_never_comes_again_go_with_the_next_prompt(rig):
    rig.add(Nan=make(lambda self: (1,), {}, IS_CHANGED=classmethod(lambda cls: float("nan"))))
    prompt = {"1": node("Nan"), "2": node("Add", a=["1", 0]), "3": node("Show", value=["2", 0])}
    for _ in range(3):
        rig.run({**prompt, "4": node("Show", value=7)})
    assert len(rig.executor.caches.outputs) == 4


# -- what goes, and when -------------------------------------------------------------------------------------


def test_the_large_and_cheap_result_goes_and_the_rest_of_the_workflow_stays(registry):
    rig = budget_rig(24 * MEGABYTE)
    rig.run({**blob(16), "5": node("Number", value=1), "6": node("Show", value=["5", 0])})
    rig.run(blob(15, mark=1))
    assert stats(rig)["bytes"] < 16 * MEGABYTE
    again = rig.run({**blob(16), "7": node("Look", value=["1", 0], other=1)})
    assert again.reasons["1"] == BUDGET_DROP and again.why["2"] == "cached"


def test_room_is_made_when_a_result_is_stored_not_with_the_next_prompt(registry):
    rig = budget_rig(20 * MEGABYTE)
    rig.run(blob(15))
    sizes = []
    rig.add(Measure=make(lambda self, value: sizes.append(stats(rig)["bytes"]) or (1,), {"value": ANY}))
    rig.run({
        "1": node("Blob", size=14, mark=1), "2": node("Measure", value=["1", 0]),
        "3": node("Show", value=["2", 0]),
    })  # fmt: skip
    assert len(sizes) == 1 and 14 * MEGABYTE < sizes[0] < 15 * MEGABYTE


def test_what_the_running_prompt_uses_stays_even_if_it_is_too_much(registry):
    rig = budget_rig(MEGABYTE)
    prompt = {**blob(4), "3": node("Blob", size=3), "4": node("Look", value=["3", 0])}
    rig.run(sums(1))
    rig.run(prompt)
    assert stats(rig)["entries"] == 4 and stats(rig)["bytes"] > 7 * MEGABYTE
    assert rig.run(prompt).ran == []


def test_checkpoints_of_several_workflows_do_not_pile_up(registry):
    rig = budget_rig(25 * MEGABYTE)
    made = []
    for mark in range(6):
        rig.run(blob(10, mark, "Model"))
        ((entry,),) = [e.outputs for e in rig.executor.caches.outputs._entries.values() if e.ui is None][-1:]
        made.append(weakref.ref(entry[0].model))
        del entry
        assert stats(rig)["bytes"] <= 25 * MEGABYTE
    gc.collect()
    alive = [model() is not None for model in made]
    assert alive[-1] and sum(alive) == 2
    assert rig.run(blob(10, 5, "Model")).ran == []


def test_weights_that_results_share_count_once(registry):
    rig = budget_rig(GIGABYTE)
    prompt = {**blob(10, class_type="Model"), "3": node("Clone", model=["1", 0]),
              "4": node("Clone", model=["3", 0]), "5": node("Look", value=["4", 0])}  # fmt: skip
    rig.run(prompt)
    assert 10 * MEGABYTE < stats(rig)["bytes"] < 11 * MEGABYTE


def test_a_result_that_is_stored_again_counts_once(registry):
    rig = budget_rig(GIGABYTE)
    for _ in range(3):
        rig.run(blob(5), extra_data={"force": True})
    assert 5 * MEGABYTE < stats(rig)["bytes"] < 6 * MEGABYTE


def test_what_results_hold_on_a_gpu_has_a_limit_of_its_own(registry, monkeypatch):
    monkeypatch.setattr(stores, "DEVICE_BYTES", 20 * MEGABYTE)
    rig = budget_rig(GIGABYTE)
    rig.add(There=make(lambda self, mark: (torch.empty(2 * MEGABYTE, device="meta"),), {"mark": INT}))
    for mark in range(5):
        rig.run({"1": node("There", mark=mark), "2": node("Look", value=["1", 0])})
    ledger = rig.executor.caches.outputs._ledger
    assert ledger.device_bytes == 16 * MEGABYTE and stats(rig)["entries"] == 5 + 2
    large = {str(i): node("There", mark=i) for i in range(10, 15)}
    looks = {f"look {i}": node("Look", value=[i, 0]) for i in large}
    rig.run({**large, **looks})
    assert ledger.device_bytes == 40 * MEGABYTE and rig.run({**large, **looks}).ran == []


def test_models_that_came_back_from_a_gpu_are_weighed_again(registry):
    rig = budget_rig(20 * MEGABYTE)
    model = torch.nn.Linear(256, 4 * 1024, bias=False, device="meta")

    class Patcher:
        def __init__(self):
            self.model = model

    rig.add(OnGpu=make(lambda self: (Patcher(),), {}))
    rig.run({"1": node("OnGpu"), "2": node("Look", value=["1", 0])})
    assert stats(rig)["bytes"] < MEGABYTE
    model.weight = torch.nn.Parameter(torch.zeros(4 * 1024, 256))
    rig.run(sums(1))
    assert stats(rig)["bytes"] > 4 * MEGABYTE


def test_the_number_of_results_is_limited_whatever_their_size(registry, monkeypatch):
    monkeypatch.setattr(stores, "MOST_RESULTS", 20)
    rig = budget_rig(GIGABYTE)
    for value in range(20):
        rig.run(sums(value))
    assert stats(rig)["entries"] <= 20
    assert rig.run(sums(19)).ran == []


def test_a_prompt_with_more_results_than_may_be_kept_is_looked_through_once(registry, monkeypatch):
    monkeypatch.setattr(stores, "MOST_RESULTS", 20)
    plans, original = [], stores.plan_drops
    monkeypatch.setattr(
        stores, "plan_drops", lambda *args, **options: plans.append(1) or original(*args, **options)
    )
    rig = budget_rig(GIGABYTE)
    chain = {str(i): node("Add", a=[str(i - 1), 0]) for i in range(1, 60)}
    result = rig.run({"0": node("Number", value=1), **chain, "show": node("Show", value=["59", 0])})
    assert result.outputs["show"] == {"text": [60]}
    assert stats(rig)["entries"] == 61
    assert len(plans) == 1


@pytest.mark.parametrize("mode", [BUDGET, execution.CacheType.LRU, execution.CacheType.CLASSIC])
def test_models_in_results_of_other_workflows_are_let_go_when_asked(registry, mode):
    rig = Rig(cache_type=mode, cache_args={"budget": GIGABYTE, "lru": 50})
    add_large(rig)
    keeps_others = mode is not execution.CacheType.CLASSIC
    first = {
        "1": node("Model", size=1), "2": node("Clone", model=["1", 0]), "3": node("Look", value=["2", 0]),
        "4": node("Blob", size=1), "5": node("Look", value=["4", 0]),
    }  # fmt: skip
    second = {"1": node("Model", size=2), "3": node("Look", value=["1", 0])}
    rig.run(first)
    rig.run(second)
    assert rig.executor.caches.drop_models() is keeps_others
    assert rig.executor.caches.drop_models() is False
    assert rig.run(second).ran == [], "what the last prompt uses stays"
    if keeps_others:
        assert rig.run(first).ran == [], "what was made with the models stays, and is all that is needed"
        more = {**first, "6": node("Clone", model=["2", 0]), "7": node("Look", value=["6", 0])}
        again = rig.run(more)
        assert again.ran == ["1", "2", "6", "7"]
        assert again.reasons["1"] == {"reason": "dropped", "why": "models"}


def test_a_prompt_that_reads_no_results_protects_none(registry):
    rig = budget_rig(GIGABYTE)
    rig.run({"1": node("Model", size=1), "3": node("Look", value=["1", 0])})
    dropped = []
    rig.add(Ask=make(lambda self: dropped.append(rig.executor.caches.drop_models()) or (1,), {}))
    rig.run({"1": node("Ask"), "3": node("Look", value=["1", 0])}, extra_data={"cache": "off"})
    assert dropped == [True]


def test_free_forgets_everything_and_stats_tell(rig):
    """Rule 72."""
    rig.run(sums(1))
    rig.run(sums(1))
    before = stats(rig)
    assert (before["entries"], before["drops"], before["hits"]) == (3, 0, 1)
    assert 3000 <= before["bytes"] < 6000 and before["budget"] > MEGABYTE
    rig.executor.reset()
    assert {**stats(rig), "budget": 0} == {
        "mode": "budget", "entries": 0, "bytes": 0, "budget": 0, "drops": 3, "hits": 1,
    }  # fmt: skip


# -- RAM pressure --------------------------------------------------------------------------------------------


class Machine:
    """A machine with 100 MB free for results and `other` programs. Injected in the place of the real one."""

    def __init__(self, total=100 * MEGABYTE):
        self.total = total
        self.other = 0
        self.held = lambda: 0

    def read(self):
        return Ram(self.total, self.total - self.other - self.held())


def pressure_rig(active, inactive, machine):
    gigabytes = [active * MEGABYTE / GIGABYTE, inactive * MEGABYTE / GIGABYTE]
    arguments = {"ram": gigabytes, "read_ram": machine.read}
    rig = Rig(cache_type=execution.CacheType.RAM_PRESSURE, cache_args=arguments)
    machine.held = lambda: stats(rig)["bytes"]
    add_large(rig)
    return rig


def test_while_ram_is_free_results_of_all_workflows_stay(registry):
    """Rule 70."""
    rig = pressure_rig(10, 20, Machine())
    rig.run(blob(30))
    rig.run(blob(30, 1))
    assert rig.run(blob(30)).ran == []


def test_results_of_other_workflows_go_below_the_second_threshold(registry):
    """Rule 70."""
    rig = pressure_rig(10, 20, Machine())
    for mark in range(3):
        rig.run(blob(30, mark))
    assert stats(rig)["bytes"] < 80 * MEGABYTE and rig.run(blob(30, 2)).ran == []
    again = rig.run({
        "1": node("Blob", size=30, mark=0), "2": node("Look", value=["1", 0], other=1),
        "3": node("Blob", size=30, mark=1), "4": node("Look", value=["3", 0], other=2),
    })  # fmt: skip
    assert sorted(again.why[i] for i in "13") == ["cached", "dropped"]


def test_pressure_of_other_programs_counts_and_is_noticed_with_the_next_prompt(registry):
    machine = Machine()
    rig = pressure_rig(10, 20, machine)
    rig.run(blob(30))
    rig.run(sums(1))
    machine.other = 60 * MEGABYTE
    rig.run(sums(2))
    assert stats(rig)["bytes"] < MEGABYTE


def test_below_the_first_threshold_results_of_the_running_prompt_go_too_and_break_nothing(registry):
    """Rules 70 and 71."""
    machine = Machine(total=40 * MEGABYTE)
    rig = pressure_rig(10, 20, machine)
    prompt = {
        "1": node("Blob", size=25), "2": node("Look", value=["1", 0]),
        "3": node("Blob", size=25, mark=1), "4": node("Look", value=["3", 0]),
    }  # fmt: skip
    first = rig.run(prompt)
    assert first.success and stats(rig)["bytes"] <= 30 * MEGABYTE
    looks = {"5": node("Look", value=["1", 0], other=1), "6": node("Look", value=["3", 0], other=1)}
    again = rig.run({**prompt, **looks})
    assert again.success and again.why["2"] == again.why["4"] == "cached"
    assert sorted((again.why["1"], again.why["3"])) == ["cached", "dropped"]


def test_thresholds_have_defaults_and_one_number_serves_both():
    """Rule 67."""
    machine = Machine(total=50 * GIGABYTE)
    limit = make_limit({"read_ram": machine.read}, pressure=True)
    assert limit.active_bytes == limit.inactive_bytes == 5 * GIGABYTE
    machine.total = 4 * GIGABYTE
    assert make_limit({"ram": [], "read_ram": machine.read}, pressure=True).active_bytes == 2 * GIGABYTE
    machine.total = 512 * GIGABYTE
    assert make_limit({"ram": None, "read_ram": machine.read}, pressure=True).active_bytes == 10 * GIGABYTE
    one, two = (make_limit({"ram": ram}, pressure=True) for ram in (3.0, [1, 2.5]))
    assert (one.active_bytes, one.inactive_bytes) == (3 * GIGABYTE, 3 * GIGABYTE)
    assert (two.active_bytes, two.inactive_bytes) == (GIGABYTE, 2.5 * GIGABYTE)


@pytest.mark.parametrize(("budget", "size"), [(1000, 1000), (0, 0), (0.5, 50), (None, 25)])
def test_a_budget_is_bytes_or_a_share_of_what_is_free(budget, size):
    assert budget_bytes(budget, lambda: Ram(1000, 100)) == size


# -- the ledger ----------------------------------------------------------------------------------------------


def test_the_ledger_survives_an_address_that_comes_back_with_another_size():
    ledger = Ledger()
    ledger.add(b"a", Kept(1, 0, {7: 100}))
    ledger.add(b"b", Kept(1, 0, {7: 300}))
    assert ledger.bytes == 302
    assert (ledger.remove(b"b"), ledger.remove(b"b"), ledger.remove(b"a"), ledger.bytes) == (1, 0, 301, 0)


def test_a_budget_drops_a_little_more_than_it_must():
    assert (Budget(100).others(100), Budget(100).others(101)) == (100, 95)

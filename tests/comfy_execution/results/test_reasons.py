"""Why each node ran, or did not: in the history and in the event `executing`."""

import itertools
from pathlib import Path

import pytest

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.results import reasons
from comfy_execution.results.reasons import PastRuns
from comfy_execution.results.signatures import Signatures
from tests.comfy_execution.rig import INT, Rig, execution, make, node

ANY = ("*", {})
CACHED, FORCED, NEVER_RAN = {"reason": "cached"}, {"reason": "forced"}, {"reason": "never ran"}


def graph(value=1, b=1, ids=("1", "2", "3"), **others):
    first, second, third = ids
    return {
        first: node("Number", value=value),
        second: node("Add", a=[first, 0], b=b, **others),
        third: node("Show", value=[second, 0]),
    }


def changed(*inputs, upstream=(), **more):
    return {"reason": "changed", "inputs": list(inputs), "upstream": list(upstream), **more}


def test_new_nodes_never_ran_and_known_ones_are_cached(rig):
    assert rig.run(graph()).reasons == dict.fromkeys("123", NEVER_RAN)
    assert rig.run(graph()).reasons == dict.fromkeys("123", CACHED)


def test_a_changed_node_names_its_inputs_and_the_next_one_names_it(rig):
    rig.run(graph())
    assert rig.run(graph(b=5)).reasons == {"1": CACHED, "2": changed("b"), "3": changed(upstream=["2"])}
    assert rig.run(graph(value=7, b=6)).reasons == {
        "1": changed("value"), "2": changed("b", upstream=["1"]), "3": changed(upstream=["2"]),
    }  # fmt: skip


@pytest.mark.parametrize("before", [{}, {"other": 1}])
def test_an_input_that_is_new_or_gone_is_changed(rig, before):
    after = {} if before else {"other": 1}
    rig.run(graph(**before))
    assert rig.run(graph(**after)).reasons["2"] == changed("other")


def test_another_link_is_a_changed_input_and_other_ids_alone_are_none(rig):
    rig.run(graph())
    prompt = graph(b=3)
    prompt["9"] = prompt.pop("1")
    prompt["2"]["inputs"]["a"] = ["9", 0]
    assert rig.run(prompt).reasons["2"] == changed("b")
    prompt["9"]["inputs"]["value"] = 4
    prompt["8"] = node("Number", value=5)
    prompt["2"]["inputs"]["a"] = ["8", 0]
    assert rig.run(prompt).reasons["2"] == changed("a")
    prompt["2"]["inputs"]["a"] = 5
    assert rig.run(prompt).reasons["2"] == changed("a")


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (-1, -2), ("a" * 1000, "a" * 999 + "b"), ([1, 2], [2, 1]), ({"a": 1}, {"a": 2}), (0.5, 0.25)],
)
def test_values_that_look_alike_are_told_apart(rig, one, other):
    rig.add(Takes=make(lambda self, value, same: (1,), {"value": ANY, "same": ANY}))

    def prompt(value):
        inputs = {"value": {"__value__": value} if isinstance(value, list) else value, "same": "x" * 500}
        return {"1": node("Takes", **inputs), "2": node("Show", value=["1", 0])}

    rig.run(prompt(one))
    assert rig.run(prompt(other)).reasons["1"] == changed("value")


def test_another_value_of_is_changed_is_named(rig):
    clock = itertools.count()
    rig.add(Clock=make(lambda self: (1,), {}, IS_CHANGED=classmethod(lambda cls: next(clock))))
    prompt = {"1": node("Clock"), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert rig.run(prompt).reasons == {"1": changed(is_changed=True), "2": changed(upstream=["1"])}


def test_what_never_equals_itself_is_changed_each_time(rig):
    rig.add(
        Nan=make(lambda self: (1,), {}, IS_CHANGED=classmethod(lambda cls: float("nan"))),
        Takes=make(lambda self, value: (1,), {"value": ANY}),
    )
    prompt = {
        "1": node("Nan"), "2": node("Show", value=["1", 0]),
        "3": node("Takes", value=object()), "4": node("Show", value=["3", 0]),
    }  # fmt: skip
    assert rig.run(prompt).why == dict.fromkeys("1234", "never ran")
    again = rig.run(prompt).reasons
    assert again["1"] == changed(is_changed=True) and again["3"] == changed("value")


def test_results_that_the_last_workflow_did_not_use_are_dropped_in_classic(registry):
    rig = Rig(cache_type=execution.CacheType.CLASSIC)
    rig.run(graph())
    rig.run({"1": node("Number", value=3), "9": node("Show", value=["1", 0])})
    assert rig.run(graph()).reasons == dict.fromkeys("123", {"reason": "dropped", "why": "workflow"})


def test_lru_drops_for_its_limit(registry):
    rig = Rig(cache_type=execution.CacheType.LRU, cache_args={"lru": 1})
    rig.run(graph())
    rig.run({"9": node("Show", value=0)})
    prompt = {**graph(ids=("5", "6", "3")), "7": node("Show", value=["6", 0], another=1)}
    assert rig.run(prompt).reasons["6"] == {"reason": "dropped", "why": "budget"}


def test_results_that_were_freed_say_so_also_under_other_ids(rig):
    rig.run(graph())
    rig.executor.reset()
    result = rig.run(graph(ids=("4", "5", "6")))
    assert result.reasons == dict.fromkeys("456", {"reason": "dropped", "why": "free"})


def test_a_result_that_was_not_stored_is_dropped_without_a_cause(rig):
    rig.run(graph(), extra_data={"cache": "off"})
    assert rig.run(graph()).reasons == dict.fromkeys("123", {"reason": "dropped"})


def test_forced_and_not_read_have_their_words(rig):
    rig.run(graph())
    assert rig.run(graph(), extra_data={"force": ["3"]}).reasons == {"1": CACHED, "2": CACHED, "3": FORCED}
    for cache in ("write", "off"):
        assert set(rig.run(graph(), extra_data={"cache": cache}).why.values()) == {"not read"}
    without = Rig(cache_type=execution.CacheType.NONE)
    assert without.run({"1": node("Show", value=1)}).why == {"1": "not read"}


def test_the_event_executing_carries_the_reason(rig):
    rig.run(graph())
    result = rig.run(graph(b=2))
    told = {data["node"]: data["reason"] for data in result.of("executing")}
    assert told == {"2": changed("b"), "3": changed(upstream=["2"])}


def test_nodes_of_an_expansion_have_their_reasons(rig):
    def twice(self, value):
        graph = GraphBuilder()
        first = graph.node("Add", a=value, b=1)
        second = graph.node("Add", a=first.out(0), b=2)
        return {"result": (second.out(0),), "expand": graph.finalize()}

    rig.add(Twice=make(twice, {"value": INT}))
    prompt = {"2": node("Twice", value=1), "3": node("Show", value=["2", 0])}
    assert set(rig.run(prompt).reasons) == {"2", "3", "2.0.0.1", "2.0.0.2"}
    prompt["2"]["inputs"]["value"] = 5
    again = rig.run(prompt).reasons
    assert again["2.0.0.1"] == changed("a") and again["2.0.0.2"] == changed(upstream=["2.0.0.1"])
    assert set(rig.run(prompt, extra_data={"force": ["2"]}).why.values()) == {"forced"}


# -- what is remembered --------------------------------------------------------------------------------------


def signatures_of(prompt):
    found = Signatures(DynamicPrompt(prompt, {"Number": make(None, {"value": INT})}), {})
    found.add(prompt)
    return found


def test_past_runs_are_remembered_up_to_a_limit_of_nodes_and_inputs():
    past, signatures = PastRuns(limit=4), signatures_of({name: node("Number", value=1) for name in "abc"})
    for name in "abc":
        past.note((name, "Number"), signatures)
    words = [past.why((name, "Number"), signatures)["reason"] for name in "abc"]
    assert words == ["never ran", "dropped", "dropped"]
    past.note(("c", "Number"), signatures)
    assert past.why(("b", "Number"), signatures)["reason"] == "dropped"


def test_causes_are_remembered_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(reasons, "REMEMBERED_DROPS", 1)
    past, signatures = PastRuns(), signatures_of({name: node("Number", value=name) for name in "ab"})
    past.note_drops(signatures.by_node.values(), "free")
    assert past.why(("a", "Number"), signatures) == NEVER_RAN
    assert past.why(("b", "Number"), signatures) == {"reason": "dropped", "why": "free"}


def test_the_page_about_force_explains_every_reason_and_cause():
    page = (Path(__file__).resolve().parents[3] / "docs/force.md").read_text(encoding="utf-8")
    words = [value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)]
    assert len(words) == 6
    assert [word for word in (*words, *reasons.DROP_CAUSES) if f"| `{word}` |" not in page] == []

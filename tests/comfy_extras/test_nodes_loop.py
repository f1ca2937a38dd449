"""Loops: what is between Start Loop and End Loop runs once per iteration, in order."""

import asyncio

import pytest

from comfy_extras import nodes_loop
from tests.comfy_execution.rig import Rig, make, node, nodes


@pytest.fixture
def rig():
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    rig = Rig()
    for one in asyncio.run(nodes_loop.comfy_entrypoint().get_node_list()):
        rig.add(**{one.GET_SCHEMA().node_id: one})
    rig.add(
        Twice=make(lambda self, value: ([value, str(value)],), {"value": ("*", {})}, returns=("*",),
                   OUTPUT_IS_LIST=(True,)),
        Same=make(lambda self, value: (value,), {"value": ("*", {})}, returns=("*",)),
        Save=make(save(rig), {"value": ("*", {})}, returns=("*",), OUTPUT_NODE=True),
    )  # fmt: skip
    yield rig
    nodes.NODE_CLASS_MAPPINGS.clear()
    nodes.NODE_CLASS_MAPPINGS.update(before)


def save(rig):
    def run(self, value):
        rig.note(("Save", value))
        return {"ui": {"text": [value]}, "result": (value,)}

    return run


def start(mode, **inputs):
    return node("StartLoop", **{"mode": mode, "cache_iterations": False, **inputs})


def simple(count, **inputs):
    return start("simple", **{"mode.num_iterations": count, **inputs})


def shown(rig, prompt):
    result = rig.run(prompt)
    assert result.success, result.failure
    return [value for name, *values in rig.calls if name == "Show" for value in values]


def added(rig):
    return [call[1] for call in rig.calls if call[0] == "Add"]


def powers(begin, **end):
    """Doubles what is carried in every iteration."""
    return {
        "one": node("Number", value=1),
        "start": begin,
        "twice": node("Add", a=["start", 4], b=["start", 4]),
        "end": node("EndLoop", output_value=["twice", 0], next_iteration_value=["twice", 0], **end),
        "show": node("Show", value=["end", 0]),
    }


@pytest.mark.parametrize(("count", "accumulate", "found"), [
    (1, False, [2]), (3, False, [8]), (3, True, [2, 4, 8]),
])  # fmt: skip
def test_a_value_is_carried_from_one_iteration_to_the_next(rig, count, accumulate, found):
    prompt = powers(simple(count, initial_iteration_value=["one", 0]), accumulate=accumulate)
    assert shown(rig, prompt) == found
    assert added(rig) == [1, 2, 4][:count], "each iteration runs once"


def test_the_count_may_come_from_a_node(rig):
    prompt = powers(simple(["count", 0], initial_iteration_value=["one", 0]), accumulate=False)
    assert shown(rig, {"count": node("Number", value=5), **prompt}) == [32]


def test_without_iterations_nothing_in_the_loop_runs(rig):
    prompt = powers(simple(0, initial_iteration_value=["one", 0]), accumulate=True)
    assert shown(rig, prompt) == [] and added(rig) == []


def loop_over(slot, begin, **more):
    """Takes an output of Start Loop, and gathers what comes."""
    return {
        "start": begin,
        "add": node("Same", value=["start", slot]),
        "end": node("EndLoop", output_value=["add", 0], accumulate=True),
        "show": node("Show", value=["end", 0]),
        **more,
    }


@pytest.mark.parametrize(("slot", "found"), [
    (0, [3, 5, 7]), (1, [True, False, False]), (2, [False, False, True]),
])  # fmt: skip
def test_iterations_are_numbered(rig, slot, found):
    numbers = {"mode.start_iteration_index": 3, "mode.max_iteration": 9, "mode.step": 2}
    assert shown(rig, loop_over(slot, start("For", **numbers))) == found


def test_a_loop_over_a_list_gets_its_items(rig):
    assert shown(
        rig, loop_over(3, start("List", **{"mode.list": ["range", 0]}), range=node("Range", value=4))
    ) == [0, 1, 2, 3]


def test_a_loop_inside_of_another_runs_again_for_each_of_its_iterations(rig):
    prompt = {
        "zero": node("Number", value=0),
        "outer": simple(2, initial_iteration_value=["zero", 0]),
        "inner": simple(3, parent_iteration=["outer", 0], initial_iteration_value=["outer", 4]),
        "add": node("Add", a=["inner", 4], b=1),
        "inner end": node(
            "EndLoop", output_value=["add", 0], next_iteration_value=["add", 0], accumulate=False
        ),
        "outer end": node(
            "EndLoop", output_value=["inner end", 0], next_iteration_value=["inner end", 0], accumulate=True
        ),
        "show": node("Show", value=["outer end", 0]),
    }
    assert shown(rig, prompt) == [3, 6]
    assert added(rig) == [0, 1, 2, 3, 4, 5]


def test_an_inner_loop_may_use_the_number_of_the_outer_one(rig):
    prompt = {
        "outer": simple(2),
        "inner": simple(2, parent_iteration=["outer", 0]),
        "ten": node("Add", a=["inner", 0], b=["outer", 0]),
        "inner end": node("EndLoop", output_value=["ten", 0], accumulate=True),
        "outer end": node("EndLoop", output_value=["inner end", 0], accumulate=True),
        "show": node("Show", value=["outer end", 0]),
    }
    assert shown(rig, prompt) == [0, 1, 1, 2]


def test_what_ends_in_a_termination_is_saved_in_every_iteration(rig):
    prompt = {
        "start": simple(3),
        "add": node("Add", a=["start", 0], b=10),
        "save": node("Save", value=["add", 0]),
        "end": node("EndLoop", **{"accumulate": False, "terminations.termination0": ["save", 0]}),
        "show": node("Show", value=["end", 0]),
    }
    rig.run(prompt)
    assert [call[1] for call in rig.calls if call[0] == "Save"] == [10, 11, 12]


def test_lists_of_several_iterations_follow_one_another(rig):
    prompt = loop_over(0, simple(2))
    prompt["add"] = node("Twice", value=["start", 0])
    assert shown(rig, prompt) == [0, "0", 1, "1"]


def test_loops_after_one_another_are_told_apart(rig):
    prompt = powers(simple(2, initial_iteration_value=["one", 0]), accumulate=False) | {
        "second": simple(3, initial_iteration_value=["end", 0]),
        "more": node("Add", a=["second", 4], b=1),
        "second end": node(
            "EndLoop", output_value=["more", 0], next_iteration_value=["more", 0], accumulate=True
        ),
        "show": node("Show", value=["second end", 0]),
    }
    assert shown(rig, prompt) == [5, 6, 7]


@pytest.mark.parametrize(("reuse", "again"), [(False, 3), (True, 0)])
def test_iterations_are_taken_from_earlier_runs_if_wished(rig, reuse, again):
    prompt = powers(simple(3, initial_iteration_value=["one", 0], cache_iterations=reuse), accumulate=True)
    rig.run(prompt)
    rig.run(prompt)
    assert len(added(rig)) == again


def test_a_change_inside_of_the_loop_is_seen(rig):
    begin = simple(3, initial_iteration_value=["one", 0], cache_iterations=True)
    assert shown(rig, powers(begin, accumulate=True)) == [2, 4, 8]
    changed = powers(begin, accumulate=True)
    changed["twice"]["inputs"]["b"] = 10
    assert shown(rig, changed) == [11, 21, 31]


@pytest.mark.parametrize(("ends", "message"), [
    (["a", "b"], "2 Start Loops"), ([], "0 Start Loops"),
])  # fmt: skip
def test_an_end_without_one_beginning_is_an_error(rig, ends, message):
    inputs = dict(zip(("output_value", "next_iteration_value"), ([end, 0] for end in ends), strict=False))
    prompt = {"a": simple(2), "b": simple(2), "end": node("EndLoop", accumulate=False, **inputs)}
    failure = rig.run({**prompt, "show": node("Show", value=["end", 0])}).failure
    assert message in failure["exception_message"] and "parent_iteration" in failure["exception_message"]


def test_a_step_that_leads_nowhere_is_refused():
    with pytest.raises(ValueError, match="step is 0. It must be 1 or more"):
        nodes_loop.positions({"mode": ["For"], "step": [0]})

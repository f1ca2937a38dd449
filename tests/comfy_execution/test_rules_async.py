"""Asynchronous nodes, and the context a node runs in."""

import asyncio
import time

import pytest

import comfy.interruption
from comfy_execution.graph_utils import GraphBuilder
from tests.comfy_execution.rig import INT, execution, get_executing_context, make, node

ANY = ("*", {})


def add_sleeper(rig, **attributes):
    """ "Sleep" gives its value after a while and notes when it begins and ends."""

    async def run(self, seconds, value):
        rig.note(("begin", value))
        await asyncio.sleep(seconds)
        rig.note(("end", value))
        return (value,)

    rig.add(Sleep=make(run, {"seconds": ("FLOAT", {}), "value": ANY}, returns=("*",), **attributes))


def test_asynchronous_nodes_overlap(rig):
    add_sleeper(rig)
    prompt = {str(i): node("Sleep", seconds=0.2, value=i) for i in (1, 2)}
    prompt.update({f"show{i}": node("Show", value=[str(i), 0]) for i in (1, 2)})
    result = rig.run(prompt)
    assert result.outputs == {"show1": {"text": [1]}, "show2": {"text": [2]}}
    assert [call[0] for call in rig.calls[:2]] == ["begin", "begin"]


def test_calls_of_one_node_overlap(rig):
    add_sleeper(rig)
    result = rig.run(
        {
            "0": node("Range", value=3),
            "1": node("Sleep", seconds=0.2, value=["0", 0]),
            "2": node("Show", value=["1", 0]),
        }
    )
    assert [call[0] for call in rig.calls[:3]] == ["begin", "begin", "begin"]
    assert result.outputs["2"] == {"text": [0, 1, 2]}


def test_synchronous_nodes_go_on_while_an_asynchronous_one_waits(rig):
    add_sleeper(rig)
    result = rig.run(
        {
            "1": node("Sleep", seconds=0.1, value=1),
            "2": node("Show", value=["1", 0]),
            "3": node("Number", value=5),
            "4": node("Show", value=["3", 0]),
        }
    )
    assert result.ran.index("4") < result.ran.index("2")


def test_an_asynchronous_node_that_never_waits_is_done_at_once(rig):
    async def run(self, value):
        return (value,)

    rig.add(Quick=make(run, {"value": INT}))
    result = rig.run({"1": node("Quick", value=3), "2": node("Show", value=["1", 0])})
    assert result.ran == ["1", "2"]
    assert result.outputs["2"] == {"text": [3]}


def test_a_failing_call_fails_its_node_and_ends_the_prompt(rig):
    async def fails(self):
        await asyncio.sleep(0.01)
        raise ValueError("late")

    add_sleeper(rig)
    rig.add(Fails=make(fails, {}, returns=(), OUTPUT_NODE=True))
    start = time.perf_counter()
    result = rig.run(
        {"1": node("Fails"), "2": node("Sleep", seconds=30.0, value=1), "3": node("Show", value=["2", 0])}
    )
    assert time.perf_counter() - start < 5
    assert (result.failure["node_id"], result.failure["exception_message"]) == ("1", "late\n")
    assert ("end", 1) not in rig.calls


def test_a_node_fails_once_all_its_calls_have_ended(rig):
    async def run(self, value):
        await asyncio.sleep(0.02 * value)
        rig.note(value)
        if value == 1:
            raise ValueError("one of them")
        return (value,)

    rig.add(Some=make(run, {"value": INT}, returns=(), OUTPUT_NODE=True))
    result = rig.run({"0": node("Range", value=4), "1": node("Some", value=["0", 0])})
    assert result.failure["exception_message"] == "one of them\n"
    assert rig.calls == [0, 1, 2, 3]


def test_waiting_for_asynchronous_nodes_can_be_interrupted(rig):
    async def run(self):
        asyncio.get_running_loop().call_later(0.05, comfy.interruption.interrupt_current_processing)
        await asyncio.sleep(30)

    rig.add(Forever=make(run, {}, returns=(), OUTPUT_NODE=True))
    start = time.perf_counter()
    result = rig.run({"1": node("Forever")})
    assert time.perf_counter() - start < 5
    (interrupted,) = result.of("execution_interrupted")
    assert (interrupted["node_id"], interrupted["node_type"]) == ("1", "Forever")


def test_an_interruption_inside_an_asynchronous_node(rig):
    async def run(self):
        await asyncio.sleep(0.01)
        raise comfy.interruption.InterruptProcessingException()

    rig.add(Stops=make(run, {}, returns=(), OUTPUT_NODE=True))
    assert rig.run({"1": node("Stops")}).of("execution_interrupted")


@pytest.mark.parametrize("is_async", [False, True])
def test_nodes_know_the_context_they_run_in(rig, is_async):
    seen = []

    async def slow(self, value):
        await asyncio.sleep(0.01)
        seen.append(get_executing_context())
        return {}

    def quick(self, value):
        seen.append(get_executing_context())
        return {}

    rig.add(Looks=make(slow if is_async else quick, {"value": INT}, returns=(), OUTPUT_NODE=True))
    rig.run({"0": node("Range", value=2), "1": node("Looks", value=["0", 0])})
    assert seen == [("prompt-1", "1", 0), ("prompt-1", "1", 1)]
    assert get_executing_context() is None


def test_graphs_that_are_built_side_by_side_have_their_own_ids(rig):
    async def grow(self, value):
        await asyncio.sleep(0.01)
        graph = GraphBuilder()
        return {"result": (graph.node("Add", a=value, b=1).out(0),), "expand": graph.finalize()}

    rig.add(Grow=make(grow, {"value": ANY}))
    prompt = {str(i): node("Grow", value=i) for i in (1, 2)}
    prompt.update({f"show{i}": node("Show", value=[str(i), 0]) for i in (1, 2)})
    result = rig.run(prompt)
    assert result.outputs == {"show1": {"text": [2]}, "show2": {"text": [3]}}
    assert {"1.0.0.1", "2.0.0.1"} <= set(result.ran)


def test_the_ui_of_an_asynchronous_output_is_shown(rig):
    async def run(self, value):
        await asyncio.sleep(0.01)
        return {"ui": {"text": [value]}}

    rig.add(Late=make(run, {"value": INT}, returns=(), OUTPUT_NODE=True))
    assert rig.run({"1": node("Late", value=4)}).outputs == {"1": {"text": [4]}}


def test_results_keep_the_order_of_calls_not_of_their_ends(rig):
    async def run(self, value):
        await asyncio.sleep(0.03 - 0.01 * value)
        return (value,)

    rig.add(Turned=make(run, {"value": INT}))
    result = rig.run(
        {
            "0": node("Range", value=3),
            "1": node("Turned", value=["0", 0]),
            "2": node("Show", value=["1", 0]),
        }
    )
    assert result.outputs["2"] == {"text": [0, 1, 2]}


def test_a_second_run_of_asynchronous_nodes_is_cached(rig):
    add_sleeper(rig)
    prompt = {"1": node("Sleep", seconds=0.01, value=1), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert rig.run(prompt).ran == []
    assert execution.get_output_from_returns([(1,)], prompt_class()) == ([[1]], {}, False)


def prompt_class():
    return make(lambda self: None, {})

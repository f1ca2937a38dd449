"""Errors of nodes, interruption, and what the host is told."""

import asyncio
import re
import sys
import types
from contextlib import contextmanager

import pytest

import comfy.interruption
from tests.comfy_execution.rig import INT, Rig, execution, make, node

INTERRUPT = comfy.interruption.interrupt_current_processing


def raises(error):
    def run(self, **values):
        raise error

    return run


class Strange:
    """A value whose text cannot be had."""

    def __str__(self):
        raise RuntimeError("no text")


def test_the_first_failing_node_ends_the_prompt(rig):
    rig.add(Fails=make(raises(ValueError("wrong")), {"a": INT}))
    result = rig.run(
        {"1": node("Number", value=4), "2": node("Fails", a=["1", 0]), "3": node("Show", value=["2", 0])}
    )
    assert not result.success
    failure = result.failure
    assert failure.pop("timestamp") > 1e12
    assert any("raise error" in line for line in failure.pop("traceback"))
    assert failure == {
        "prompt_id": "prompt-1",
        "node_id": "2",
        "node_type": "Fails",
        "executed": ["1"],
        "exception_message": "wrong\n",
        "exception_type": "ValueError",
        "current_inputs": {"a": [4]},
        "current_outputs": ["1"],
    }
    assert [event for event, _ in result.messages] == [
        "execution_start",
        "execution_cached",
        "execution_error",
    ]


def test_inputs_are_shown_as_text_even_when_they_have_none(rig):
    rig.add(
        Odd=make(lambda self: ([Strange(), b"x"],), {}, returns=("*",), OUTPUT_IS_LIST=(True,)),
        Fails=make(raises(KeyError("k")), {"a": ("*", {})}, returns=(), OUTPUT_NODE=True),
    )
    result = rig.run({"1": node("Odd"), "2": node("Fails", a=["1", 0])})
    assert result.failure["current_inputs"] == {"a": ["<Strange: no text>", "b'x'"]}


class GPUIsFull(RuntimeError):
    """Stands for torch's error, which these tests do without."""


@pytest.mark.parametrize(
    ("error", "full"), [(GPUIsFull("full"), "GPU"), (RuntimeError("alloc_cpu: full"), "machine")]
)
def test_out_of_memory_unloads_the_models_and_gives_advice(rig, monkeypatch, error, full):
    unloaded = []
    management = types.SimpleNamespace(
        OOM_EXCEPTION=GPUIsFull,
        is_oom=lambda error: str(error).endswith("full"),
        unload_all_models=lambda: unloaded.append(1),
    )
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    rig.add(Fails=make(raises(error), {}, returns=(), OUTPUT_NODE=True))
    message = rig.run({"1": node("Fails")}).failure["exception_message"]
    assert f"{full} has no memory left" in message
    assert unloaded == [1]


def test_a_sampler_with_the_wrong_text_encoder_gets_a_hint(rig):
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    rig.add(
        MySampler=make(raises(error), {}, returns=(), OUTPUT_NODE=True),
        Other=make(raises(error), {}, returns=(), OUTPUT_NODE=True),
    )
    assert "text encoder" in rig.run({"1": node("MySampler")}).failure["exception_message"]
    assert "text encoder" not in rig.run({"1": node("Other")}).failure["exception_message"]


def test_interruption_cannot_be_swallowed_by_a_node(rig):
    def run(self):
        INTERRUPT()
        try:
            comfy.interruption.throw_exception_if_processing_interrupted()
        except Exception:
            rig.note("swallowed")
        return {}

    rig.add(Stubborn=make(run, {}, returns=(), OUTPUT_NODE=True))
    result = rig.run({"1": node("Stubborn")})
    assert rig.calls == []
    assert not result.success
    (interrupted,) = result.of("execution_interrupted")
    assert {k: interrupted[k] for k in ("prompt_id", "node_id", "node_type", "executed")} == {
        "prompt_id": "prompt-1",
        "node_id": "1",
        "node_type": "Stubborn",
        "executed": [],
    }
    assert result.failure is None


def test_interruption_is_told_even_without_a_client(rig):
    rig.add(
        Stops=make(
            raises(comfy.interruption.InterruptProcessingException()), {}, returns=(), OUTPUT_NODE=True
        )
    )
    assert rig.run({"1": node("Stops")}, client=None).of("execution_interrupted")


def test_an_old_wish_to_interrupt_does_not_touch_the_next_prompt(rig):
    INTERRUPT()
    assert rig.run({"1": node("Show", value=1)}).success


def test_the_last_state_of_a_failed_node_is_sent(rig):
    rig.add(Fails=make(raises(ValueError("x")), {}, returns=(), OUTPUT_NODE=True))
    last = rig.run({"1": node("Fails")}).of("progress_state")[-1]
    assert last["nodes"]["1"]["state"] == "error"


def test_a_failure_outside_of_nodes_ends_the_prompt_and_not_the_worker(rig, monkeypatch):
    def poisoned(self, node_id):
        raise RuntimeError("poisoned entry")

    with monkeypatch.context() as patch:
        patch.setattr(type(rig.executor.caches.outputs), "get_local", poisoned)
        result = rig.run({"1": node("Number", value=1), "2": node("Show", value=["1", 0])})
    assert not result.success
    assert result.failure["exception_message"].startswith("poisoned entry")
    assert result.failure["exception_type"] == "RuntimeError"
    assert (result.failure["node_id"], result.failure["node_type"]) == ("2", "Show")
    assert rig.run({"1": node("Show", value=1)}).success


def test_a_link_to_nowhere_that_validation_did_not_see_is_an_error_of_the_prompt(rig):
    rig.add(Takes=make(lambda self, **all: {}, {}, returns=(), OUTPUT_NODE=True))
    result = rig.run({"1": node("Takes", extra=["gone", 0])})
    assert "Node gone is not in the graph" in result.failure["exception_message"]


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
@pytest.mark.parametrize("kind", ["plain", "async", "late"])
def test_a_node_that_ends_the_program_ends_only_its_prompt(rig, error, kind):
    async def in_time(self):
        raise error

    async def late(self):
        await asyncio.sleep(0.01)
        raise error

    rig.add(
        Ends=make(
            {"plain": raises(error), "async": in_time, "late": late}[kind], {}, returns=(), OUTPUT_NODE=True
        )
    )
    failure = rig.run({"1": node("Ends")}).failure
    assert failure["exception_type"] == "comfy_execution.errors.NodeEndedError"
    assert re.search("ended itself with|own task was cancelled", failure["exception_message"])
    assert rig.run({"1": node("Show", value=1)}).success


def test_the_environment_surrounds_the_nodes(registry):
    inside = []

    @contextmanager
    def environment():
        inside.append("in")
        yield
        inside.append("out")

    rig = Rig(environment=environment)
    rig.add(Looks=make(lambda self: inside.append("node") or {}, {}, returns=(), OUTPUT_NODE=True))
    rig.run({"1": node("Looks")})
    assert inside == ["in", "node", "out"]


def test_an_environment_that_fails_is_an_error_of_the_prompt(registry):
    def environment():
        raise ImportError("no torch")

    result = Rig(environment=environment).run({"1": node("Show", value=1)})
    assert result.failure["exception_type"] == "ImportError"
    assert result.failure["node_id"] == "1"


def test_events_come_in_the_order_that_clients_know(rig):
    result = rig.run({"1": node("Number", value=1), "2": node("Show", value=["1", 0])})
    seen = []
    for event, data, _ in result.sent:
        if event == "progress_state":
            seen.append((event, {k: v["state"] for k, v in data["nodes"].items()}))
        else:
            seen.append((event, data.get("node")))
    assert seen == [
        ("execution_start", None),
        ("execution_cached", None),
        ("progress_state", {"1": "running"}),
        ("executing", "1"),
        ("progress_state", {"1": "finished"}),
        ("progress_state", {"2": "running"}),
        ("executing", "2"),
        ("executed", "2"),
        ("progress_state", {"2": "finished"}),
        ("execution_success", None),
    ]
    assert {sid for _, _, sid in result.sent} == {"client"}
    assert rig.host.last_node_id is None


def test_without_a_client_only_progress_is_sent_and_to_all(rig):
    result = rig.run({"1": node("Show", value=1)}, client=None)
    assert {(event, sid) for event, _, sid in result.sent} == {("progress_state", None)}


def test_the_executor_works_inside_a_running_loop(rig):
    prompt = {"1": node("Show", value=1)}
    asyncio.run(rig.executor.execute_async(prompt, "p", {}, ["1"]))
    assert rig.executor.history_result["outputs"] == {"1": {"text": [1]}}


@pytest.mark.parametrize(
    ("klass", "name"),
    [
        (ValueError, "ValueError"),
        (execution.PromptExecutor, "execution.PromptExecutor"),
    ],
)
def test_names_of_exception_types(klass, name):
    assert execution.full_type_name(klass) == name

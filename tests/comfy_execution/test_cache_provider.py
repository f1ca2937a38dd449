"""Rule 74: results from outside, by providers that node packs register."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import comfy.interruption
from comfy_execution import cache_provider
from comfy_execution.cache_provider import (
    CacheProvider,
    CacheValue,
    register_cache_provider,
    registered_providers,
    unregister_cache_provider,
)
from comfy_execution.graph_utils import GraphBuilder
from tests.comfy_execution.rig import INT, Rig, execution, make, node

ROOT = Path(__file__).resolve().parents[2]


class Files(CacheProvider):
    """Keeps results as JSON in a folder, and notes what it was asked."""

    def __init__(self, folder):
        self.folder = folder
        self.asked, self.stored, self.prompts = [], [], []

    def _file(self, context):
        return self.folder / f"{context.class_type}-{context.cache_key_hash}.json"

    async def on_lookup(self, context):
        self.asked.append(context.node_id)
        file = self._file(context)
        return CacheValue(**json.loads(file.read_text())) if file.exists() else None

    async def on_store(self, context, value):
        await asyncio.sleep(0.01)
        self.stored.append(context.node_id)
        self._file(context).write_text(json.dumps({"outputs": value.outputs, "ui": value.ui}))

    def on_prompt_start(self, prompt_id):
        self.prompts.append(("start", prompt_id, sorted(self.stored)))

    def on_prompt_end(self, prompt_id):
        self.prompts.append(("end", prompt_id, sorted(self.stored)))


@pytest.fixture(autouse=True)
def no_providers(monkeypatch):
    monkeypatch.setattr(cache_provider, "_providers", ())


@pytest.fixture
def files(tmp_path):
    provider = Files(tmp_path)
    register_cache_provider(provider)
    return provider


def graph(value=1, ids=("1", "2", "3")):
    a, b, c = ids
    return {a: node("Number", value=value), b: node("Add", a=[a, 0]), c: node("Show", value=[b, 0])}


def test_results_are_found_by_a_new_executor_and_nothing_runs(files):
    first = Rig().run(graph())
    assert sorted(files.stored) == ["1", "2", "3"]
    second = Rig().run(graph(ids=("7", "8", "9")))
    assert second.ran == [] and second.outputs == {"9": {"text": [2]}} == {"9": first.outputs["3"]}
    assert second.reasons == {"9": {"reason": "cached"}} and second.cached == ["9"]
    assert second.of("executed")[0]["node"] == "9" and second.meta["9"]["node_id"] == "9"


def test_a_result_from_outside_makes_what_is_above_it_unnecessary(files):
    Rig().run(graph())
    files.asked.clear()
    result = Rig().run({**graph(), "3": node("Show", value=["2", 0], another=1)})
    assert result.ran == ["3"] and files.asked == ["3", "2"]


def test_it_is_asked_only_for_what_is_not_here(files):
    rig = Rig()
    rig.run(graph())
    files.asked.clear()
    rig.run(graph())
    assert files.asked == []


def test_what_came_from_outside_is_kept_here(files):
    Rig().run(graph())
    rig = Rig()
    rig.run(graph())
    files.asked.clear()
    assert rig.run(graph()).ran == [] and files.asked == []


def test_prompts_are_announced_and_end_when_their_results_are_stored(files):
    Rig().run(graph())
    assert files.prompts == [("start", "prompt-1", []), ("end", "prompt-1", ["1", "2", "3"])]


def test_a_prompt_that_fails_ends_too_and_what_had_finished_is_stored(files):
    rig = Rig()
    rig.add(Bad=make(lambda self, value: 1 / 0, {"value": INT}, returns=(), OUTPUT_NODE=True))
    assert not rig.run({"1": node("Number", value=1), "2": node("Bad", value=["1", 0])}).success
    assert files.stored == ["1"] and files.prompts[-1] == ("end", "prompt-1", ["1"])


def test_keys_without_stable_content_are_never_offered(files):
    rig = Rig()
    rig.add(Nan=make(lambda self: (1,), {}, IS_CHANGED=classmethod(lambda cls: float("nan"))))
    prompt = {
        "1": node("Nan"), "2": node("Add", a=["1", 0]), "3": node("Show", value=["2", 0]),
        "4": node("Show", value=7),
    }  # fmt: skip
    assert rig.run(prompt).success
    assert files.asked == ["4"] and files.stored == ["4"]


def test_nodes_inside_expansions_are_not_offered(files):
    def twice(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Add", a=value).out(0),), "expand": graph.finalize()}

    rig = Rig()
    rig.add(Twice=make(twice, {"value": INT}))
    prompt = {"2": node("Twice", value=1), "3": node("Show", value=["2", 0])}
    rig.run(prompt)
    assert sorted(files.stored) == ["2", "3"] and set(files.asked) == {"2", "3"}
    assert Rig().run(prompt).ran == []


def test_lazy_inputs_are_asked_for_when_the_node_wants_them(files):
    rig = Rig()
    rig.add(
        Either=make(
            lambda self, first, a=None, b=None: (a if first else b,),
            {"first": ("BOOLEAN", {}), "a": ("INT", {"lazy": True}), "b": ("INT", {"lazy": True})},
            check_lazy_status=lambda self, first, a=None, b=None: ["a" if first else "b"],
        )
    )
    prompt = {
        "1": node("Number", value=1), "2": node("Number", value=2),
        "3": node("Either", first=True, a=["1", 0], b=["2", 0]), "4": node("Show", value=["3", 0]),
    }  # fmt: skip
    Rig().run({"1": node("Number", value=1), "4": node("Show", value=["1", 0])})
    files.asked.clear()
    result = rig.run(prompt)
    assert result.outputs["4"] == {"text": [1]} and ("Number", 1) not in rig.calls
    assert files.asked == ["4", "3", "1"]


@pytest.mark.parametrize(
    ("fields", "asked", "stored"),
    [({"force": ["2"]}, ["1"], ["2", "3"]), ({"force": True}, [], ["1", "2", "3"]),
     ({"cache": "write"}, [], ["1", "2", "3"]), ({"cache": "off"}, [], [])],
)  # fmt: skip
def test_force_and_cache_of_the_request_hold_for_results_from_outside(files, fields, asked, stored):
    Rig().run(graph())
    files.asked.clear()
    files.stored.clear()
    assert Rig().run(graph(), extra_data=fields).success
    assert (files.asked, sorted(files.stored)) == (asked, stored)


def test_should_cache_is_asked_before_a_lookup_and_with_the_value_before_a_store(files):
    calls = []

    def should_cache(context, value=None):
        calls.append((context.node_id, None if value is None else value.outputs))
        return context.class_type != "Add"

    files.should_cache = should_cache
    Rig().run(graph())
    assert ("1", None) in calls and ("1", [[1]]) in calls and ("2", [[2]]) in calls
    assert sorted(files.stored) == ["1", "3"] and sorted(files.asked) == ["1", "3"]


class Broken(CacheProvider):
    """Fails at everything."""

    def _fail(self, *arguments):
        raise RuntimeError("no connection")

    async def on_lookup(self, context):
        self._fail()

    async def on_store(self, context, value):
        self._fail()

    on_prompt_start = on_prompt_end = _fail


class Odd(Broken):
    """Answers with things that are no results."""

    answers = [5, CacheValue("text"), CacheValue([1]), CacheValue([[1]], {"text": 1}), CacheValue(None)]

    async def on_lookup(self, context):
        return self.answers[len(context.node_id) % 5]


@pytest.mark.parametrize("provider", [Broken(), Odd()])
def test_exceptions_of_a_provider_are_only_logged_and_the_next_one_is_asked(tmp_path, caplog, provider):
    register_cache_provider(provider)
    register_cache_provider(Files(tmp_path))
    ids = ("1", "22", "333")
    assert Rig().run(graph(ids=ids)).success
    again = Rig().run(graph(ids=ids))
    assert again.success and again.ran == []
    for method in ("on_lookup", "on_store", "on_prompt_start", "on_prompt_end"):
        assert f"{method} of the cache provider {type(provider).__name__} failed" in caplog.text


def test_a_slow_provider_holds_up_no_asynchronous_node(tmp_path):
    """While a lookup for a lazy input is under way, an asynchronous node that runs goes on."""
    times = {}

    class Slow(CacheProvider):
        async def on_lookup(self, context):
            if context.class_type == "Number":
                await asyncio.sleep(0.3)
                times["looked up"] = time.perf_counter()

        async def on_store(self, context, value):
            await asyncio.sleep(0.2)
            times.setdefault("stored", time.perf_counter())

    async def ticks(self):
        await asyncio.sleep(0.05)
        times["ticked"] = time.perf_counter()
        return (1,)

    rig = Rig()
    rig.add(
        Ticks=make(ticks, {}),
        Wants=make(
            lambda self, a=None: (a,), {"a": ("INT", {"lazy": True})},
            check_lazy_status=lambda self, a=None: ["a"],
        ),
    )
    register_cache_provider(Slow())
    result = rig.run({
        "1": node("Ticks"), "2": node("Show", value=["1", 0]),
        "3": node("Number", value=3), "4": node("Wants", a=["3", 0]), "5": node("Show", value=["4", 0]),
    })  # fmt: skip
    assert result.success and times["ticked"] < times["looked up"]
    assert times["ticked"] < times["stored"]


def test_a_provider_that_never_answers_can_be_interrupted(tmp_path):
    class Hangs(CacheProvider):
        async def on_lookup(self, context):
            threading.Timer(0.05, comfy.interruption.interrupt_current_processing).start()
            await asyncio.Event().wait()

        async def on_store(self, context, value):
            pass

    register_cache_provider(Hangs())
    result = Rig().run(graph())
    assert not result.success and result.of("execution_interrupted") and result.ran == []


def test_a_provider_that_never_stores_is_given_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(cache_provider, "SECONDS_FOR_STORES", 0.05)

    class Hangs(CacheProvider):
        async def on_lookup(self, context):
            return None

        async def on_store(self, context, value):
            await asyncio.Event().wait()

    register_cache_provider(Hangs())
    assert Rig().run(graph()).success
    assert "Cache providers had not stored 3 results" in caplog.text


def test_without_signatures_providers_are_not_asked(files):
    Rig(cache_type=execution.CacheType.NONE).run(graph())
    assert files.asked == files.stored == files.prompts == []


def test_registering_twice_or_unregistering_a_stranger_is_said(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    one, other = Files(tmp_path), Files(tmp_path)
    register_cache_provider(one)
    register_cache_provider(one)
    assert registered_providers() == (one,) and "Files is registered already" in caplog.text
    unregister_cache_provider(other)
    assert registered_providers() == (one,) and "Files is not registered" in caplog.text
    unregister_cache_provider(one)
    assert registered_providers() == ()


def test_hashes_are_the_same_in_every_process(files):
    """They name results on a disk or in a database that other processes read."""
    prompt = {
        "1": node("Number", value=-1.5), "2": node("Add", a=["1", 0], b={"x": [1, None, True, "ü"]}),
    }  # fmt: skip
    code = (
        "import json, sys\n"
        "from comfy_execution.cache_provider import key_hash\n"
        "from comfy_execution.dynamic_prompt import DynamicPrompt\n"
        "from comfy_execution.results.signatures import Signatures\n"
        "kind = type('C', (), {'INPUT_TYPES': classmethod(lambda cls: {}), 'FUNCTION': 'f', 'f': print})\n"
        "prompt = json.loads(sys.argv[1])\n"
        "found = Signatures(DynamicPrompt(prompt, {'Number': kind, 'Add': kind}), {})\n"
        "found.add(prompt)\n"
        "print(json.dumps([key_hash(found.by_node[i]) for i in prompt]))\n"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(prompt)], cwd=ROOT, check=True, capture_output=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert answers[0] == answers[1]
    hashes = json.loads(answers[0])
    assert len({*hashes}) == 2 and all(len(one) == 64 and int(one, 16) for one in hashes)

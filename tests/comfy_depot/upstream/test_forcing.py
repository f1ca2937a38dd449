"""Forced nodes have another signature in upstream's cache, and their results are found afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_depot import hooks
from comfy_depot.upstream import core, forcing, running

Inner = dict[str, tuple[str, dict[str, Any]]]
"""{node id: (the node that expanded into it, it)}"""


class Plain:
    OUTPUT_NODE = False


class Output:
    OUTPUT_NODE = True


class Graph:
    """What upstream's DynamicPrompt has: the prompt, and nodes that others have expanded into."""

    def __init__(self, prompt: dict[str, Any], inner: Inner | None = None) -> None:
        self.nodes = {**prompt, **{node_id: node for node_id, (_, node) in (inner or {}).items()}}
        self.parents = {node_id: parent for node_id, (parent, _) in (inner or {}).items()}

    def get_node(self, node_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.nodes[node_id]
        return found

    def get_parent_node_id(self, node_id: str) -> str | None:
        return self.parents.get(node_id)


class Cache:
    """Upstream's IsChangedCache before July 2025: it answers at once, and memoises twice."""

    def __init__(self, graph: Graph, answer: Any = False) -> None:
        self.dynprompt, self.answer, self.is_changed = graph, answer, {}

    @hooks.forces_nodes
    def get(self, node_id: str) -> Any:
        if node_id not in self.is_changed:
            self.is_changed[node_id] = self.dynprompt.get_node(node_id)["is_changed"] = self.answer
        return self.is_changed[node_id]


class LaterCache(Cache):
    """The same since then."""

    @hooks.forces_nodes
    async def get(self, node_id: str) -> Any:  # type: ignore[override]
        await asyncio.sleep(0)
        return Cache.get.__wrapped__(self, node_id)  # type: ignore[attr-defined]


class Executor:
    """Upstream's PromptExecutor, as far as a run leaves traces in it."""

    act: Callable[[], None]

    def __init__(self, *, success: bool = True, executed: Any = ()) -> None:
        self.success = success
        self.status_messages = [("execution_start", {}), ("execution_error", {"executed": list(executed)})]
        self.caches = SimpleNamespace(outputs=None)

    @hooks.runs_prompts
    def execute(self, prompt: Any, prompt_id: str, extra_data: Any = None, execute_outputs: Any = ()) -> None:
        self.act()


def node(class_type: str = "Plain", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


@pytest.fixture(autouse=True)
def _upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server with two classes of nodes, a depot that is started, and nothing forced so far."""
    classes = {"Plain": Plain, "Other": Plain, "Output": Output}
    monkeypatch.setattr(core, "nodes", lambda: SimpleNamespace(NODE_CLASS_MAPPINGS=classes))
    monkeypatch.setattr(core, "arguments", lambda: SimpleNamespace())
    monkeypatch.setattr(forcing, "epochs", forcing.Epochs())
    hooks.arm(SimpleNamespace())
    yield
    hooks.disarm()


@pytest.fixture(params=[Cache, LaterCache], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def answers(
    kind: Any, graph: Graph, answer: Any = False, executor: Any = None, **fields: Any
) -> dict[str, Any]:
    """What the cache is told of each node in a run with these fields."""
    found: dict[str, Any] = {}

    def act() -> None:
        cache = kind(graph, answer)
        for node_id in graph.nodes:
            told = cache.get(node_id)
            found[node_id] = asyncio.run(told) if hasattr(told, "__await__") else told
        assert cache.is_changed == dict.fromkeys(graph.nodes, answer), "upstream's own notes stay as they are"

    executor = executor or Executor()
    executor.act = act
    executor.execute(graph.nodes, "p1", fields, ["9"])
    return found


PROMPT = {"4": node(size=1), "5": node("Other", link=["4", 0]), "9": node("Output", link=["5", 0])}


def graph() -> Graph:
    return Graph({node_id: dict(one) for node_id, one in PROMPT.items()})


def test_without_force_every_answer_is_upstreams_own(kind: Any) -> None:
    assert answers(kind, graph(), answer=[3]) == dict.fromkeys(PROMPT, [3])


@pytest.mark.parametrize(("fields", "forced"), [
    ({"force": True}, "4 5 9"), ({"force": "outputs"}, "9"), ({"force": ["5"]}, "5"),
    ({"force": ["Plain", "9"]}, "4 9"), ({"cache": "write"}, "4 5 9"), ({"cache": "off"}, "4 5 9"),
    ({"force": ["4"], "cache": "write"}, "4 5 9"), ({"force": False}, ""), ({"cache": "read"}, ""),
    ({"force": "nonsense"}, ""),
])  # fmt: skip
def test_the_named_nodes_answer_otherwise_and_keep_upstreams_answer_inside(
    kind: Any, fields: dict[str, Any], forced: str
) -> None:
    found = answers(kind, graph(), answer=[3], **fields)
    assert {node_id for node_id, told in found.items() if told != [3]} == set(forced.split())
    assert all(told[0] == [3] for node_id, told in found.items() if node_id in forced.split())


def test_the_next_request_finds_the_forced_results(kind: Any) -> None:
    first = answers(kind, graph(), force=["5"])
    assert answers(kind, graph()) == first
    again = answers(kind, graph(), force=["5"])
    assert again["5"] != first["5"] and again["4"] == first["4"]


def test_another_input_or_class_or_id_has_no_forced_result(kind: Any) -> None:
    answers(kind, graph(), force=True)
    other = Graph({"4": node(size=2), "5": node("Plain", link=["4", 0]), "8": node("Output", link=["5", 0])})
    assert answers(kind, other) == dict.fromkeys(other.nodes, False)


def test_a_link_to_elsewhere_is_upstreams_affair(kind: Any) -> None:
    first = answers(kind, graph(), force=["5"])
    linked = Graph({**graph().nodes, "5": node("Other", link=["4", 1])})
    assert answers(kind, linked)["5"] == first["5"], "the link is in the signature already"


def test_cache_off_leaves_nothing_behind(kind: Any) -> None:
    answers(kind, graph(), cache="off")
    assert answers(kind, graph()) == dict.fromkeys(PROMPT, False)


def test_of_a_failed_run_only_what_has_run_counts(kind: Any) -> None:
    first = answers(kind, graph(), force=True, executor=Executor(success=False, executed=["4"]))
    assert answers(kind, graph()) == {"4": first["4"], "5": False, "9": False}


def test_of_a_run_that_broke_nothing_counts() -> None:
    class Broken(Executor):
        @hooks.runs_prompts
        def execute(self, *args: Any, **kwargs: Any) -> None:
            self.act()
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        answers(Cache, graph(), force=True, executor=Broken())
    assert answers(Cache, graph()) == dict.fromkeys(PROMPT, False)


def test_every_prompt_is_forced_with_the_option(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "arguments", lambda: SimpleNamespace(force=True))
    first, second = answers(kind, graph()), answers(kind, graph(), force="outputs")
    assert all(first[node_id] != second[node_id] for node_id in PROMPT)


INNER = {"4.0.1": ("4", node("Other")), "4.0.2": ("4", node("Output"))}


@pytest.mark.parametrize(("fields", "forced"), [
    ({"force": ["4"]}, "4 4.0.1 4.0.2"), ({"force": ["Other"]}, "4.0.1"), ({"force": True}, "4 4.0.1 4.0.2"),
])  # fmt: skip
def test_what_a_forced_node_expands_into_is_forced_too(kind: Any, fields: Any, forced: str) -> None:
    found = answers(kind, Graph({"4": node()}, INNER), **fields)
    assert {node_id for node_id, told in found.items() if told} == set(forced.split())


def test_outputs_are_found_inside_the_expansion_of_the_last_run(kind: Any) -> None:
    found = answers(kind, Graph({"4": node()}, INNER), force="outputs")
    assert not found["4"], "nobody has seen yet what is inside"
    found = answers(kind, Graph({"4": node()}, INNER), force="outputs")
    assert {node_id for node_id, told in found.items() if told} == {"4", "4.0.2"}


def test_the_table_is_bounded_and_the_oldest_go_first() -> None:
    table = forcing.Epochs(most=2)
    keys = [(str(number), "Plain", "") for number in range(3)]
    table.remember(keys[:2], "one")
    assert table.of(keys[0]) == "one"
    table.remember(keys[2:], "two")
    assert [table.of(key) for key in keys] == ["one", None, "two"] and len(table) == 2
    for number in range(3):
        table.note_output_inside(str(number), "Plain")
    assert not table.has_output_inside("0", "Plain") and table.has_output_inside("2", "Plain")


def test_the_results_of_a_run_are_taken_out_of_every_kind_of_cache() -> None:
    def cache(keys: dict[str, str], prompt: Any, **inner: Any) -> Any:
        stored = {key: key for key in (*keys.values(), "other")}
        return SimpleNamespace(cache_key_set=SimpleNamespace(keys=keys), dynprompt=prompt, cache=stored,
                               used_generation=dict(stored), subcaches=inner)

    inside, elsewhere = cache({"4.1": "inner"}, "now"), cache({"7.1": "inner"}, "before")
    outer = cache({"4": "a", "5": "b"}, "now", one=inside, two=elsewhere)
    forcing.take_out(outer)
    assert outer.cache == outer.used_generation == inside.cache == {"other": "other"}
    assert elsewhere.cache == {"inner": "inner", "other": "other"}, "not of this prompt"
    forcing.take_out(SimpleNamespace())  # upstream's cache that keeps nothing has none of this


def test_without_a_started_depot_nothing_is_forced(kind: Any) -> None:
    hooks.disarm()
    assert answers(kind, graph(), force=True) == dict.fromkeys(PROMPT, False)


def test_asking_is_changed_is_no_run_of_a_node(kind: Any) -> None:
    seen: list[bool] = []

    class Watching(kind):  # type: ignore[misc]
        @property
        def answer(self) -> bool:
            seen.append(forcing.is_asking())
            return False

        @answer.setter
        def answer(self, value: Any) -> None:
            pass

    answers(Watching, graph())
    answers(Watching, graph(), force=True)
    assert seen == [True] * 6 and not forcing.is_asking()
    assert running.current_node() is None

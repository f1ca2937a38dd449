"""What is remembered between prompts: rules 61 to 73. See `test_retention` for budgets."""

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy.ram import Ram
from comfy_execution.results.retention import Pressure
from comfy_execution.results.signatures import NoStableContentError, canonical, digest
from tests.comfy_execution.rig import INT, Rig, execution, make, node

ANY = ("*", {})


def sum_graph(ids=("1", "2", "3"), value=1):
    a, b, c = ids
    return {a: node("Number", value=value), b: node("Add", a=[a, 0]), c: node("Show", value=[b, 0])}


def test_a_second_run_executes_nothing_and_shows_the_same(rig):
    """Rule 65."""
    first = rig.run(sum_graph())
    second = rig.run(sum_graph())
    assert second.ran == [] and rig.calls == []
    assert second.cached == ["1", "2", "3"]
    assert second.outputs == first.outputs
    assert second.of("executed") == [
        {"node": "3", "display_node": "3", "output": {"text": [2]}, "prompt_id": "prompt-2"}
    ]


def test_outputs_of_a_cached_run_reach_the_history_without_a_client(rig):
    """Rule 65."""
    rig.run(sum_graph(), client=None)
    assert rig.run(sum_graph(), client=None).outputs == {"3": {"text": [2]}}


def test_other_node_ids_find_the_same_results(rig):
    """Rule 61."""
    rig.run(sum_graph())
    result = rig.run(sum_graph(("70", "50", "60")))
    assert result.ran == []
    assert result.outputs == {"60": {"text": [2]}}
    assert result.meta["60"]["node_id"] == "60"


def test_two_equal_nodes_share_one_result(rig):
    """Rule 61."""
    prompt = {
        "1": node("Number", value=1),
        "2": node("Number", value=1),
        "3": node("Add", a=["1", 0], b=["2", 0]),
        "4": node("Show", value=["3", 0]),
    }
    assert rig.run(prompt).outputs["4"] == {"text": [2]}
    assert rig.calls.count(("Number", 1)) == 1


def test_only_what_changed_and_what_depends_on_it_runs(rig):
    """Rule 61."""
    prompt = {**sum_graph(), "4": node("Number", value=9), "5": node("Show", value=["4", 0])}
    rig.run(prompt)
    prompt["4"]["inputs"]["value"] = 10
    assert rig.run(prompt).ran == ["4", "5"]


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        (lambda prompt: prompt["1"].update(_meta={"title": "other"}), False),
        (lambda prompt: prompt["1"]["inputs"].update(undeclared=5), True),
    ],
)
def test_titles_are_no_part_of_the_key_but_inputs_of_any_name_are(rig, change, runs):
    """Rule 62."""
    prompt = sum_graph()
    rig.run(prompt)
    change(prompt)
    assert bool(rig.run(prompt).ran) is runs


@pytest.mark.parametrize("declares", [{"NOT_IDEMPOTENT": True}, {"hidden": {"id": "UNIQUE_ID"}}])
def test_the_id_is_part_of_the_key_when_the_class_says_so(rig, declares):
    """Rule 61."""
    rig.add(Own=make(lambda self, id=None: rig.note(id) or (1,), {}, **declares))

    def prompt(node_id):
        return {node_id: node("Own"), "show": node("Show", value=[node_id, 0])}

    rig.run(prompt("1"))
    assert "1" not in rig.run(prompt("1")).ran
    assert "2" in rig.run(prompt("2")).ran


def changing(rig, is_changed, **attributes):
    rig.add(
        Reads=make(
            lambda self, value: rig.note("read") or (value,),
            {"value": INT},
            IS_CHANGED=classmethod(is_changed),
            **attributes,
        )
    )
    return {"1": node("Reads", value=1), "2": node("Show", value=["1", 0])}


def test_an_equal_change_value_keeps_the_result(rig):
    """Rule 63."""
    prompt = changing(rig, lambda cls, value: "constant")
    rig.run(prompt)
    assert rig.run(prompt).ran == []


def test_another_change_value_runs_the_node_again(rig):
    """Rule 63."""
    numbers = itertools.count()
    prompt = changing(rig, lambda cls, value: next(numbers))
    rig.run(prompt)
    assert rig.run(prompt).ran == ["1", "2"]


def test_nan_equals_nothing_so_the_node_always_runs(rig):
    """Rule 63."""
    prompt = changing(rig, lambda cls, value: float("nan"))
    rig.run(prompt)
    assert rig.run(prompt).ran == ["1", "2"]


def test_a_failing_is_changed_means_always(rig, caplog):
    """Rule 63."""
    def fails(cls, value):
        raise ValueError("unknown")

    prompt = changing(rig, fails)
    rig.run(prompt)
    assert rig.run(prompt).ran == ["1", "2"]
    assert "IS_CHANGED of node 1 (Reads) failed: unknown" in caplog.text


def test_is_changed_is_asked_once_per_prompt_and_noted_in_it(rig):
    """Rule 63."""
    asked = []
    prompt = changing(rig, lambda cls, value: asked.append(value) or time.time())
    prompt["3"] = node("Show", value=["1", 0])
    rig.run(prompt)
    assert asked == [1]
    assert isinstance(prompt["1"]["is_changed"], list)


def test_is_changed_may_be_asynchronous_and_gets_none_for_links(rig):
    """Rules 63, and 60."""
    seen = []

    async def changed(cls, value):
        seen.append(value)
        return 1

    prompt = changing(rig, changed)
    prompt["0"] = node("Number", value=1)
    prompt["1"]["inputs"]["value"] = ["0", 0]
    assert rig.run(prompt).success
    assert seen == [None]


def test_values_without_content_are_never_found_again(rig):
    """Rule 64."""
    rig.add(Takes=make(lambda self, value: (1,), {"value": ANY}))
    prompt = {"1": node("Takes", value=object()), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert rig.run(prompt).ran == ["1", "2"]


@pytest.mark.parametrize("value", [{"a": 1, 2: 3}, {"nested": [1, {"x": None}]}, True, "text", 1.5])
def test_plain_data_is_found_again(rig, value):
    """Rule 64."""
    rig.add(Takes=make(lambda self, value: (1,), {"value": ANY}))
    prompt = {"1": node("Takes", value=value), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert rig.run(prompt).ran == []


def test_node_objects_live_as_long_as_their_node_is_in_each_prompt(rig):
    """Rule 66."""
    rig.add(
        Counts=make(
            lambda self, value: (setattr(self, "n", getattr(self, "n", 0) + 1) or self.n,),
            {"value": INT},
            OUTPUT_NODE=True,
        )
    )

    def run(node_id, value):
        result = rig.run({node_id: node("Counts", value=value), "show": node("Show", value=[node_id, 0])})
        return result.outputs["show"]["text"][0]

    assert [run("1", 1), run("1", 2), run("1", 3)] == [1, 2, 3]
    run("2", 4)
    assert run("1", 5) == 1


def test_classic_keeps_only_what_the_last_prompt_used(registry):
    """Rule 67."""
    rig = Rig(cache_type=execution.CacheType.CLASSIC)
    rig.run(sum_graph(value=1))
    rig.run(sum_graph(value=2))
    assert rig.run(sum_graph(value=1)).ran == ["1", "2", "3"]


def test_lru_keeps_results_of_other_workflows(registry):
    """Rules 67 and 68."""
    rig = Rig(cache_type=execution.CacheType.LRU, cache_args={"lru": 50})
    rig.run(sum_graph(value=1))
    rig.run(sum_graph(value=2))
    assert rig.run(sum_graph(value=1)).ran == []


def test_lru_never_drops_what_the_running_prompt_uses(registry):
    """Rule 69."""
    rig = Rig(cache_type=execution.CacheType.LRU, cache_args={"lru": 1})
    rig.run(sum_graph())
    assert rig.run(sum_graph()).ran == []
    assert len(rig.executor.caches.outputs) == 3
    rig.run({"1": node("Show", value=0)})
    assert len(rig.executor.caches.outputs) == 2
    assert rig.run(sum_graph()).cached == ["3"]


def test_lru_drops_the_result_that_was_used_longest_ago(registry):
    """Rule 69."""
    rig = Rig(cache_type=execution.CacheType.LRU, cache_args={"lru": 6})
    for value in (1, 2, 1, 3, 1):
        rig.run(sum_graph(value=value))
    assert rig.run(sum_graph(value=1)).ran == []
    assert rig.run(sum_graph(value=2)).ran != []


def test_without_a_cache_everything_runs_and_no_object_is_kept(registry):
    """Rule 67."""
    rig = Rig(cache_type=execution.CacheType.NONE)
    made = []
    rig.add(Counts=make(lambda self: (made.append(id(self)) or (vars(self).setdefault("n", 0)),), {}))
    prompt = {"1": node("Counts"), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert rig.run(prompt).ran == ["1", "2"]


def test_a_result_used_twice_is_computed_once_without_a_cache(registry):
    """Rule 71."""
    rig = Rig(cache_type=execution.CacheType.NONE)
    rig.run(
        {
            "1": node("Number", value=1),
            "2": node("Add", a=["1", 0]),
            "3": node("Add", a=["1", 0], b=["2", 0]),
            "4": node("Show", value=["3", 0]),
        }
    )
    assert rig.calls.count(("Number", 1)) == 1


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("NONE", {}), ("LRU", {"lru": 0}), ("LRU", {"lru": 1}), ("BUDGET", {"budget": 0}),
     ("RAM_PRESSURE", {"ram": [1e9], "read_ram": lambda: Ram(1, 0)})],
)  # fmt: skip
def test_a_consumer_keeps_its_inputs_whatever_the_cache_drops(registry, monkeypatch, kind, arguments):
    """Rule 71."""
    monkeypatch.setattr(Pressure, "step", 0)
    rig = Rig(cache_type=execution.CacheType[kind], cache_args=arguments)
    prompt = {"0": node("Number", value=5)}
    for i in range(1, 8):
        prompt[str(i)] = node("Add", a=[str(i - 1), 0], b=["0", 0])
    prompt["8"] = node("Show", value=["7", 0], other=["3", 0])
    for value in (5, 6):
        prompt["0"]["inputs"]["value"] = value
        assert rig.run(prompt).outputs["8"] == {"text": [8 * value]}
        assert len(rig.calls) == 9, "each node runs once"


def test_a_result_that_was_dropped_in_the_middle_is_made_again_when_it_is_asked_for(registry, monkeypatch):
    """Rule 70."""
    monkeypatch.setattr(Pressure, "step", 0)
    arguments = {"ram": [1e9], "read_ram": lambda: Ram(1, 0)}
    rig = Rig(cache_type=execution.CacheType.RAM_PRESSURE, cache_args=arguments)
    rig.add(
        Late=make(
            lambda self, first, second=None: (first + second,),
            {"first": INT, "second": ("INT", {"lazy": True})},
            check_lazy_status=lambda self, first, second=None: ["second"] if second is None else [],
        )
    )
    prompt = {
        "1": node("Number", value=2), "2": node("Add", a=["1", 0]), "3": node("Add", a=["2", 0]),
        "4": node("Late", first=["3", 0], second=["1", 0]), "5": node("Show", value=["4", 0]),
    }  # fmt: skip
    assert rig.run(prompt).outputs["5"] == {"text": [6]}
    assert rig.calls.count(("Number", 2)) == 2 and rig.calls.count(("Add", 2, 1)) == 1


def test_reset_forgets_everything(rig):
    """Rule 72."""
    rig.run(sum_graph())
    rig.executor.reset()
    assert rig.run(sum_graph()).ran == ["1", "2", "3"]


def test_a_failed_run_keeps_what_had_finished(rig):
    """Rule 73."""
    state = {"fail": True}

    def run(self, value):
        if state["fail"]:
            raise RuntimeError("not yet")
        return {"ui": {"text": [value]}}

    rig.add(Last=make(run, {"value": INT}, returns=(), OUTPUT_NODE=True))
    prompt = {"1": node("Number", value=1), "2": node("Add", a=["1", 0]), "3": node("Last", value=["2", 0])}
    assert not rig.run(prompt).success
    state["fail"] = False
    result = rig.run(prompt)
    assert result.success and result.cached == ["1", "2"]


def test_intermediate_outputs_are_shown_again_from_the_cache(rig):
    """Rule 65."""
    rig.add(
        Peek=make(
            lambda self, value: {"ui": {"text": [value]}, "result": (value,)},
            {"value": INT},
            HAS_INTERMEDIATE_OUTPUT=True,
        )
    )
    prompt = {"1": node("Peek", value=3), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    result = rig.run(prompt)
    assert result.outputs["1"] == {"text": [3]}
    assert {data["node"] for data in result.of("executed")} == {"1", "2"}


# -- signatures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        ("1", 1),
        ([1, 2], {"0": 1}),
        ([], {}),
        (["a", ["b"]], ["a", "b"]),
        ("", None),
        ([("dict",)], {}),
        (b"x", "x"),
    ],
)
def test_values_that_only_look_alike_differ(one, other):
    assert digest([canonical(one)]) != digest([canonical(other)])


def test_the_order_of_keys_does_not_matter():
    assert digest([canonical({"a": 1, "b": [2]})]) == digest([canonical({"b": [2], "a": 1})])


def test_equal_texts_are_equal_however_they_came_to_be():
    assert digest(["".join(["la", "tent"])]) == digest(["latent"])


@pytest.mark.parametrize("value", [float("nan"), [float("nan")], object(), {1, 2}, {"a": {"b": object()}}])
def test_what_has_no_stable_content(value):
    with pytest.raises(NoStableContentError):
        canonical(value)


def test_endless_nesting_has_no_stable_content():
    value = []
    value.append(value)
    with pytest.raises(NoStableContentError, match="nested deeper"):
        canonical(value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(plain, plain)
def test_signatures_are_equal_exactly_when_content_is(one, other):
    same = repr(canonical(one)) == repr(canonical(other))
    assert (digest([canonical(one)]) == digest([canonical(other)])) is same

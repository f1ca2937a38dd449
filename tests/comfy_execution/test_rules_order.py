"""In which order nodes run, and that the cost stays linear."""

import gc
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.errors import NodeNotFoundError
from comfy_execution.execution_list import ExecutionList
from tests.comfy_execution.rig import INT, Rig, execution, make, node, nodes


def test_a_preview_appears_before_unrelated_work(rig):
    prompt = {
        "load": node("Number", value=1),
        "heavy1": node("Add", a=["load", 0], b=1),
        "heavy2": node("Add", a=["heavy1", 0], b=1),
        "heavy3": node("Add", a=["heavy2", 0], b=1),
        "heavy4": node("Add", a=["heavy3", 0], b=1),
        "save": node("Show", value=["heavy4", 0]),
        "preview": node("Show", value=["load", 0]),
    }
    assert rig.run(prompt).ran[:2] == ["load", "preview"]


def test_what_feeds_an_output_comes_before_what_does_not(rig):
    prompt = {
        "long1": node("Number", value=1),
        "long2": node("Add", a=["long1", 0]),
        "long3": node("Add", a=["long2", 0]),
        "long4": node("Add", a=["long3", 0]),
        "end": node("Show", value=["long4", 0]),
        "near": node("Number", value=2),
        "preview": node("Show", value=["near", 0]),
    }
    assert rig.run(prompt).ran[:2] == ["near", "preview"]


def test_two_steps_from_an_output_comes_before_three(rig):
    prompt = {
        "long1": node("Number", value=1),
        "long2": node("Add", a=["long1", 0]),
        "long3": node("Add", a=["long2", 0]),
        "end": node("Show", value=["long3", 0]),
        "near": node("Number", value=2),
        "near2": node("Add", a=["near", 0]),
        "preview": node("Show", value=["near2", 0]),
    }
    assert rig.run(prompt).ran[:3] == ["near", "near2", "preview"]


def test_asynchronous_nodes_start_first(rig):
    async def run(self):
        return (1,)

    rig.add(Later=make(run, {}))
    prompt = {
        "a": node("Number", value=1),
        "b": node("Add", a=["a", 0], b=["z", 0]),
        "c": node("Show", value=["b", 0]),
        "z": node("Later"),
    }
    assert rig.run(prompt).ran[0] == "z"


class Nothing:
    """No result is known."""

    def get_local(self, node_id):
        return None


def test_a_link_to_no_node_is_refused(registry, rig):
    steps = ExecutionList(DynamicPrompt({"1": node("Show", value=["gone", 0])}, registry), Nothing())
    with pytest.raises(
        NodeNotFoundError, match="Node gone is not in the graph, but another node links to it"
    ):
        steps.add_node("1")


def test_completing_without_staging_is_refused(registry, rig):
    steps = ExecutionList(DynamicPrompt({}, registry), Nothing())
    with pytest.raises(RuntimeError, match="No node is staged"):
        steps.complete_node_execution()


@st.composite
def graphs(draw):
    """Prompts of Add nodes with links to earlier ones only, under shuffled ids, with some outputs."""
    count = draw(st.integers(1, 12))
    prompt = {"0": node("Number", value=draw(st.integers(0, 3)))}
    for i in range(1, count):
        earlier = st.integers(0, i - 1).map(lambda j: [str(j), 0])
        prompt[str(i)] = node("Add", a=draw(earlier), b=draw(earlier | st.integers(0, 3)))
    for i in range(draw(st.integers(1, 3))):
        prompt[f"out{i}"] = node("Show", value=[str(draw(st.integers(0, count - 1))), 0])
    return {key: prompt[key] for key in draw(st.permutations(list(prompt)))}


def expected(prompt):
    """What the outputs must show."""
    known = {}
    while len(known) < len(prompt):
        for node_id, entry in prompt.items():
            inputs = {k: known.get(v[0]) if isinstance(v, list) else v for k, v in entry["inputs"].items()}
            if None not in inputs.values():
                known[node_id] = sum(inputs.values())
    return {key: {"text": [known[key]]} for key in prompt if key.startswith("out")}


def needed(prompt):
    """The nodes that an output depends on."""
    found, waiting = set(), [key for key in prompt if key.startswith("out")]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += [v[0] for v in prompt[current]["inputs"].values() if isinstance(v, list)]
    return found


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from([execution.CacheType.CLASSIC, execution.CacheType.NONE]))
def test_generated_graphs_run_each_needed_node_once_after_its_inputs(prompt, cache):
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    try:
        rig = Rig(cache_type=cache)
        result = rig.run(prompt)
        assert result.outputs == expected(prompt)
        ran = result.ran
        assert len(set(ran)) == len(ran)
        assert set(ran) <= needed(prompt)
        if cache is execution.CacheType.NONE:
            assert set(ran) == needed(prompt)
            for node_id in ran:
                sources = [v[0] for v in prompt[node_id]["inputs"].values() if isinstance(v, list)]
                assert all(ran.index(source) < ran.index(node_id) for source in sources)
    finally:
        nodes.NODE_CLASS_MAPPINGS.clear()
        nodes.NODE_CLASS_MAPPINGS.update(before)


@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(0, 11), st.integers(10, 20))
def test_generated_graphs_run_only_what_a_change_touches(prompt, which, value):
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    try:
        rig = Rig()
        rig.run(prompt)
        assert rig.run(prompt).ran == []
        changed = str(which % len([key for key in prompt if not key.startswith("out")]))
        name = "value" if prompt[changed]["class_type"] == "Number" else "b"
        prompt[changed]["inputs"][name] = value
        result = rig.run(prompt)
        assert result.outputs == expected(prompt)
        touched = {changed}
        for _ in prompt:
            touched |= {
                key
                for key, entry in prompt.items()
                if any(isinstance(v, list) and v[0] in touched for v in entry["inputs"].values())
            }
        assert set(result.ran) <= touched
    finally:
        nodes.NODE_CLASS_MAPPINGS.clear()
        nodes.NODE_CLASS_MAPPINGS.update(before)


def chain(length):
    prompt = {"0": node("Number", value=0)}
    prompt.update({str(i): node("Add", a=[str(i - 1), 0]) for i in range(1, length - 1)})
    return {**prompt, "end": node("Show", value=[str(length - 2), 0])}


@pytest.mark.slow
def test_time_and_messages_are_linear_in_the_number_of_nodes(rig):
    def measure(length):
        prompt = chain(length)
        rig.executor.reset()
        start = time.process_time()
        result = rig.run(prompt)
        assert result.outputs["end"] == {"text": [length - 2]}
        return time.process_time() - start, sum(len(str(data)) for _, data, _ in result.sent)

    gc.collect()
    gc.freeze()  # what earlier tests have left is not looked through for garbage meanwhile
    try:
        measure(100)
        short, few = min(measure(500) for _ in range(3))
        long, many = measure(5000)
    finally:
        gc.unfreeze()
    assert long < 25 * short + 0.2
    assert many < 15 * few


@pytest.mark.slow
def test_a_wide_prompt_is_linear_too(rig):
    """Thousands of nodes that are ready at the same time are not searched again for each step."""
    prompt = {"0": node("Number", value=0)}
    for i in range(3000):
        prompt[f"a{i}"] = node("Add", a=["0", 0], b=i)
        prompt[f"s{i}"] = node("Show", value=[f"a{i}", 0])
    start = time.process_time()
    result = rig.run(prompt)
    assert len(result.outputs) == 3000
    assert time.process_time() - start < 5


def test_a_backward_order_of_nodes_makes_no_difference(rig):
    prompt = dict(reversed(chain(3000).items()))
    assert rig.run(prompt).success
    assert rig.run(prompt).ran == []


def test_an_output_with_many_inputs_waits_for_all_of_them(rig):
    rig.add(
        Sum=make(
            lambda self, **all: {"ui": {"text": [sum(all.values())]}},
            {},
            returns=(),
            OUTPUT_NODE=True,
            optional={f"i{n}": INT for n in range(50)},
        )
    )
    prompt = {str(n): node("Number", value=n) for n in range(50)}
    prompt["sum"] = node("Sum", **{f"i{n}": [str(n), 0] for n in range(50)})
    assert rig.run(prompt).outputs["sum"] == {"text": [sum(range(50))]}

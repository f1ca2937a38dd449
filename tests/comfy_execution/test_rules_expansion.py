"""Nodes that expand into other nodes at run time."""

import pytest

from comfy_execution.graph_utils import GraphBuilder, add_graph_prefix, is_link
from tests.comfy_execution.rig import INT, Rig, execution, make, node

ANY = ("*", {})


def expands(rig, function, name="Grow", required=None, returns=("INT",), **attributes):
    rig.add(
        **{
            name: make(
                function, required if required is not None else {"value": ANY}, returns=returns, **attributes
            )
        }
    )


def plus_one(self, value):
    graph = GraphBuilder()
    return {"result": (graph.node("Add", a=value, b=1).out(0),), "expand": graph.finalize()}


def shown(source="1"):
    return {"show": node("Show", value=[source, 0])}


def test_the_result_of_an_inner_node_becomes_the_result(rig):
    expands(rig, plus_one)
    result = rig.run({"1": node("Grow", value=5), **shown()})
    assert result.outputs["show"] == {"text": [6]}
    assert result.ran == ["1", "1.0.0.1", "show"]


def test_ids_of_two_mapped_calls_differ(rig):
    expands(rig, plus_one)
    result = rig.run({"0": node("Range", value=2), "1": node("Grow", value=["0", 0]), **shown()})
    assert result.outputs["show"] == {"text": [1, 2]}
    assert {"1.0.0.1", "1.1.0.1"} <= set(result.ran)


def test_events_of_inner_nodes_name_the_node_that_shows_them(rig):
    expands(rig, plus_one)
    result = rig.run({"1": node("Grow", value=5), **shown()})
    inner = [data for data in result.of("executing") if data["node"] == "1.0.0.1"]
    assert [data["display_node"] for data in inner] == ["1"]


def test_an_inner_node_may_be_shown_on_another(rig):
    def grow(self, value):
        graph = GraphBuilder()
        inner = graph.node("Add", a=value)
        inner.set_override_display_id("show")
        return {"result": (inner.out(0),), "expand": graph.finalize()}

    expands(rig, grow)
    result = rig.run({"1": node("Grow", value=5), **shown()})
    assert [d["display_node"] for d in result.of("executing") if d["node"] == "1.0.0.1"] == ["show"]


def test_an_inner_node_may_be_shown_on_itself(rig):
    def grow(self, value):
        graph = GraphBuilder()
        inner = graph.node("Add", a=value)
        inner.set_override_display_id(inner.id)
        return {"result": (inner.out(0),), "expand": graph.finalize()}

    expands(rig, grow)
    result = rig.run({"1": node("Grow", value=5), **shown()})
    assert result.success
    assert [d["display_node"] for d in result.of("executing") if d["node"] == "1.0.0.1"] == ["1.0.0.1"]


def test_an_error_inside_is_put_down_to_the_users_node(rig):
    def fail(self):
        raise ValueError("inside")

    def grow(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Fails").out(0),), "expand": graph.finalize()}

    expands(rig, grow)
    rig.add(Fails=make(fail, {}))
    failure = rig.run({"1": node("Grow", value=5), **shown()}).failure
    assert (failure["node_id"], failure["node_type"]) == ("1", "Grow")
    assert failure["exception_type"] == "ValueError"


def test_output_nodes_inside_run_too(rig):
    def grow(self, value):
        graph = GraphBuilder()
        graph.node("Show", value="inside")
        return {"result": (value,), "expand": graph.finalize()}

    expands(rig, grow)
    result = rig.run({"1": node("Grow", value=5), **shown()})
    assert result.outputs == {"1.0.0.1": {"text": ["inside"]}, "show": {"text": [5]}}
    assert result.meta["1.0.0.1"] == {
        "node_id": "1.0.0.1",
        "display_node": "1",
        "parent_node": "1",
        "real_node_id": "1",
    }


def test_a_list_from_an_inner_node_fills_the_slot(rig):
    def grow(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Range", value=3).out(0), "second"), "expand": graph.finalize()}

    expands(rig, grow, returns=("INT", "STRING"))
    result = rig.run(
        {"1": node("Grow", value=0), "2": node("Show", value=["1", 0]), "3": node("Show", value=["1", 1])}
    )
    assert result.outputs == {"2": {"text": [0, 1, 2]}, "3": {"text": ["second"]}}


def test_a_list_output_takes_the_items_of_an_inner_list(rig):
    def grow(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Range", value=3).out(0),), "expand": graph.finalize()}

    expands(rig, grow, OUTPUT_IS_LIST=(True,))
    assert rig.run({"1": node("Grow", value=0), **shown()}).outputs["show"] == {"text": [0, 1, 2]}


def test_values_and_links_may_be_mixed_over_calls(rig):
    def grow(self, value):
        return (value,) if value == 0 else plus_one(self, value)

    expands(rig, grow)
    result = rig.run({"0": node("Range", value=3), "1": node("Grow", value=["0", 0]), **shown()})
    assert result.outputs["show"] == {"text": [0, 2, 3]}


def test_ui_beside_an_expansion_is_shown_at_once_and_kept(rig):
    def grow(self, value):
        return {**plus_one(self, value), "ui": {"text": ["growing"]}}

    expands(rig, grow)
    rig.run({"1": node("Grow", value=5), **shown()})
    result = rig.run({"1": node("Grow", value=5), **shown()}, targets=["show"])
    assert "1" in result.cached


def test_inner_results_are_reused_when_the_outer_node_runs_again(rig):
    def grow(self, value, label):
        graph = GraphBuilder()
        return {"result": (graph.node("Add", a=value, b=1).out(0),), "expand": graph.finalize()}

    expands(rig, grow, required={"value": ANY, "label": ("STRING", {})})
    prompt = {"1": node("Grow", value=5, label="a"), **shown()}
    rig.run(prompt)
    prompt["1"]["inputs"]["label"] = "b"
    result = rig.run(prompt)
    assert result.outputs["show"] == {"text": [6]}
    assert ("Add", 5, 1) not in rig.calls


def test_objects_of_inner_nodes_live_on_with_their_parent(rig):
    made = []

    def grow(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Counts", value=value).out(0),), "expand": graph.finalize()}

    expands(rig, grow)
    rig.add(Counts=make(lambda self, value: made.append(id(self)) or (value,), {"value": ANY}))
    prompt = {"1": node("Grow", value=1), **shown()}
    for value in (1, 2, 3):
        prompt["1"]["inputs"]["value"] = value
        rig.run(prompt)
    assert len(made) == 3 and len(set(made)) == 1


def test_results_of_inner_nodes_that_do_not_come_again_are_dropped_in_classic(registry):
    rig = Rig(cache_type=execution.CacheType.CLASSIC)
    expands(rig, plus_one)
    prompt = {"1": node("Grow", value=1), **shown()}
    sizes = []
    for value in range(5):
        prompt["1"]["inputs"]["value"] = value
        rig.run(prompt)
        sizes.append(len(rig.executor.caches.outputs))
    assert sizes == [3] * 5


def test_a_circle_made_at_run_time_is_put_down_to_the_node_that_made_it(rig):
    def grow(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Add", a=["1", 0]).out(0),), "expand": graph.finalize()}

    expands(rig, grow)
    failure = rig.run({"1": node("Grow", value=5), **shown()}).failure
    assert failure["node_id"] == "1"
    assert failure["exception_type"] == "graph.DependencyCycleError"
    assert "Dependency cycle detected" in failure["exception_message"]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"x": {"class_type": "Gone", "inputs": {}}}, "of the class 'Gone', which does not exist. Install"),
        (
            {"show": {"class_type": "Number", "inputs": {"value": 1}}},
            "id 'show', which exists already. Take ids",
        ),
    ],
)
def test_an_expansion_that_cannot_be(rig, graph, message):
    expands(rig, lambda self, value: {"result": (1,), "expand": graph})
    failure = rig.run({"1": node("Grow", value=5), **shown()}).failure
    assert message in failure["exception_message"]
    assert failure["node_id"] == "1"


@pytest.mark.parametrize("result", [["gone", 0], ["show2", 5]])
def test_a_result_that_links_to_nothing_is_an_error(rig, result):
    graph = {"show2": {"class_type": "Number", "inputs": {"value": 1}}}
    expands(rig, lambda self, value: {"result": (result,), "expand": graph})
    failure = rig.run({"1": node("Grow", value=5), **shown()}).failure
    assert failure["exception_type"] == "comfy_execution.graph.NodeNotFoundError"
    assert failure["node_id"] == "1"


def loop(self, value, left):
    """Adds one and goes on with itself, `left` times."""
    if left == 0:
        return (value,)
    graph = GraphBuilder()
    added = graph.node("Add", a=value, b=1)
    again = graph.node("Loop", value=added.out(0), left=left - 1)
    return {"result": (again.out(0),), "expand": graph.finalize()}


def test_a_loop_of_a_thousand_rounds_does_not_exhaust_the_stack(rig):
    expands(rig, loop, "Loop", {"value": ANY, "left": INT})
    prompt = {"1": node("Loop", value=0, left=1000), **shown()}
    assert rig.run(prompt).outputs["show"] == {"text": [1000]}
    prompt["1"]["inputs"]["value"] = 5
    assert rig.run(prompt).outputs["show"] == {"text": [1005]}


@pytest.mark.parametrize("kind", [execution.CacheType.NONE, execution.CacheType.LRU])
def test_loops_run_without_a_cache_too(registry, kind):
    rig = Rig(cache_type=kind, cache_args={"lru": 0})
    expands(rig, loop, "Loop", {"value": ANY, "left": INT})
    assert rig.run({"1": node("Loop", value=0, left=20), **shown()}).outputs["show"] == {"text": [20]}


def test_an_inner_node_uses_results_that_its_parent_holds_without_a_cache(registry):
    rig = Rig(cache_type=execution.CacheType.NONE)

    def grow(self, value):
        graph = GraphBuilder()
        return {"result": (graph.node("Add", a=["0", 0], b=value).out(0),), "expand": graph.finalize()}

    expands(rig, grow)
    rig.run({"0": node("Number", value=4), "1": node("Grow", value=["0", 0]), **shown()})
    assert rig.calls == [("Number", 4), ("Add", 4, 4), ("Show", 8)]


# -- the builder -------------------------------------------------------------------------------------------


def test_the_builder_makes_graphs():
    graph = GraphBuilder(prefix="p.")
    one, two = graph.node("A", x=1), graph.node("B", id="named", y=[0, 0])
    two.set_input("y", one.out(1))
    two.set_input("z", 5)
    two.set_input("z", None)
    assert graph.node("B", id="named") is two
    assert graph.lookup_node("named") is two
    assert two.get_input("y") == ["p.1", 1]
    assert graph.finalize() == {
        "p.1": {"class_type": "A", "inputs": {"x": 1}},
        "p.named": {"class_type": "B", "inputs": {"y": ["p.1", 1]}},
    }


def test_the_builder_replaces_outputs_and_removes_nodes():
    graph = GraphBuilder(prefix="")
    one = graph.node("A", id="a")
    graph.node("B", id="b", x=one.out(0), y=one.out(1))
    graph.replace_node_output("a", 0, ["c", 3])
    graph.replace_node_output("a", 1, None)
    graph.remove_node("a")
    assert graph.finalize() == {"b": {"class_type": "B", "inputs": {"x": ["c", 3]}}}


def test_two_graphs_of_one_call_have_different_prefixes():
    GraphBuilder.set_default_prefix("7", 2)
    assert [GraphBuilder().prefix, GraphBuilder().prefix] == ["7.2.0.", "7.2.1."]
    assert GraphBuilder.alloc_prefix("r", 1, 4) == "r.1.4."


def test_a_graph_gets_a_prefix_with_its_links():
    graph = {"a": {"class_type": "A", "inputs": {"x": ["b", 0], "y": 1}}, "b": {"class_type": "B"}}
    assert add_graph_prefix(graph, (["a", 0], 5), "p.") == (
        {
            "p.a": {"class_type": "A", "inputs": {"x": ["p.b", 0], "y": 1}},
            "p.b": {"class_type": "B", "inputs": {}},
        },
        (["p.a", 0], 5),
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["1", 0], True),
        (["1", 0.0], True),
        ([1, 0], False),
        (["1", "0"], False),
        (["1"], False),
        (("1", 0), False),
    ],
)
def test_what_a_link_is(value, expected):
    assert is_link(value) is expected

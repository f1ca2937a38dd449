"""Saved workflows turned into prompts: each rule of the web page on a workflow that is as small as can be."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_execution import ui_workflow
from comfy_execution.ui_workflow import WorkflowError, convert, is_saved_workflow

CHOICES = {
    "options": [
        {"key": "none", "inputs": {"required": {}}},
        {"key": "some", "inputs": {"required": {"much": ["INT", {}]}, "optional": {"how": ["STRING", {}]}}},
    ]
}
CLASSES: dict[str, dict[str, Any]] = {
    "Load": {"required": {"file": [["a.png", "b.png"], {"image_upload": True}]}},
    "Text": {"required": {"text": ["STRING", {"default": "empty"}]}},
    "Sample": {
        "required": {"image": ["IMAGE", {}], "seed": ["INT", {}], "how": ["COMBO", {"options": ["x", "y"]}]},
        "optional": {"scale": ["FLOAT", {"default": 2.5}], "mask": ["MASK"]},
    },
    "Grow": {"required": {"mode": ["COMFY_DYNAMICCOMBO_V3", CHOICES], "last": ["BOOLEAN", {}]}},
    "Forced": {"required": {"text": ["STRING", {"forceInput": True}], "size": ["INT", {}]}},
    "Either": {"required": {"n": ["FLOAT,INT", {"widgetType": "FLOAT"}], "other": ["FLOAT,INT", {}]}},
    "Compare": {"required": {"view": ["IMAGECOMPARE", {}]}},
    "Points": {"required": {"points": ["CURVE", {}]}},
    "Save": {"required": {"image": ["IMAGE", {}]}},
    "Show": {"required": {"anything": ["*", {}]}},
}


def port(name: str, kind: str = "IMAGE", link: int | None = None, *, widget: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}


def node(
    number: int,
    kind: str,
    values: Any = (),
    inputs: Any = (),
    outputs: Any = ("IMAGE",),
    mode: int = 0,
    **more: Any,
) -> dict[str, Any]:
    values = list(values) if isinstance(values, tuple) else values
    return {
        "id": number,
        "type": kind,
        "widgets_values": values,
        "inputs": list(inputs),
        "mode": mode,
        "outputs": [{"name": one, "type": one} for one in outputs],
        **more,
    }


def link(number: int, origin: int, target: int, *, slot: int = 0, into: int = 0) -> list[Any]:
    return [number, origin, slot, target, into, "IMAGE"]


def inner(number: int, origin: int, target: int, *, slot: int = 0, into: int = 0) -> dict[str, Any]:
    return {"id": number, "origin_id": origin, "origin_slot": slot, "target_id": target, "target_slot": into}


def flow(*nodes: Any, links: Any = (), subgraphs: Any = ()) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": list(links), "definitions": {"subgraphs": list(subgraphs)}}


def inputs_of(workflow: dict[str, Any], number: str = "1") -> dict[str, Any]:
    return convert(workflow, CLASSES.get).prompt[number]["inputs"]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (node(1, "Text", ("hello",)), {"text": "hello"}),
        (node(1, "Text", ()), {"text": "empty"}),
        (node(1, "Text", None), {"text": "empty"}),
        (node(1, "Text", {"text": "named", "button": 1}), {"text": "named"}),
        (node(1, "Sample", (7, "randomize", "y", 0.5)), {"seed": 7, "how": "y", "scale": 0.5}),
        (node(1, "Sample", (7, "y")), {"seed": 7, "how": "y", "scale": 2.5}),
        (node(1, "Grow", ("none", True)), {"mode": "none", "last": True}),
        (
            node(1, "Grow", ("some", 3, "fast", True)),
            {"mode": "some", "mode.much": 3, "mode.how": "fast", "last": True},
        ),
        (node(1, "Forced", (5,)), {"size": 5}),
        (node(1, "Either", (1.5,)), {"n": 1.5}),
        (node(1, "Compare", ()), {"view": {}}),
        (node(1, "Points", ([[0, 0], [1, 1]],)), {"points": {"__value__": [[0, 0], [1, 1]]}}),
        (node(1, "Load", ("b.png", "image")), {"file": "b.png"}),
    ],
)
def test_values_get_the_names_of_the_declared_inputs(one, expected):
    converted = convert(flow(one), CLASSES.get)
    assert converted.prompt == {
        "1": {"inputs": expected, "class_type": one["type"], "_meta": {"title": one["type"]}}
    }
    assert converted.oddities == []


def test_links_stand_before_values_and_titles_are_kept():
    linked = node(
        2, "Forced", (5,), [port("text", "STRING", 10), port("size", "INT", 11, widget=True)], title="T"
    )
    workflow = flow(
        node(1, "Text", ("x",), outputs=("STRING", "INT")),
        linked,
        links=[link(10, 1, 2), link(11, 1, 2, slot=1, into=1)],
    )
    prompt = convert(workflow, CLASSES.get).prompt
    assert prompt["2"]["inputs"] == {"text": ["1", 0], "size": ["1", 1]}
    assert prompt["2"]["_meta"] == {"title": "T"}


def test_notes_are_left_out_and_reroutes_walked_through():
    workflow = flow(
        node(1, "Load", ("a.png",)),
        node(2, "Reroute", (), [port("", "*", 10)]),
        node(3, "Reroute", (), [port("", "*", 11)]),
        node(4, "Save", (), [port("image", link=12)]),
        node(5, "Note", ("text",)),
        links=[link(10, 1, 2), link(11, 2, 3), link(12, 3, 4)],
    )
    prompt = convert(workflow, CLASSES.get).prompt
    assert set(prompt) == {"1", "4"}
    assert prompt["4"]["inputs"] == {"image": ["1", 0]}


def test_a_primitive_is_a_value():
    workflow = flow(
        node(1, "Text", ("old",), [port("text", "STRING", 10, widget=True)]),
        node(2, "PrimitiveNode", ("new", "fixed")),
        links=[link(10, 2, 1)],
    )
    assert inputs_of(workflow) == {"text": "new"}


def test_what_a_muted_node_gives_is_missing():
    workflow = flow(
        node(1, "Load", ("a.png",), mode=2),
        node(2, "Save", (), [port("image", link=10)]),
        links=[link(10, 1, 2)],
    )
    assert convert(workflow, CLASSES.get).prompt == {
        "2": {"inputs": {}, "class_type": "Save", "_meta": {"title": "Save"}}
    }


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([port("mask", "MASK", 11), port("image", "IMAGE", 10)], ["1", 0]),
        ([port("image", "IMAGE"), port("second", "IMAGE", 10)], ["1", 0]),
        ([port("image", "IMAGE,MASK", 10)], ["1", 0]),
        ([port("image", "*", 10)], ["1", 0]),
        ([port("mask", "MASK", 11)], None),
    ],
)
def test_a_bypassed_node_hands_on_the_input_of_the_outputs_type(inputs, expected):
    workflow = flow(
        node(1, "Load", ("a.png",), outputs=("IMAGE", "MASK")),
        node(2, "Sample", (), inputs, mode=4),
        node(3, "Save", (), [port("image", link=12)]),
        links=[link(10, 1, 2), link(11, 1, 2, slot=1), link(12, 2, 3)],
    )
    assert inputs_of(workflow, "3").get("image") == expected


def subgraph(*, name="part", nodes, links, inputs=(), outputs=()) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "nodes": nodes,
        "links": links,
        "inputs": [{"name": one} for one in inputs],
        "outputs": [{"name": one} for one in outputs],
    }


def sampler_inside(**more: Any) -> dict[str, Any]:
    sample = node(
        3, "Sample", (1, "fixed", "x"), [port("image", link=20), port("seed", "INT", 21, widget=True)]
    )
    return subgraph(
        nodes=[sample],
        links=[inner(20, -10, 3), inner(21, -10, 3, slot=1, into=1), inner(22, 3, -20)],
        inputs=("picture", "seed"),
        outputs=("image",),
        **more,
    )


def test_nodes_of_a_subgraph_have_the_instances_id_before_theirs_and_links_cross_its_border():
    workflow = flow(
        node(1, "Load", ("a.png",)),
        node(12, "part", None, [port("picture", link=10)]),
        node(5, "Save", (), [port("image", link=11)]),
        links=[link(10, 1, 12), link(11, 12, 5)],
        subgraphs=[sampler_inside()],
    )
    prompt = convert(workflow, CLASSES.get).prompt
    assert set(prompt) == {"1", "5", "12:3"}
    assert prompt["12:3"]["inputs"] == {"image": ["1", 0], "seed": 1, "how": "x", "scale": 2.5}
    assert prompt["5"]["inputs"] == {"image": ["12:3", 0]}


def test_each_instance_has_its_own_values_for_the_widgets_that_it_shows():
    workflow = flow(
        *(node(number, "part", (number * 10,), [port("picture")]) for number in (1, 2)),
        subgraphs=[sampler_inside()],
    )
    assert inputs_of(workflow, "1:3")["seed"] == 10
    assert inputs_of(workflow, "2:3")["seed"] == 20


def test_what_is_linked_to_an_instance_stands_before_its_value():
    workflow = flow(
        node(1, "part", (10,), [port("seed", "INT", 10, widget=True)]),
        node(2, "Text", ("x",)),
        links=[link(10, 2, 1)],
        subgraphs=[sampler_inside()],
    )
    assert inputs_of(workflow, "1:3")["seed"] == ["2", 0]


def test_subgraphs_in_subgraphs():
    outer = subgraph(
        name="outer",
        nodes=[node(7, "part", None, [port("picture", link=1), port("seed", "INT", 2)])],
        links=[inner(1, -10, 7), inner(2, -10, 7, slot=1, into=1), inner(3, 7, -20)],
        inputs=("image", "number"),
        outputs=("out",),
    )
    workflow = flow(
        node(1, "Load", ("a.png",)),
        node(2, "Text", ("n",)),
        node(9, "outer", None, [port("image", link=1), port("number", "INT", 2)]),
        node(4, "Save", (), [port("image", link=3)]),
        links=[link(1, 1, 9), link(2, 2, 9, into=1), link(3, 9, 4)],
        subgraphs=[outer, sampler_inside()],
    )
    prompt = convert(workflow, CLASSES.get).prompt
    assert prompt["9:7:3"]["inputs"] == {"image": ["1", 0], "seed": ["2", 0], "how": "x", "scale": 2.5}
    assert prompt["4"]["inputs"] == {"image": ["9:7:3", 0]}


@pytest.mark.parametrize(("mode", "expected"), [(2, {}), (4, {"image": ["1", 0]})])
def test_a_whole_instance_can_be_muted_or_bypassed(mode, expected):
    workflow = flow(
        node(1, "Load", ("a.png",)),
        node(12, "part", None, [port("picture", link=10)], mode=mode),
        node(5, "Save", (), [port("image", link=11)]),
        links=[link(10, 1, 12), link(11, 12, 5)],
        subgraphs=[sampler_inside()],
    )
    prompt = convert(workflow, CLASSES.get).prompt
    assert set(prompt) == {"1", "5"}
    assert prompt["5"]["inputs"] == expected


def test_an_input_without_widget_gets_the_value_that_the_subgraph_shows():
    inside = subgraph(
        nodes=[
            node(3, "Show", (), [port("anything", "*", 1)]),
            node(4, "Text", ("told",), [port("text", "STRING", 2, widget=True)]),
        ],
        links=[inner(1, -10, 3), inner(2, -10, 4)],
        inputs=("text",),
    )
    shown = node(1, "part", [], [port("text", "STRING")], properties={"proxyWidgets": [["4", "text"]]})
    workflow = flow(shown, subgraphs=[inside])
    assert inputs_of(workflow, "1:3") == {"anything": "told"}
    assert inputs_of(workflow, "1:4") == {"text": "told"}


def test_unknown_classes_and_values_that_nothing_takes_are_told():
    one = node(
        1, "Strange", ("a", 1), [port("first", "STRING", widget=True), port("second", "INT", widget=True)]
    )
    converted = convert(flow(one, node(2, "Text", ("x", 5, "more"))), CLASSES.get)
    assert converted.unknown == {"Strange": ["1"]}
    assert converted.prompt["1"]["inputs"] == {"first": "a", "second": 1}
    assert converted.oddities == ["Node 2 (Text) has 2 values that no input takes."]


@pytest.mark.parametrize("wrong", [None, [], {}, {"nodes": {}}, {"1": {"class_type": "Text", "inputs": {}}}])
def test_what_is_no_workflow_is_refused(wrong):
    assert not is_saved_workflow(wrong)
    with pytest.raises(WorkflowError, match="no saved workflow: it has no list 'nodes'"):
        convert(wrong, CLASSES.get)


def test_a_subgraph_that_contains_itself_is_refused():
    own = subgraph(nodes=[node(1, "part")], links=[])
    with pytest.raises(WorkflowError, match="more than 32 deep: does 'part' contain itself"):
        convert(flow(node(1, "part"), subgraphs=[own]), CLASSES.get)


def test_subgraphs_that_multiply_are_refused(monkeypatch):
    monkeypatch.setattr(ui_workflow, "MOST_NODES", 50)
    levels = [
        subgraph(
            name=f"s{depth}",
            links=[],
            nodes=[node(number, f"s{depth + 1}" if depth < 6 else "Text") for number in range(2)],
        )
        for depth in range(7)
    ]
    with pytest.raises(WorkflowError, match="more than 50 nodes"):
        convert(flow(node(1, "s0"), subgraphs=levels), CLASSES.get)


def test_links_in_a_circle_lead_nowhere():
    workflow = flow(
        node(1, "Reroute", (), [port("", "*", 10)]),
        node(2, "Reroute", (), [port("", "*", 11)]),
        node(3, "Save", (), [port("image", link=11)]),
        links=[link(10, 2, 1), link(11, 1, 2)],
    )
    assert inputs_of(workflow, "3") == {}

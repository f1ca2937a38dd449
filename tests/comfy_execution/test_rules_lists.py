"""Lists of values, and what nodes may return."""

from types import SimpleNamespace

import pytest

from comfy_execution.returns import merge_uis
from tests.comfy_execution.rig import INT, execution, make, node, nodes

ANY = ("*", {})


def collect(rig, **attributes):
    """A class "Collect" that notes its arguments."""
    seen = []

    def run(self, **values):
        seen.append(values)
        return (values.get("a"),)

    rig.add(
        Collect=make(run, {"a": ANY}, optional={"b": ANY}, returns=("*",), OUTPUT_NODE=True, **attributes)
    )
    return seen


def gives(rig, name, value, returns=("*",), **attributes):
    rig.add(**{name: make(lambda self: value, {}, returns=returns, **attributes)})


def test_a_node_is_called_per_element_and_shorter_lists_repeat_their_last(rig):
    seen = collect(rig)
    rig.run(
        {
            "1": node("Range", value=3),
            "2": node("Range", value=2),
            "3": node("Collect", a=["1", 0], b=["2", 0]),
        }
    )
    assert seen == [{"a": 0, "b": 0}, {"a": 1, "b": 1}, {"a": 2, "b": 1}]


def test_a_node_without_inputs_is_called_once(rig):
    calls = []
    rig.add(Alone=make(lambda self: calls.append(1) or {}, {}, returns=(), OUTPUT_NODE=True))
    rig.run({"1": node("Alone")})
    assert calls == [1]


@pytest.mark.parametrize("inputs", [{"a": ["1", 0]}, {"a": ["1", 0], "b": 5}])
def test_an_empty_list_is_an_error_that_names_the_input(rig, inputs):
    collect(rig)
    result = rig.run({"1": node("Range", value=0), "2": node("Collect", **inputs)})
    assert result.failure["exception_type"] == "IndexError"
    assert "Input 'a' received an empty list" in result.failure["exception_message"]
    assert "Check the node that it is linked to" in result.failure["exception_message"]


def test_a_node_that_takes_lists_is_called_once_with_all_of_them(rig):
    seen = collect(rig, INPUT_IS_LIST=True)
    rig.run({"1": node("Range", value=3), "2": node("Collect", a=["1", 0], b="text")})
    assert seen == [{"a": [0, 1, 2], "b": ["text"]}]


def test_a_node_that_takes_lists_takes_empty_ones(rig):
    seen = collect(rig, INPUT_IS_LIST=True)
    assert rig.run({"1": node("Range", value=0), "2": node("Collect", a=["1", 0])}).success
    assert seen == [{"a": []}]


def test_items_of_list_outputs_are_joined_and_other_outputs_are_one_value(rig):
    rig.add(
        Both=make(
            lambda self, value: ([value, value], [value, value]),
            {"value": INT},
            returns=("INT", "*"),
            OUTPUT_IS_LIST=(True, False),
        )
    )
    seen = collect(rig, INPUT_IS_LIST=True)
    rig.run(
        {
            "1": node("Range", value=2),
            "2": node("Both", value=["1", 0]),
            "3": node("Collect", a=["2", 0], b=["2", 1]),
        }
    )
    assert seen == [{"a": [0, 0, 1, 1], "b": [[0, 0], [1, 1]]}]


def test_ui_of_all_calls_is_joined(rig):
    result = rig.run({"1": node("Range", value=3), "2": node("Show", value=["1", 0])})
    assert result.outputs["2"] == {"text": [0, 1, 2]}


def test_ui_is_joined_for_the_keys_of_the_first_call():
    assert merge_uis([{"a": [1]}, {"a": [2], "b": [3]}, {}]) == {"a": [1, 2]}
    assert merge_uis([]) == {}


def test_an_interruption_is_noticed_between_two_elements(rig):
    def run(self, value):
        rig.note(value)
        execution.comfy.interruption.interrupt_current_processing()
        return {}

    rig.add(Slow=make(run, {"value": INT}, returns=(), OUTPUT_NODE=True))
    result = rig.run({"1": node("Range", value=3), "2": node("Slow", value=["1", 0])})
    assert rig.calls == [0]
    assert result.of("execution_interrupted")


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ((5,), 5),
        ([5], 5),
        ({"result": (5,)}, 5),
        ({"ui": {"text": ["x"]}, "result": (5,)}, 5),
        ((5, 6, 7), 5),
        (SimpleNamespace(result=(5,), ui=None, expand=None, block_execution=None), 5),
        (
            SimpleNamespace(
                result=(5,),
                ui=SimpleNamespace(as_dict=lambda: {"text": ["x"]}),
                expand=None,
                block_execution=None,
            ),
            5,
        ),
    ],
)
def test_forms_of_return_values(rig, returned, expected):
    gives(rig, "Gives", returned)
    seen = collect(rig)
    result = rig.run({"1": node("Gives"), "2": node("Collect", a=["1", 0])})
    assert seen == [{"a": expected}]
    assert ("1" in result.outputs) is (
        not isinstance(returned, (tuple, list)) and "ui" in str(returned) and "ui=None" not in str(returned)
    )


def test_a_slot_that_was_not_returned_is_none(rig):
    gives(rig, "Short", (1,), returns=("INT", "INT"))
    seen = collect(rig)
    rig.run({"1": node("Short"), "2": node("Collect", a=["1", 1])})
    assert seen == [{"a": None}]


def test_none_is_fine_for_a_node_without_outputs(rig):
    rig.add(Sink=make(lambda self: None, {}, returns=(), OUTPUT_NODE=True))
    assert rig.run({"1": node("Sink")}).success


def test_none_from_a_node_with_outputs_is_an_error_that_says_so(rig):
    gives(rig, "Nothing", None)
    collect(rig)
    result = rig.run({"1": node("Nothing"), "2": node("Collect", a=["1", 0])})
    assert "returned None, but it declares 1 outputs" in result.failure["exception_message"]
    assert result.failure["node_id"] == "1"


def test_a_replaced_get_output_data_is_used(rig, monkeypatch):
    original, seen = execution.get_output_data, []

    async def traced(*args, **kwargs):
        seen.append(args[1])
        return await original(*args, **kwargs)

    monkeypatch.setattr(execution, "get_output_data", traced)
    rig.run({"1": node("Number", value=1), "2": node("Show", value=["1", 0])})
    assert seen == ["1", "2"]


def test_a_replaced_function_that_calls_nodes_is_used(rig, monkeypatch):
    original, seen = execution._async_map_node_over_list, []

    async def traced(prompt_id, unique_id, obj, values, func, *args, **kwargs):
        seen.append((unique_id, func))
        return await original(prompt_id, unique_id, obj, values, func, *args, **kwargs)

    monkeypatch.setattr(execution, "_async_map_node_over_list", traced)
    rig.run({"1": node("Number", value=1), "2": node("Show", value=["1", 0])})
    assert seen == [("1", "run"), ("2", "run")]


def test_a_replaced_function_that_reads_returns_is_used(rig, monkeypatch):
    original = execution.get_output_from_returns

    def negated(values, obj):
        outputs, ui, expands = original(values, obj)
        return [[-value for value in many] for many in outputs], ui, expands

    monkeypatch.setattr(execution, "get_output_from_returns", negated)
    result = rig.run({"1": node("Number", value=1), "2": node("Show", value=["1", 0])})
    assert result.outputs["2"] == {"text": [-1]}


@pytest.mark.parametrize("name", ["execute", "get_output_data", "_async_map_node_over_list"])
def test_a_function_that_a_node_replaces_while_the_prompt_runs_is_used_from_the_next_node_on(
    rig, monkeypatch, name
):
    original, calls = getattr(execution, name), []

    async def traced(*args, **kwargs):
        calls.append(name)
        return await original(*args, **kwargs)

    def replace(self, value):
        monkeypatch.setattr(execution, name, traced)
        return (value,)

    rig.add(Replace=make(replace, {"value": INT}))
    graph = {
        "1": node("Number", value=1),
        "2": node("Replace", value=["1", 0]),
        "3": node("Add", a=["2", 0]),
        "4": node("Show", value=["3", 0]),
    }
    assert rig.run(graph).outputs["4"] == {"text": [2]}
    assert calls == [name, name]


def test_a_replaced_execute_is_used(rig, monkeypatch):
    original, seen = execution.execute, []

    async def traced(server, dynprompt, caches, current_item, *args):
        seen.append(current_item)
        return await original(server, dynprompt, caches, current_item, *args)

    monkeypatch.setattr(execution, "execute", traced)
    rig.run({"1": node("Number", value=1), "2": node("Show", value=["1", 0])})
    assert seen == ["1", "2"]


def test_input_data_can_be_asked_for_by_packs(rig):
    values, missing, other = execution.get_input_data(
        {"a": ["9", 0], "b": 2}, nodes.NODE_CLASS_MAPPINGS["Add"], "1"
    )
    assert (values, missing, other) == ({"a": (None,), "b": [2]}, {"a": True}, {})

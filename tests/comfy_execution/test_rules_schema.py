"""The rules of node classes that describe themselves in a schema (V3)."""

import asyncio
import gc
import itertools

import pytest

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from tests.comfy_execution.rig import INT, execution, given, make, node, schema_node

# -- what is called with what ----------------------------------------------------------------------------


def test_a_schema_node_runs_between_others(rig):
    rig.add(Double=schema_node(lambda cls, value: io.NodeOutput(2 * value), [io.Int.Input("value")]))
    result = rig.run(
        {"1": node("Number", value=4), "2": node("Double", value=["1", 0]), "3": node("Show", value=["2", 0])}
    )
    assert result.outputs["3"] == {"text": [8]}
    assert result.ran == ["1", "2", "3"]


def test_rule_5_an_input_that_is_not_declared_is_dropped_unless_all_are_accepted(rig):
    given(rig, inputs=[io.Int.Input("a")])
    prompt = {"1": node("Given", a=1, b=2, c=["9", 0]), "9": node("Number", value=5)}
    rig.run(prompt)
    assert rig.calls[-1] == {"a": 1, "c": 5}  # the function takes any keyword, so the link is followed
    rig.executor.reset()
    given(rig, inputs=[io.Int.Input("a")], accept_all_inputs=True)
    rig.run(prompt)
    assert rig.calls[-1] == {"a": 1, "b": 2, "c": 5}


def test_rule_5_a_link_to_an_input_that_is_not_declared_is_dropped_if_the_function_cannot_take_it(rig):
    rig.add(Narrow=schema_node(lambda cls, a: rig.note(a), [io.Int.Input("a")], (), is_output_node=True))
    result = rig.run({"1": node("Narrow", a=1, c=["9", 0]), "9": node("Number", value=5)})
    assert result.ran == ["1"]


def test_rule_13_a_match_type_takes_any_type(rig):
    template = io.MatchType.Template("T")
    rig.add(
        Same=schema_node(
            lambda cls, value: io.NodeOutput(value),
            [io.MatchType.Input("value", template)],
            [io.MatchType.Output(template)],
        )
    )
    prompt = {
        "1": node("Number", value=3),
        "2": node("Same", value=["1", 0]),
        "3": node("Add", a=["2", 0]),
        "4": node("Show", value=["3", 0]),
    }
    assert rig.run(prompt).outputs["4"] == {"text": [4]}


def test_rule_13_a_multi_type_takes_the_types_it_names(rig):
    given(rig, inputs=[io.MultiType.Input("value", [io.Image, io.Int])])
    assert rig.run({"1": node("Number", value=3), "2": node("Given", value=["1", 0])}).success
    given(rig, inputs=[io.MultiType.Input("value", [io.Image, io.Mask])])
    error = rig.validate({"1": node("Number", value=3), "2": node("Given", value=["1", 0])}).node_errors["2"]
    assert error["errors"][0]["details"] == "value, received_type(INT) mismatch input_type(IMAGE,MASK)"


def test_rule_19_a_raw_link_is_given_as_it_stands_and_its_node_runs_first(rig):
    given(rig, inputs=[io.Int.Input("value", raw_link=True)])
    result = rig.run({"1": node("Number", value=3), "2": node("Given", value=["1", 0])})
    assert rig.calls[-1] == {"value": ["1", 0]}
    assert result.ran == ["1", "2"]


def test_rule_26_a_schema_node_is_called_per_element(rig):
    given(rig, inputs=[io.Int.Input("value")])
    rig.run({"1": node("Range", value=3), "2": node("Given", value=["1", 0])})
    assert rig.calls == [{"value": 0}, {"value": 1}, {"value": 2}]


def test_rule_28_an_input_list_gives_all_values_at_once(rig):
    given(rig, inputs=[io.Int.Input("value"), io.Int.Input("b")], is_input_list=True)
    rig.run({"1": node("Range", value=3), "2": node("Given", value=["1", 0], b=7)})
    assert rig.calls == [{"value": [0, 1, 2], "b": [7]}]


def test_rule_29_an_output_list_spreads_its_items(rig):
    rig.add(Two=schema_node(lambda cls: io.NodeOutput([5, 6]), outputs=[io.Int.Output(is_output_list=True)]))
    rig.run({"1": node("Two"), "2": node("Show", value=["1", 0])})
    assert rig.calls == [("Show", 5), ("Show", 6)]


# -- hidden values ---------------------------------------------------------------------------------------


def test_rule_24_hidden_values_are_an_attribute_of_the_class(rig):
    kinds = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.dynprompt]

    def execute(cls):
        rig.note(
            (
                cls.hidden.unique_id,
                cls.hidden.prompt,
                cls.hidden.extra_pnginfo,
                cls.hidden.dynprompt,
                cls.hidden.api_key_comfy_org,
                cls.hidden.nothing_known,
            )
        )

    rig.add(Asks=schema_node(execute, outputs=(), hidden=kinds, is_output_node=True))
    prompt = {"7": node("Asks")}
    rig.run(prompt, extra_data={"extra_pnginfo": {"workflow": 1}, "api_key_comfy_org": "secret"})
    unique_id, seen, info, dynprompt, key, other = rig.calls[0]
    assert (unique_id, seen, info, key, other) == ("7", prompt, {"workflow": 1}, None, None)
    assert dynprompt.get_node("7") is prompt["7"]


def test_rule_24_output_nodes_get_the_prompt_and_api_nodes_the_tokens(rig):
    def execute(cls):
        rig.note(
            (
                cls.hidden.prompt,
                cls.hidden.extra_pnginfo,
                cls.hidden.auth_token_comfy_org,
                cls.hidden.api_key_comfy_org,
                cls.hidden.comfy_usage_source,
            )
        )

    extra = {
        "extra_pnginfo": {"a": 1},
        "auth_token_comfy_org": "t",
        "api_key_comfy_org": "k",
        "comfy_usage_source": "cli",
    }
    rig.add(Output=schema_node(execute, outputs=(), is_output_node=True))
    prompt = {"1": node("Output")}
    rig.run(prompt, extra_data=extra)
    assert rig.calls == [(prompt, {"a": 1}, None, None, None)]
    rig.add(Paid=schema_node(execute, outputs=(), is_output_node=True, is_api_node=True))
    prompt = {"1": node("Paid")}
    rig.run(prompt, extra_data=extra)
    assert rig.calls == [(prompt, {"a": 1}, "t", "k", "cli")]


def test_rule_24_nodes_that_run_side_by_side_have_their_own_hidden_values(rig):
    async def execute(cls, value):
        before = cls.hidden.unique_id
        await asyncio.sleep(0.02)
        rig.note((before, cls.hidden.unique_id))

    rig.add(
        Slow=schema_node(
            execute, [io.Int.Input("value")], (), is_output_node=True, hidden=[io.Hidden.unique_id]
        )
    )
    rig.run({"1": node("Slow", value=1), "2": node("Slow", value=2)})
    assert sorted(rig.calls) == [("1", "1"), ("2", "2")]


def test_rule_61_a_hidden_id_makes_the_node_id_part_of_its_key(rig):
    counter = itertools.count()
    for name, hidden in (("Plain", []), ("Own", [io.Hidden.unique_id])):
        rig.add(**{name: schema_node(lambda cls: io.NodeOutput(next(counter)), hidden=hidden)})
    plain, own = (
        {
            "1": node(name),
            "2": node(name),
            "3": node("Show", value=["1", 0]),
            "4": node("Show", value=["2", 0]),
        }
        for name in ("Plain", "Own")
    )
    shown = rig.run(plain).outputs
    assert shown["3"] == shown["4"]
    shown = rig.run(own).outputs
    assert shown["3"] != shown["4"]


def test_rule_97_not_idempotent_makes_the_node_id_part_of_its_key(rig):
    counter = itertools.count()
    rig.add(Own=schema_node(lambda cls: io.NodeOutput(next(counter)), not_idempotent=True))
    shown = rig.run(
        {
            "1": node("Own"),
            "2": node("Own"),
            "3": node("Show", value=["1", 0]),
            "4": node("Show", value=["2", 0]),
        }
    ).outputs
    assert shown["3"] != shown["4"]


# -- what comes back -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "returned",
    [io.NodeOutput(5), (5,), {"result": (5,)}, io.NodeOutput(5, ui={"text": ["x"]}), io.NodeOutput(5, 6)],
    ids=["NodeOutput", "tuple", "dict", "with ui", "longer"],
)
def test_rules_33_to_35_what_a_schema_node_may_return(rig, returned):
    rig.add(Gives=schema_node(lambda cls: returned))
    assert rig.run({"1": node("Gives"), "2": node("Show", value=["1", 0])}).outputs["2"] == {"text": [5]}


@pytest.mark.parametrize("returned", [None, io.NodeOutput(), io.NodeOutput(ui={"text": ["x"]})])
def test_rule_35_a_node_may_return_nothing(rig, returned):
    rig.add(Quiet=schema_node(lambda cls: returned))
    result = rig.run({"1": node("Quiet"), "2": node("Show", value=["1", 0])})
    assert result.success and result.outputs["2"] == {"text": [None]}


@pytest.mark.parametrize("returned", ["x", 5, [5]])
def test_rule_35_anything_else_is_an_error(rig, returned):
    rig.add(Gives=schema_node(lambda cls: returned))
    failure = rig.run({"1": node("Gives"), "2": node("Show", value=["1", 0])}).failure
    assert failure["node_id"] == "1" and "must return io.NodeOutput" in failure["exception_message"]


@pytest.mark.parametrize(
    "returned",
    [
        ExecutionBlocker("no"),
        io.NodeOutput(block_execution="no"),
        io.NodeOutput(1, block_execution="no"),
        {"result": ExecutionBlocker("no")},
    ],
)
def test_rule_33_a_blocker_fills_all_outputs(rig, returned):
    rig.add(Blocks=schema_node(lambda cls: returned, outputs=[io.Int.Output(), io.Int.Output()]))
    result = rig.run({"1": node("Blocks"), "2": node("Show", value=["1", 1])})
    assert result.success and result.outputs == {}
    assert result.failure["exception_message"] == "Execution Blocked: no"


@pytest.mark.parametrize("returned", [ExecutionBlocker(None), {"result": ExecutionBlocker(None)}])
def test_rule_43_a_silent_blocker_stays_silent(rig, returned):
    rig.add(Blocks=schema_node(lambda cls: returned))
    result = rig.run({"1": node("Blocks"), "2": node("Show", value=["1", 0])})
    assert result.success and result.failure is None and rig.calls == []


def test_rule_36_ui_of_a_schema_node_is_shown_again_from_the_cache(rig):
    rig.add(
        Shows=schema_node(lambda cls: io.NodeOutput(ui={"text": ["hi"]}), outputs=(), is_output_node=True)
    )
    first, second = rig.run({"1": node("Shows")}), rig.run({"1": node("Shows")})
    assert first.outputs == second.outputs == {"1": {"text": ["hi"]}}
    assert second.cached == ["1"] and second.of("executed")[0]["output"] == {"text": ["hi"]}


def test_rule_53_expansion_has_to_be_allowed_by_the_schema(rig):
    def execute(cls, value):
        graph = GraphBuilder()
        inner = graph.node("Add", a=value, b=10)
        return io.NodeOutput(inner.out(0), expand=graph.finalize())

    prompt = {"1": node("Grows", value=1), "2": node("Show", value=["1", 0])}
    rig.add(Grows=schema_node(execute, [io.Int.Input("value")], enable_expand=True))
    assert rig.run(prompt).outputs["2"] == {"text": [11]}
    rig.add(Grows=schema_node(execute, [io.Int.Input("value")]))
    rig.executor.reset()
    assert "Set enable_expand=True" in rig.run(prompt).failure["exception_message"]


def test_rule_65_an_intermediate_output_is_shown_again_but_does_not_start_a_prompt(rig):
    rig.add(
        Middle=schema_node(
            lambda cls: io.NodeOutput(3, ui={"text": ["mid"]}),
            has_intermediate_output=True,
        )
    )
    assert not rig.validate({"1": node("Middle")}).valid
    prompt = {"1": node("Middle"), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert rig.run(prompt).outputs["1"] == {"text": ["mid"]}


# -- other functions of the class ------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_rules_62_and_63_a_fingerprint_decides_whether_the_node_runs_again(rig, is_async):
    prints = {"value": 1}

    def fingerprint(cls, a, b):
        rig.note(("print", a, b))
        return prints["value"]

    async def fingerprint_async(cls, a, b):
        return fingerprint(cls, a, b)

    rig.add(
        Prints=schema_node(
            lambda cls, a, b: io.NodeOutput(a),
            [io.Int.Input("a"), io.Int.Input("b")],
            functions={"fingerprint_inputs": fingerprint_async if is_async else fingerprint},
        )
    )
    prompt = {
        "1": node("Prints", a=1, b=["9", 0]),
        "2": node("Show", value=["1", 0]),
        "9": node("Number", value=2),
    }
    assert "1" in rig.run(prompt).ran
    assert rig.calls[0] == ("print", 1, None)  # links are not known yet
    assert rig.run(prompt).ran == []
    prints["value"] = 2
    assert rig.run(prompt).ran == ["1", "2"]
    prints["value"] = float("nan")
    assert rig.run(prompt).ran == rig.run(prompt).ran == ["1", "2"]


def test_rule_63_a_fingerprint_that_fails_makes_the_node_run(rig):
    rig.add(
        Prints=schema_node(lambda cls: io.NodeOutput(1), functions={"fingerprint_inputs": lambda cls: 1 / 0})
    )
    prompt = {"1": node("Prints"), "2": node("Show", value=["1", 0])}
    assert rig.run(prompt).ran == rig.run(prompt).ran == ["1", "2"]


@pytest.mark.parametrize(("verdict", "details"), [(True, None), (False, "a"), ("too odd", "a - too odd")])
@pytest.mark.parametrize("is_async", [False, True])
def test_rule_15_validate_inputs_gets_the_inputs_it_names(rig, verdict, details, is_async):
    def validate(cls, a):
        rig.note((a, cls.hidden.unique_id))
        return verdict

    async def validate_async(cls, a):
        return validate(cls, a)

    rig.add(
        Checks=schema_node(
            lambda cls, a, b: None,
            [io.Int.Input("a", max=3), io.Int.Input("b")],
            (),
            is_output_node=True,
            functions={"validate_inputs": validate_async if is_async else validate},
            hidden=[io.Hidden.unique_id],
        )
    )
    result = rig.validate(
        {"1": node("Checks", a=9, b=1)}
    )  # 9 is over the maximum, which the class checks itself
    assert rig.calls == [(9, "1")]
    assert result.valid is (details is None)
    if details:
        error = result.node_errors["1"]["errors"][0]
        assert (error["type"], error["details"]) == ("custom_validation_failed", details)


def test_rule_99_placeholders_are_never_called(rig):
    rig.add(Plain=schema_node(lambda cls, a: io.NodeOutput(a), [io.Int.Input("a", lazy=True)]))
    result = rig.run(
        {"1": node("Number", value=1), "2": node("Plain", a=["1", 0]), "3": node("Show", value=["2", 0])}
    )
    assert result.outputs["3"] == {"text": [None]}  # lazy, and nobody asks for it


@pytest.mark.parametrize("is_async", [False, True])
def test_rules_38_and_99_check_lazy_status_asks_for_inputs(rig, is_async):
    def check(cls, first, a, b):
        rig.note(("asked", a, b))
        return ["a"] if first else ["b"]

    async def check_async(cls, first, a, b):
        return check(cls, first, a, b)

    rig.add(
        Switch=schema_node(
            lambda cls, first, a, b: io.NodeOutput(a if first else b),
            [io.Boolean.Input("first"), io.Int.Input("a", lazy=True), io.Int.Input("b", lazy=True)],
            functions={"check_lazy_status": check_async if is_async else check},
        )
    )
    result = rig.run(
        {
            "1": node("Number", value=1),
            "2": node("Number", value=2),
            "3": node("Switch", first=False, a=["1", 0], b=["2", 0]),
            "4": node("Show", value=["3", 0]),
        }
    )
    assert result.outputs["4"] == {"text": [2]}
    assert [call for call in rig.calls if call[0] == "asked"] == [("asked", None, None), ("asked", None, 2)]
    assert "1" not in result.ran


def test_rule_98_the_class_cannot_be_written_to_while_it_runs(rig):
    def execute(cls):
        cls.x = 1

    klass = schema_node(execute)
    rig.add(Writes=klass)
    failure = rig.run({"1": node("Writes"), "2": node("Show", value=["1", 0])}).failure
    assert failure["exception_type"] == "AttributeError"
    assert "'x' of TestNode cannot be changed while the node runs" in failure["exception_message"]
    assert not hasattr(klass, "x")


@pytest.mark.parametrize("is_async", [False, True])
def test_rule_97_function_says_whether_execute_is_asynchronous(rig, is_async):
    async def execute(cls, value):
        await asyncio.sleep(0)
        return io.NodeOutput(value)

    klass = schema_node(
        execute if is_async else lambda cls, value: io.NodeOutput(value), [io.Int.Input("value")]
    )
    assert klass.FUNCTION == ("EXECUTE_NORMALIZED_ASYNC" if is_async else "EXECUTE_NORMALIZED")
    rig.add(Gives=klass)
    result = rig.run({"1": node("Gives", value=6), "2": node("Show", value=["1", 0])})
    assert result.outputs["2"] == {"text": [6]}


def test_rule_56_asynchronous_schema_nodes_overlap(rig):
    running = []

    async def execute(cls, value):
        running.append(value)
        for _ in range(200):
            if len(running) == 2:
                return io.NodeOutput(value)
            await asyncio.sleep(0.01)
        return io.NodeOutput(-1)

    rig.add(Waits=schema_node(execute, [io.Int.Input("value")]))
    result = rig.run(
        {
            "1": node("Waits", value=1),
            "2": node("Waits", value=2),
            "3": node("Add", a=["1", 0], b=["2", 0]),
            "4": node("Show", value=["3", 0]),
        }
    )
    assert result.outputs["4"] == {"text": [3]}


# -- seen from packs -------------------------------------------------------------------------------------


def test_packs_that_call_the_functions_of_execution_are_given_the_data_of_a_visit(rig):
    klass = schema_node(
        lambda cls, many: io.NodeOutput((cls.hidden.unique_id, many)),
        [io.Autogrow.Input("many", io.Autogrow.TemplatePrefix(io.Int.Input("number"), "n", min=0))],
        hidden=[io.Hidden.unique_id],
    )
    values, missing, data = execution.get_input_data({"many.n1": 4}, klass, "5")
    assert (values, missing) == ({"many.n1": [4]}, {})
    outputs, ui, expands, waits = asyncio.run(
        execution.get_output_data("p", "5", klass(), values, v3_data=data)
    )
    assert outputs == [[("5", {"n1": 4})]] and not ui and not expands and not waits


def test_nodes_of_the_older_interface_know_nothing_of_schemas(rig):
    assert execution.get_input_data({"a": 1}, make(lambda self, a: (a,), {"a": INT}), "5")[2] == {}


def test_clones_of_a_class_do_not_outlive_their_visit(rig):
    klass = schema_node(
        lambda cls, many: io.NodeOutput(len(many)),
        [io.Autogrow.Input("many", io.Autogrow.TemplatePrefix(io.Int.Input("number"), "n", min=0))],
        hidden=[io.Hidden.prompt],
    )
    rig.add(Counts=klass)
    for value in range(5):
        rig.run({"1": node("Counts", **{"many.n0": value}), "2": node("Show", value=["1", 0])})
    gc.collect()
    assert klass.__subclasses__() == []

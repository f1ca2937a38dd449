"""Which nodes are considered, and how inputs are validated."""

import pytest

from comfy_execution.validation import validate_node_input
from tests.comfy_execution.rig import INT, make, node


class AnyType(str):
    """The usual way of packs to make a type that matches everything."""

    def __ne__(self, other):
        return False


class AnyName(dict):
    """The usual way of packs to take inputs of any name."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return (AnyType("*"),)


def errors_of(result, node_id):
    return result.node_errors[node_id]["errors"]


def types_of(result, node_id):
    return [error["type"] for error in errors_of(result, node_id)]


def test_a_prompt_without_an_output_node_is_refused(rig):
    result = rig.validate({"1": node("Number", value=1)})
    assert not result.valid
    assert result.error == {
        "type": "prompt_no_outputs",
        "message": "Prompt has no outputs",
        "details": "",
        "extra_info": {},
    }


def test_partial_execution_keeps_only_the_named_outputs(rig):
    prompt = {
        "1": node("Number", value=1),
        "2": node("Show", value=["1", 0]),
        "3": node("Show", value=["1", 0]),
    }
    assert list(rig.run(prompt, targets=["3"]).outputs) == ["3"]


def test_partial_execution_of_nothing_leaves_no_outputs(rig):
    assert rig.validate({"1": node("Show", value=1)}, targets=[]).error["type"] == "prompt_no_outputs"


def test_an_unknown_class_is_refused_even_where_nothing_needs_it(rig):
    prompt = {"1": node("Show", value=1), "9": {**node("Gone"), "_meta": {"title": "My node"}}}
    error = rig.validate(prompt).error
    assert error["type"] == "missing_node_type"
    assert error["extra_info"] == {"node_id": "9", "class_type": "Gone", "node_title": "My node"}
    assert "My node" in error["message"]
    assert "Install the node pack" in error["message"]


def test_a_node_without_a_class_is_refused(rig):
    error = rig.validate({"1": {"inputs": {}}}).error
    assert error["type"] == "missing_node_type"
    assert error["extra_info"]["class_type"] is None
    assert "has no class_type" in error["message"]


@pytest.mark.parametrize(
    "prompt", [None, [], "text", {"1": None}, {"1": {"class_type": "Show", "inputs": []}}]
)
def test_what_is_no_graph_is_refused(rig, prompt):
    assert rig.validate(prompt).error["type"] == "invalid_prompt"


def test_a_failing_output_is_left_out_and_the_rest_runs(rig):
    prompt = {"1": node("Show", value=1), "2": node("Show")}
    result = rig.run(prompt)
    assert list(result.outputs) == ["1"]
    assert types_of(result, "2") == ["required_input_missing"]
    assert result.node_errors["2"]["class_type"] == "Show"


def test_a_literal_of_an_undeclared_name_is_not_passed(rig):
    assert rig.run({"1": node("Number", value=1, more=2), "2": node("Show", value=["1", 0])}).success


def test_a_link_of_an_undeclared_name_is_passed_to_who_takes_it(rig):
    seen = []
    rig.add(
        Takes=make(lambda self, **all: seen.append(all) or (1,), {}),
        Strict=make(lambda self: seen.append({}) or (1,), {}),
    )
    rig.run(
        {
            "1": node("Number", value=5),
            "2": node("Takes", extra=["1", 0]),
            "3": node("Strict", extra=["1", 0]),
            "4": node("Show", value=["2", 0]),
            "5": node("Show", value=["3", 0]),
        }
    )
    assert sorted(seen, key=len) == [{}, {"extra": 5}]


def test_a_missing_required_input(rig):
    result = rig.validate({"1": node("Show")})
    assert errors_of(result, "1") == [
        {
            "type": "required_input_missing",
            "message": "Required input is missing",
            "details": "value",
            "extra_info": {"input_name": "value"},
        }
    ]
    assert result.error["type"] == "prompt_outputs_failed_validation"
    assert result.error["details"] == "Required input is missing: value"


def test_a_list_is_a_link_and_has_two_elements(rig):
    result = rig.validate({"1": node("Show", value=["1", 0, 0])})
    (error,) = errors_of(result, "1")
    assert error["type"] == "bad_linked_input"
    assert error["extra_info"] == {
        "input_name": "value",
        "input_config": ("*", {}),
        "received_value": ["1", 0, 0],
    }


def test_a_wrapped_value_is_a_literal_list(rig):
    prompt = {"1": node("Show", value={"__value__": [1, 2, 3]})}
    assert rig.run(prompt).outputs["1"] == {"text": [[1, 2, 3]]}
    assert prompt["1"]["inputs"]["value"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        ("INT", "12", 12),
        ("INT", 3.7, 3),
        ("FLOAT", "1.5", 1.5),
        ("FLOAT", 2, 2.0),
        ("STRING", 5, "5"),
        ("BOOLEAN", "false", True),
        ("BOOLEAN", 0, False),
    ],
)
def test_literals_become_their_declared_type_in_the_stored_prompt(rig, kind, given, stored):
    rig.add(Typed=make(lambda self, value: {}, {"value": (kind, {})}, returns=(), OUTPUT_NODE=True))
    prompt = {"1": node("Typed", value=given)}
    assert rig.validate(prompt).valid
    value = prompt["1"]["inputs"]["value"]
    assert (value, type(value)) == (stored, type(stored))


def test_a_literal_that_is_not_of_its_type(rig):
    rig.add(Typed=make(lambda self, value: {}, {"value": ("INT", {})}, returns=(), OUTPUT_NODE=True))
    (error,) = errors_of(rig.validate({"1": node("Typed", value="many")}), "1")
    assert error["type"] == "invalid_input_type"
    assert error["message"] == "Failed to convert an input value to a INT value"
    assert error["extra_info"]["received_value"] == "many"
    assert "invalid literal" in error["extra_info"]["exception_message"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, "value_smaller_than_min"),
        (1, None),
        (5, None),
        (6, "value_bigger_than_max"),
    ],
)
def test_limits_include_their_ends(rig, value, kind):
    rig.add(
        Limited=make(
            lambda self, value: {}, {"value": ("INT", {"min": 1, "max": 5})}, returns=(), OUTPUT_NODE=True
        )
    )
    result = rig.validate({"1": node("Limited", value=value)})
    assert result.valid is (kind is None)
    if kind:
        (error,) = errors_of(result, "1")
        assert error["type"] == kind
        assert error["extra_info"]["received_value"] == value
        assert error["extra_info"]["input_config"] == ("INT", {"min": 1, "max": 5})


@pytest.mark.parametrize("spec", [(["a", "b"],), ("COMBO", {"options": ["a", "b"]})])
def test_a_choice_must_be_in_the_list(rig, spec):
    rig.add(Choice=make(lambda self, value: {}, {"value": spec}, returns=(), OUTPUT_NODE=True))
    assert rig.validate({"1": node("Choice", value="a")}).valid
    (error,) = errors_of(rig.validate({"1": node("Choice", value="c")}), "1")
    assert error["type"] == "value_not_in_list"
    assert error["details"] == "value: 'c' not in ['a', 'b']"
    assert error["extra_info"]["input_config"] is not None


def test_a_long_list_of_choices_is_not_sent_back(rig):
    rig.add(
        Choice=make(
            lambda self, value: {}, {"value": ([str(i) for i in range(21)],)}, returns=(), OUTPUT_NODE=True
        )
    )
    (error,) = errors_of(rig.validate({"1": node("Choice", value="c")}), "1")
    assert error["details"] == "value: 'c' not in (list of length 21)"
    assert error["extra_info"]["input_config"] is None


def test_each_element_of_a_multiple_choice_is_checked(rig):
    spec = ("COMBO", {"options": ["a", "b"], "multiselect": True})
    rig.add(Choice=make(lambda self, value: {}, {"value": spec}, returns=(), OUTPUT_NODE=True))
    assert rig.validate({"1": node("Choice", value={"__value__": ["a", "b"]})}).valid
    (error,) = errors_of(rig.validate({"1": node("Choice", value={"__value__": ["a", "x"]})}), "1")
    assert error["details"].startswith("value: 'x' not in")


@pytest.mark.parametrize("by_keywords", [False, True])
def test_who_validates_an_input_itself_is_not_bound_by_its_list(rig, by_keywords):
    if by_keywords:
        validate = classmethod(lambda cls, **all: True)
    else:
        validate = classmethod(lambda cls, value: True)
    rig.add(
        Loads=make(
            lambda self, value: {},
            {"value": (["a"],)},
            returns=(),
            OUTPUT_NODE=True,
            VALIDATE_INPUTS=validate,
        )
    )
    assert rig.validate({"1": node("Loads", value="new file")}).valid


@pytest.mark.parametrize(
    ("received", "accepted", "fits"),
    [
        ("INT", "INT", True),
        ("INT", "FLOAT", False),
        ("*", "FLOAT", True),
        ("INT", "*", True),
        ("INT,FLOAT", "INT", True),
        ("INT", "STRING, INT", True),
        ("INT,FLOAT", "STRING,MASK", False),
        (["a", "b"], "COMBO", True),
        (["a", "b"], "STRING", False),
        (["a"], ["a"], True),
        (AnyType("*"), "MODEL", True),
        ("MODEL", AnyType("x"), True),
        (AnyType("x"), "MODEL", True),
        ("COMFY_MATCHTYPE_V3", "MODEL", True),
        ("MODEL", "COMFY_MATCHTYPE_V3", True),
    ],
)
def test_which_types_may_be_linked(received, accepted, fits):
    assert validate_node_input(received, accepted) is fits


def test_a_strict_check_wants_every_received_type():
    assert not validate_node_input("INT,FLOAT", "INT", strict=True)
    assert validate_node_input("INT", "INT,FLOAT", strict=True)


def test_a_link_of_another_type(rig):
    rig.add(Text=make(lambda self, value: {}, {"value": ("STRING", {})}, returns=(), OUTPUT_NODE=True))
    (error,) = errors_of(rig.validate({"1": node("Number", value=1), "2": node("Text", value=["1", 0])}), "2")
    assert error["type"] == "return_type_mismatch"
    assert error["details"] == "value, received_type(INT) mismatch input_type(STRING)"
    assert error["extra_info"] == {
        "input_name": "value",
        "input_config": ("STRING", {}),
        "received_type": "INT",
        "linked_node": ["1", 0],
    }


def test_a_class_that_looks_at_types_itself_gets_them(rig):
    seen = []

    def validate(cls, input_types):
        seen.append(input_types)
        return input_types["value"] == "INT" or "only numbers"

    rig.add(
        Picky=make(
            lambda self, value: {},
            {"value": ("STRING", {})},
            returns=(),
            OUTPUT_NODE=True,
            VALIDATE_INPUTS=classmethod(validate),
        )
    )
    assert rig.validate({"1": node("Number", value=1), "2": node("Picky", value=["1", 0])}).valid
    assert seen == [{"value": "INT"}]


def test_declared_dictionaries_are_asked_with_in(rig):
    seen = {}
    rig.add(Flexible=make(lambda self, **all: seen.update(all) or (1,), {}, optional=AnyName()))
    rig.run(
        {
            "1": node("Number", value=7),
            "2": node("Flexible", a=["1", 0], b="text"),
            "3": node("Show", value=["2", 0]),
        }
    )
    assert seen == {"a": 7, "b": "text"}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("answer", "details"), [(False, "value"), ("bad", "value - bad")])
def test_custom_validation_that_fails(rig, is_async, answer, details):
    async def slow(cls, value):
        return answer

    def quick(cls, value):
        return answer

    rig.add(
        Own=make(
            lambda self, value: {},
            {"value": INT},
            returns=(),
            OUTPUT_NODE=True,
            VALIDATE_INPUTS=classmethod(slow if is_async else quick),
        )
    )
    assert errors_of(rig.validate({"1": node("Own", value=1)}), "1") == [
        {
            "type": "custom_validation_failed",
            "message": "Custom validation failed for node",
            "details": details,
            "extra_info": {"input_name": "value"},
        }
    ]


def test_custom_validation_gets_none_for_a_link(rig):
    seen = []
    rig.add(
        Own=make(
            lambda self, value, other=0: {},
            {"value": INT},
            optional={"other": INT},
            returns=(),
            OUTPUT_NODE=True,
            VALIDATE_INPUTS=classmethod(lambda cls, **all: seen.append(all) or True),
        )
    )
    rig.validate({"1": node("Number", value=1), "2": node("Own", value=["1", 0])})
    assert seen == [{"value": None}]


def fails(cls, **all):
    raise ValueError("broken check")


def test_an_exception_while_an_output_is_validated(rig):
    rig.add(
        Bad=make(
            lambda self, value: {},
            {"value": INT},
            returns=(),
            OUTPUT_NODE=True,
            VALIDATE_INPUTS=classmethod(fails),
        )
    )
    (error,) = errors_of(rig.validate({"1": node("Bad", value=1)}), "1")
    assert error["type"] == "exception_during_validation"
    assert error["details"] == "broken check"
    assert error["extra_info"]["exception_type"] == "ValueError"
    assert any("broken check" in line for line in error["extra_info"]["traceback"])


def test_an_exception_above_an_output_is_put_down_to_the_inner_node(rig):
    rig.add(Bad=make(lambda self, value: (1,), {"value": INT}, VALIDATE_INPUTS=classmethod(fails)))
    result = rig.validate({"1": node("Bad", value=1), "2": node("Show", value=["1", 0])})
    assert list(result.node_errors) == ["1"]
    (error,) = errors_of(result, "1")
    assert error["type"] == "exception_during_inner_validation"
    assert error["extra_info"]["linked_node"] == ["1", 0]
    assert error["extra_info"]["input_name"] == "value"
    assert result.node_errors["1"]["dependent_outputs"] == ["2"]


def test_input_types_that_raise_are_put_down_to_their_node(rig):
    rig.add(Bad=make(lambda self: (1,), {}, INPUT_TYPES=classmethod(fails)))
    result = rig.validate({"1": node("Bad"), "2": node("Show", value=["1", 0])})
    assert types_of(result, "1") == ["exception_during_inner_validation"]


def test_a_link_to_no_node(rig):
    (error,) = errors_of(rig.validate({"1": node("Show", value=["7", 0])}), "1")
    assert error["type"] == "exception_during_validation"
    assert error["extra_info"]["exception_type"] == "KeyError"


def test_a_link_to_a_slot_that_does_not_exist(rig):
    (error,) = errors_of(rig.validate({"1": node("Number", value=1), "2": node("Show", value=["1", 9])}), "2")
    assert error["extra_info"]["exception_type"] == "IndexError"
    assert "Node 1 (Number) has 1 outputs" in error["details"] and "none of number 9" in error["details"]


def test_a_circle_is_reported_on_each_of_its_nodes(rig):
    prompt = {"1": node("Add", a=["2", 0]), "2": node("Add", a=["1", 0]), "3": node("Show", value=["1", 0])}
    result = rig.validate(prompt)
    assert set(result.node_errors) == {"1", "2"}
    for node_id in ("1", "2"):
        (error,) = errors_of(result, node_id)
        assert error["type"] == "dependency_cycle"
        assert error["details"] == "1 (Add) -> 2 (Add) -> 1 (Add)"
        assert error["extra_info"] == {"node_id": node_id, "cycle_nodes": ["1", "2"]}
        assert result.node_errors[node_id]["dependent_outputs"] == ["3"]


def test_a_node_that_feeds_itself(rig):
    result = rig.validate({"1": node("Add", a=["1", 0]), "2": node("Show", value=["1", 0])})
    assert types_of(result, "1") == ["dependency_cycle"]


def test_a_bad_node_is_validated_once_and_named_for_all_outputs_that_need_it(rig):
    asked = []
    rig.add(
        Bad=make(
            lambda self, value: (1,),
            {"value": INT},
            VALIDATE_INPUTS=classmethod(lambda cls, value: asked.append(1) or "no"),
        )
    )
    prompt = {"1": node("Bad", value=1), "2": node("Add", a=["1", 0])}
    prompt.update({str(i): node("Show", value=["2", 0]) for i in (3, 4, 5)})
    prompt["6"] = node("Show", value=0)
    result = rig.validate(prompt)
    assert result.valid and result.roots == ["6"]
    assert asked == [1]
    assert list(result.node_errors) == ["1"]
    assert result.node_errors["1"]["dependent_outputs"] == ["3", "4", "5"]


def test_an_output_is_not_blamed_for_nodes_it_does_not_need(rig):
    result = rig.validate({"1": node("Show"), "2": node("Show")})
    assert result.node_errors["1"]["dependent_outputs"] == ["1"]
    assert result.node_errors["2"]["dependent_outputs"] == ["2"]


def test_a_raw_link_is_given_as_it_stands(rig):
    seen = []
    rig.add(
        Raw=make(
            lambda self, value: seen.append(value) or {},
            {"value": ("INT", {"rawLink": True})},
            returns=(),
            OUTPUT_NODE=True,
        )
    )
    rig.run({"1": node("Number", value=1), "2": node("Raw", value=["1", 0])})
    assert seen == [["1", 0]]


def test_a_missing_optional_input_takes_the_default_of_the_function(rig):
    rig.run({"1": node("Add", a=1), "2": node("Show", value=["1", 0])})
    assert ("Add", 1, 1) in rig.calls


def test_an_input_that_should_be_a_link_may_be_a_literal(rig):
    rig.add(
        Forced=make(
            lambda self, value: {}, {"value": ("INT", {"forceInput": True})}, returns=(), OUTPUT_NODE=True
        )
    )
    assert rig.validate({"1": node("Forced", value=3)}).valid


def test_ten_thousand_nodes_in_a_row_and_in_a_circle_do_not_exhaust_the_stack(rig):
    chain = {"0": node("Number", value=0)}
    chain.update({str(i): node("Add", a=[str(i - 1), 0]) for i in range(1, 10_000)})
    chain["out"] = node("Show", value=["9999", 0])
    assert rig.validate(chain).valid
    chain["0"] = node("Add", a=["9999", 0])
    result = rig.validate(chain)
    assert not result.valid
    assert len(result.node_errors) == 64, "a refusal is not longer than the request"
    (error,) = next(iter(result.node_errors.values()))["errors"]
    assert error["extra_info"]["cycle_nodes"] == sorted(result.node_errors, key=int, reverse=True)
    assert "9936 more -> " in error["details"]


def bad_chain(length, outputs):
    """A chain in which every node has an error of its own, and outputs at its end."""
    prompt = {str(i): node("Add", a=[str(i - 1), 0] if i else 1, b="x") for i in range(length)}
    prompt.update({f"out{i}": node("Show", value=[str(length - 1), 0]) for i in range(outputs)})
    return prompt


@pytest.mark.slow
def test_the_refusal_of_thousands_of_bad_nodes_names_some_and_costs_no_more_than_the_request(rig, caplog):
    result = rig.validate(bad_chain(20_000, 5_000))
    assert not result.valid
    assert len(result.node_errors) == 256
    assert all(len(entry["dependent_outputs"]) == 256 for entry in result.node_errors.values())
    assert len(caplog.records) == 21
    assert caplog.records[-1].getMessage() == "5236 more errors like these."


def test_a_few_bad_nodes_in_a_row_are_all_named_with_every_output(rig):
    result = rig.validate(bad_chain(3, 2))
    assert set(result.node_errors) == {"0", "1", "2"}
    assert all(entry["dependent_outputs"] == ["out0", "out1"] for entry in result.node_errors.values())

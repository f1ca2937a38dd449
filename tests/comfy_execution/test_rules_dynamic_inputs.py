"""Rule 100: schema nodes whose inputs depend on the prompt."""

import pytest

from comfy_api.latest import io
from tests.comfy_execution.rig import given, node, schema_node


def growing(**bounds):
    return io.Autogrow.Input("many", io.Autogrow.TemplatePrefix(io.Int.Input("number"), "n", **bounds))


def test_rule_100_a_growing_input_is_given_as_a_dictionary(rig):
    given(rig, inputs=[growing(min=0, max=4), io.Int.Input("other")])
    rig.run(
        {
            "1": node("Number", value=1),
            "2": node("Number", value=2),
            "3": node("Given", **{"many.n0": ["1", 0], "many.n2": ["2", 0]}, other=9),
        }
    )
    assert rig.calls[-1] == {"many": {"n0": 1, "n2": 2}, "other": 9}
    rig.run({"3": node("Given", other=9)})
    assert rig.calls[-1] == {"many": {}, "other": 9}


def test_rule_100_values_of_a_growing_input_are_mapped_over_lists(rig):
    given(rig, inputs=[growing(min=1, max=2)])
    rig.run({"1": node("Range", value=2), "3": node("Given", **{"many.n0": ["1", 0], "many.n1": 5})})
    assert rig.calls == [{"many": {"n0": 0, "n1": 5}}, {"many": {"n0": 1, "n1": 5}}]


def test_rule_100_too_few_values_of_a_growing_input_are_an_error(rig):
    given(rig, inputs=[growing(min=2, max=4)])
    result = rig.validate({"1": node("Number", value=1), "3": node("Given", **{"many.n0": ["1", 0]})})
    assert not result.valid
    assert result.node_errors["3"]["errors"] == [
        {
            "type": "required_input_missing",
            "message": "Required input is missing",
            "details": "n1",
            "extra_info": {"input_name": "many.n1"},
        }
    ]


def test_rule_100_parts_of_a_dynamic_input_are_validated_like_others(rig):
    given(
        rig, inputs=[io.Autogrow.Input("many", io.Autogrow.TemplatePrefix(io.Image.Input("i"), "n", min=0))]
    )
    result = rig.validate({"1": node("Number", value=1), "3": node("Given", **{"many.n0": ["1", 0]})})
    assert [error["type"] for error in result.node_errors["3"]["errors"]] == ["return_type_mismatch"]


def test_rule_100_a_name_beyond_the_maximum_is_not_declared(rig):
    rig.add(Sums=schema_node(lambda cls, many: io.NodeOutput(sum(many.values())), [growing(min=0, max=1)]))
    result = rig.run(
        {
            "1": node("Number", value=1),
            "2": node("Sums", **{"many.n0": ["1", 0], "many.n7": ["1", 0]}),
            "3": node("Show", value=["2", 0]),
        }
    )
    assert result.outputs["3"] == {"text": [1]}


CHOICE = io.DynamicCombo.Input(
    "how",
    [
        io.DynamicCombo.Option(
            "scale", [io.Float.Input("factor", min=0.5), io.Int.Input("steps", optional=True)]
        ),
        io.DynamicCombo.Option("none", []),
    ],
)


def test_rule_100_a_choice_brings_its_own_inputs(rig):
    given(rig, inputs=[CHOICE])
    rig.run({"1": node("Given", **{"how": "scale", "how.factor": "2"})})
    assert rig.calls[-1] == {"how": {"how": "scale", "factor": 2.0, "steps": None}}
    rig.run({"1": node("Given", **{"how": "none", "how.factor": 0})})
    assert rig.calls[-1] == {"how": {"how": "none"}}


@pytest.mark.parametrize(
    ("inputs", "kind", "details"),
    [
        ({}, "required_input_missing", "how"),
        ({"how": "upside down"}, "value_not_in_list", "how: 'upside down' not in ['scale', 'none']"),
        ({"how": "scale"}, "required_input_missing", "factor"),
        ({"how": "scale", "how.factor": 0.1}, "value_smaller_than_min", "how.factor"),
    ],
)
def test_rule_100_a_choice_that_cannot_be_used_is_refused(rig, inputs, kind, details):
    given(rig, inputs=[CHOICE])
    errors = rig.validate({"1": node("Given", **inputs)}).node_errors["1"]["errors"]
    assert [(error["type"], error["details"]) for error in errors] == [(kind, details)]


def test_rule_100_a_slot_brings_inputs_when_it_is_linked(rig):
    slot = io.DynamicSlot.Input(io.Int.Input("base"), [io.Int.Input("extra")])
    rig.add(Slots=schema_node(lambda cls, base=None: rig.note(base), [slot], (), is_output_node=True))
    rig.run({"1": node("Slots")})
    assert rig.calls == [None]
    prompt = {"1": node("Slots", **{"base": ["9", 0], "base.extra": 4}), "9": node("Number", value=3)}
    rig.run(prompt)
    assert rig.calls[-1] == {"base": 3, "extra": 4}
    del prompt["1"]["inputs"]["base.extra"]
    errors = rig.validate(prompt).node_errors["1"]["errors"]
    assert errors[0]["extra_info"] == {"input_name": "base.extra"}


def test_rule_100_lazy_parts_are_asked_for_by_their_id(rig):
    def check(cls, many):
        return [name for value, name in many.values() if value is None][:1]

    template = io.Autogrow.TemplatePrefix(io.Int.Input("number", lazy=True), "n", min=0)
    rig.add(
        Sums=schema_node(
            lambda cls, many: io.NodeOutput(sum(many.values())),
            [io.Autogrow.Input("many", template)],
            functions={"check_lazy_status": check},
        )
    )
    result = rig.run(
        {
            "1": node("Number", value=1),
            "2": node("Number", value=2),
            "3": node("Sums", **{"many.n0": ["1", 0], "many.n1": ["2", 0]}),
            "4": node("Show", value=["3", 0]),
        }
    )
    assert result.outputs["4"] == {"text": [3]}


def test_rule_100_validate_inputs_gets_the_dynamic_input_it_names_and_no_other(rig):
    def validate(cls, how):
        rig.note(how)
        return "no"

    rig.add(
        Checks=schema_node(
            lambda cls, **inputs: None,
            [CHOICE, growing(min=0)],
            (),
            is_output_node=True,
            functions={"validate_inputs": validate},
        )
    )
    prompt = {"1": node("Checks", **{"how": "scale", "how.factor": 0.1, "many.n0": 3})}
    errors = rig.validate(prompt).node_errors["1"]["errors"]
    assert rig.calls == [{"how": "scale", "factor": 0.1, "steps": None}]
    assert {error["details"] for error in errors} == {"how - no", "how.factor - no"}

"""Declarations against live inputs, without any node class."""

import pytest

from comfy_execution.dynamic_inputs import expand, has_dynamic_inputs, nest

IMAGE = ("IMAGE", {})


def autogrow(name="images", category="required", **template):
    options = {"template": {"input": {category: {"image": IMAGE}}, **template}}
    return {"required": {name: ("COMFY_AUTOGROW_V3", options)}}


def combo(*choices):
    options = [{"key": key, "inputs": inputs} for key, inputs in choices]
    return {"required": {"mode": ("COMFY_DYNAMICCOMBO_V3", {"options": options})}}


def nested(declared, values):
    expansion = expand(declared, values)
    return nest(values, expansion.paths, expansion.defaults)


def test_plain_declarations_are_not_dynamic():
    plain = {"required": {"a": ("INT", {}), "b": (["x", "y"],)}, "hidden": {"p": "PROMPT"}}
    assert not has_dynamic_inputs(plain)
    assert has_dynamic_inputs({**plain, "optional": autogrow(prefix="image", min=0, max=2)["required"]})


@pytest.mark.parametrize(("template", "required", "optional"), [
    ({"prefix": "image", "min": 1, "max": 3}, ["images.image0"], ["images.image1", "images.image2"]),
    ({"prefix": "image", "min": 0, "max": 1}, [], ["images.image0"]),
    ({"names": ["left", "right"], "min": 2}, ["images.left", "images.right"], []),
    ({"prefix": "image", "min": 1, "max": 2, "category": "optional"}, [], ["images.image0", "images.image1"]),
])  # fmt: skip
def test_a_growing_input_declares_all_its_names_and_requires_the_first(template, required, optional):
    expansion = expand(autogrow(**template), {})
    assert list(expansion.required) == required
    assert list(expansion.optional) == optional
    assert {**expansion.required, **expansion.optional}[(required + optional)[0]] == IMAGE


def test_a_growing_input_is_nested_and_holds_only_what_was_given():
    declared = autogrow(prefix="image", min=0, max=5)
    assert nested(declared, {"images.image0": 1, "images.image3": 2, "other": 3}) == {
        "images": {"image0": 1, "image3": 2}, "other": 3,
    }  # fmt: skip


def test_a_growing_input_without_values_is_an_empty_dictionary():
    assert nested(autogrow(prefix="image", min=0, max=5), {}) == {"images": {}}


def test_a_choice_declares_the_inputs_of_its_key_only():
    declared = combo(("one", {"required": {"a": ("INT", {})}}), ("two", {"optional": {"b": IMAGE}}))
    expansion = expand(declared, {"mode": "two"})
    assert list(expansion.required) == ["mode"]
    assert expansion.required["mode"][1]["options"] == ["one", "two"]
    assert list(expansion.optional) == ["mode.b"]
    assert nested(declared, {"mode": "one", "mode.a": 4}) == {"mode": {"mode": "one", "a": 4}}
    assert nested(declared, {"mode": "two"}) == {"mode": {"mode": "two", "b": None}}


def test_the_choice_itself_comes_after_its_inputs():
    declared = combo(("one", {"required": {"a": ("INT", {})}}))
    assert list(nested(declared, {"mode": "one", "mode.a": 4})["mode"]) == ["a", "mode"]


def test_a_choice_that_is_missing_or_unknown_is_still_declared():
    declared = combo(("one", {"required": {"a": ("INT", {})}}))
    assert list(expand(declared, {}).required) == ["mode"]
    assert list(expand(declared, {"mode": "no"}).required) == ["mode"]


def test_choices_and_growing_inputs_may_lie_in_one_another():
    inner = {"required": {"kind": combo(("deep", autogrow(prefix="m", min=1, max=2)))["required"]["mode"]}}
    declared = combo(("outer", inner))
    values = {"mode": "outer", "mode.kind": "deep", "mode.kind.images.m0": 7}
    assert list(expand(declared, values).required) == ["mode", "mode.kind", "mode.kind.images.m0"]
    assert nested(declared, values) == {
        "mode": {"mode": "outer", "kind": {"kind": "deep", "images": {"m0": 7}}},
    }  # fmt: skip


def test_a_slot_opens_its_inputs_when_it_is_linked():
    options = {"slotType": "IMAGE", "inputs": {"required": {"scale": ("FLOAT", {})}}}
    declared = {"optional": {"picture": ("COMFY_DYNAMICSLOT_V3", options)}}
    assert list(expand(declared, {}).optional) == ["picture"]
    assert expand(declared, {}).paths == {}
    assert expand(declared, {}).optional["picture"][0] == "IMAGE"
    opened = {"picture": ["1", 0], "picture.scale": 2.0}
    assert list(expand(declared, opened).required) == ["picture.scale"]
    assert nested(declared, opened) == {"picture": {"picture": ["1", 0], "scale": 2.0}}


def test_values_can_carry_the_id_of_their_input():
    assert nest({"a.b": 1}, {"a.b": "a.b"}, {}, with_ids=True) == {"a": {"b": (1, "a.b")}}

"""The fields `force` and `cache`: what they may be, and what a refusal says."""

import pytest

from comfy_execution.errors import InvalidRequestError
from comfy_execution.force import Request, check_names, read_request
from tests.comfy_execution.rig import node


@pytest.mark.parametrize(
    ("fields", "request_"),
    [
        ({}, Request()),
        ({"force": None, "cache": None}, Request()),
        ({"force": False, "cache": "read"}, Request()),
        ({"force": True}, Request(every=True)),
        ({"force": "outputs"}, Request(outputs=True)),
        ({"force": ["9", "KSampler", "9"]}, Request(names=frozenset({"9", "KSampler"}))),
        ({"cache": "write"}, Request(cache="write")),
        ({"force": True, "cache": "off"}, Request(every=True, cache="off")),
    ],
)
def test_the_fields_of_a_request(fields, request_):
    assert read_request(fields) == request_


@pytest.mark.parametrize(
    ("fields", "kind", "details"),
    [
        ({"force": "all"}, "invalid_force", "Received 'all'."),
        ({"force": 1}, "invalid_force", "Received 1."),
        ({"force": 0}, "invalid_force", "Received 0."),
        ({"force": [9]}, "invalid_force", 'Received [9]. Ids are texts, for example ["9", "KSampler"].'),
        ({"force": {"9": True}}, "invalid_force", "Received {'9': True}."),
        ({"force": [["9"]]}, "invalid_force", "Received [['9']]."),
        ({"force": "x" * 5000}, "invalid_force", "…"),
        ({"cache": "none"}, "invalid_cache", "Received 'none'."),
        ({"cache": False}, "invalid_cache", "Received False."),
        ({"cache": ["off"]}, "invalid_cache", "Received ['off']."),
    ],
)
def test_other_values_are_refused_with_the_choices(fields, kind, details):
    with pytest.raises(InvalidRequestError) as refusal:
        read_request(fields)
    assert refusal.value.kind == kind and refusal.value.extra_info["choices"]
    assert details in refusal.value.details and len(refusal.value.details) < 200


def test_names_that_no_node_has_are_refused_with_the_names_that_exist():
    classes = ["Number", "Add", "Save", "Number", "Show"]
    prompt = {str(number): node(name) for number, name in enumerate(classes, 1)}
    check_names(read_request({"force": ["3", "Number"]}), prompt)
    with pytest.raises(InvalidRequestError) as refusal:
        check_names(read_request({"force": ["3", "99", "KSampler"]}), prompt)
    assert refusal.value.message == "force names nodes that are not in the prompt"
    assert refusal.value.details == (
        "No node has the id or class type '99', 'KSampler'. "
        "The nodes are: 1 (Number), 2 (Add), 3 (Save), 4 (Number), 5 (Show)"
    )
    assert refusal.value.extra_info == {
        "unknown": ["99", "KSampler"],
        "ids": ["1", "2", "3", "4", "5"],
        "class_types": ["Add", "Number", "Save", "Show"],
    }


def test_a_refusal_stays_short_for_large_prompts():
    prompt = {str(number): node("Number", value=1) for number in range(10_000)}
    with pytest.raises(InvalidRequestError) as refusal:
        check_names(read_request({"force": [f"unknown {number}" for number in range(10_000)]}), prompt)
    assert len(str(refusal.value)) < 1500 and refusal.value.details.endswith("…")

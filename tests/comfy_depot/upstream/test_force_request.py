"""`force` and `cache` of a request to upstream mean what they mean to our server, and are refused alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from comfy_depot.upstream import force_request, page
from comfy_execution import force
from comfy_execution.errors import InvalidRequestError

PROMPT = {"4": {"class_type": "EmptyImage", "inputs": {}}, "9": {"class_type": "SaveImage", "inputs": {}}}
MANY = {str(number): {"class_type": f"Class{number:02}", "inputs": {}} for number in range(30)}
REQUESTS: list[dict[str, Any]] = [
    {}, {"force": None}, {"force": False}, {"force": True}, {"force": "outputs"}, {"force": []},
    {"force": ["9", "EmptyImage"]}, {"force": ["10"]}, {"force": ["10", "9", "Nothing"]},
    {"force": "everything"}, {"force": 1}, {"force": 0}, {"force": ["9", 4]}, {"force": {"9": True}},
    {"force": "x" * 200}, {"force": [str(number) for number in range(100, 140)]},
    {"cache": None}, {"cache": "read"}, {"cache": "write"}, {"cache": "off"}, {"cache": "on"},
    {"cache": True}, {"cache": ["off"]}, {"cache": ""}, {"force": True, "cache": "write"},
    {"force": 7, "cache": "on"},
]  # fmt: skip


def ours(fields: dict[str, Any], prompt: Any) -> Any:
    """What our own server reads, or answers with 400."""
    try:
        request = force.read_request(fields)
        force.check_names(request, prompt)
    except InvalidRequestError as error:
        return {"error": {"type": error.kind, "message": error.message, "details": error.details,
                          "extra_info": error.extra_info}, "node_errors": {}}
    return (request.every, request.outputs, request.names, request.cache)


def on_upstream(fields: dict[str, Any], prompt: Any) -> Any:
    try:
        request = force_request.read_request(fields)
        force_request.check_names(request, prompt)
    except force_request.InvalidRequest as error:
        return error.answer
    return (request.every, request.outputs, request.names, request.cache)


@pytest.mark.parametrize("prompt", [PROMPT, MANY], ids=["two nodes", "thirty nodes"])
@pytest.mark.parametrize("fields", REQUESTS, ids=lambda fields: json.dumps(fields)[:40])
def test_both_servers_read_a_request_alike(fields: dict[str, Any], prompt: Any) -> None:
    assert on_upstream(fields, prompt) == ours(fields, prompt)


def test_the_table_has_refusals_of_each_kind_and_requests_that_are_none() -> None:
    answers = [on_upstream(fields, PROMPT) for fields in REQUESTS]
    kinds = {answer["error"]["type"] for answer in answers if isinstance(answer, dict)}
    assert kinds == {"invalid_force", "invalid_cache"}
    assert any(isinstance(answer, tuple) for answer in answers)


def test_the_fields_move_into_the_extra_data_and_win_over_what_is_there() -> None:
    body = {"prompt": PROMPT, "force": ["9"], "extra_data": {"client": 1, "force": True}}
    assert force_request.moved(body)["extra_data"] == {"client": 1, "force": ["9"]}
    assert body["extra_data"] == {"client": 1, "force": True}, "the client's own body stays as it is"


@pytest.mark.parametrize("body", [
    None, [], {}, {"prompt": None, "force": True}, {"prompt": PROMPT}, {"prompt": PROMPT, "extra_data": []},
    {"prompt": PROMPT, "extra_data": {"force": "outputs"}}, {"prompt": PROMPT, "force": None},
])  # fmt: skip
def test_what_is_no_prompt_or_asks_for_nothing_is_left_as_it_is(body: Any) -> None:
    assert force_request.moved(body) is body


@pytest.mark.parametrize("place", ["body", "extra data"])
def test_a_refusal_is_an_answer_of_400_with_our_json(place: str) -> None:
    fields = {"force": ["10"]}
    body = {"prompt": PROMPT, **fields} if place == "body" else {"prompt": PROMPT, "extra_data": fields}
    with pytest.raises(web.HTTPBadRequest) as caught:
        page.take_force(body)
    assert caught.value.status == 400 and caught.value.content_type == "application/json"
    assert json.loads(caught.value.text or "") == ours(fields, PROMPT)


def test_nodes_that_are_no_nodes_are_left_to_the_server() -> None:
    body = {"prompt": {"1": "text", "2": {}}, "force": ["1"]}
    assert force_request.moved(body)["extra_data"] == {"force": ["1"]}

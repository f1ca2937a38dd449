"""POST /prompt: check a workflow, give it an id and a place in the queue."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

import execution
from app import ui_prompts, url_inputs
from app.routes import answer, is_list_of_texts, read_json, register
from app.routes.operations import (
    ANY,
    NUMBER,
    OBJECT,
    TEXT,
    TRUTH,
    WHOLE,
    Operation,
    by_name,
    many,
    or_null,
    record,
)
from comfy.cli_args import args
from comfy_execution import force
from comfy_execution.errors import InvalidRequestError
from comfy_execution.queueing import schedule
from comfy_execution.queueing.journal import JournalError, JournalFullError
from comfy_execution.queueing.prompt_queue import QueueFullError

LONGEST_PROMPT_ID = 200


def refusal(
    kind: str, message: str, details: str = "", *, status: int = 400, **extra_info: Any
) -> web.Response:
    """An answer in the shape of a failed validation."""
    error = {"type": kind, "message": message, "details": details or message, "extra_info": extra_info}
    return answer({"error": error, "node_errors": {}}, status=status)


def take_number(server: Any, body: Mapping[str, Any]) -> float:
    """The place in the queue, smaller is sooner: the client's number, else the next one (negative for
    "front"). ValueError, TypeError or OverflowError for what is no place.
    """
    if body.get("number") is not None:
        number = float(body["number"])
        if not math.isfinite(number):
            raise ValueError("a queue cannot be ordered by it")
        return number
    number = -server.number if body.get("front") else server.number
    server.number += 1
    return number


def is_prompt_id(value: Any) -> bool:
    """Can a client's id be used? Any readable text can; API clients do not all send UUIDs."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_PROMPT_ID and value.isprintable()


def completed_extra_data(
    body: Mapping[str, Any], request: web.Request
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(extra data that may be shown, tokens that may not) of a prompt."""
    extra_data = dict(body.get("extra_data") or {})
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    if "Comfy-Usage-Source" in request.headers:
        extra_data.setdefault("comfy_usage_source", request.headers["Comfy-Usage-Source"])
    sensitive = {key: extra_data.pop(key) for key in execution.SENSITIVE_EXTRA_DATA_KEYS if key in extra_data}
    extra_data["create_time"] = int(time.time() * 1000)
    return extra_data, sensitive


def fields_problem(body: Mapping[str, Any], extra_data: dict[str, Any]) -> web.Response | None:
    """Move `force`, `cache`, `priority`, ... into the extra data, where queue and history show them; or their
    refusal.
    """
    fields = (*force.FIELDS, *schedule.FIELDS)
    extra_data.update({field: body[field] for field in fields if body.get(field) is not None})
    try:
        schedule.read_schedule(extra_data)
        force.check_names(force.read_request(extra_data), body["prompt"])
    except InvalidRequestError as error:
        return refusal(error.kind, error.message, error.details, **error.extra_info)
    return None


def body_problem(body: Any) -> web.Response | None:
    """The refusal of a body that cannot be a prompt at all."""
    if not isinstance(body, dict):
        return refusal("invalid_body", "The request's body must be a JSON object")
    if "prompt" not in body:
        return refusal("no_prompt", "No prompt provided")
    if not isinstance(body["prompt"], dict):
        return refusal("invalid_prompt", "The prompt must be an object of nodes by id")
    if body.get("prompt_id") is not None and not is_prompt_id(body["prompt_id"]):
        return refusal(
            "invalid_prompt_id",
            "prompt_id must be a text of 1 to 200 printable characters",
            "Omit prompt_id to let the server make one.",
        )
    extra_data, targets = body.get("extra_data") or {}, body.get("partial_execution_targets")
    if not isinstance(extra_data, dict):
        return refusal("invalid_body", "extra_data must be a JSON object")
    if any(isinstance(place.get("client_id"), (dict, list)) for place in (body, extra_data)):
        return refusal("invalid_body", "client_id must be a text")
    if targets is not None and not is_list_of_texts(targets):
        return refusal("invalid_body", "partial_execution_targets must be a list of node ids")
    return None


def request_problem(server: Any, body: dict[str, Any]) -> web.Response | None:
    """The refusal of a webhook that could not be called, or of a saved workflow that is no prompt. One that
    is becomes a prompt.
    """
    try:
        server.webhooks.read_wish(body)
        ui_prompts.take_saved_workflow(body)
    except InvalidRequestError as error:
        return refusal(error.kind, error.message, error.details, **error.extra_info)
    return None


def user_of(server: Any, request: web.Request) -> str:
    """Whose prompt it is when the request does not say."""
    try:
        return str(server.user_manager.get_request_user_id(request))
    except KeyError:
        return "default"


def queue_is_full(error: QueueFullError) -> web.Response:
    """503, with about the time until a place is free."""
    refused = refusal(
        "queue_full", "The queue is full", f"{error} Try again in {error.retry_seconds} s.",
        status=503, limit=error.limit, retry_after=error.retry_seconds,
    )  # fmt: skip
    refused.headers["Retry-After"] = str(error.retry_seconds)
    return refused


async def queueing_problem(queue: Any, item: tuple) -> web.Response | None:
    """Put a prompt into the queue, and wait until it is safe; or why it cannot be."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[JournalError | None] = loop.create_future()

    def tell(error: JournalError | None) -> None:
        if not done.cancelled():
            done.set_result(error)

    try:
        if queue.put_soon(item, lambda error: loop.call_soon_threadsafe(tell, error)):
            return None
    except QueueFullError as error:
        return queue_is_full(error)
    except ValueError as error:
        return refusal("invalid_prompt", "The prompt cannot be written down", f"The reason: {error}.")
    failure = await done
    if failure is None:
        return None
    logging.error("A prompt was not accepted: %s", failure)
    is_full = isinstance(failure, JournalFullError)
    return refusal(
        "journal_full" if is_full else "journal_failed", "The prompt was not accepted", str(failure),
        status=507 if is_full else 503,
    )  # fmt: skip


async def post_prompt(server: Any, request: web.Request) -> web.Response:
    try:
        body = await read_json(request)
    except ValueError as error:
        return refusal("invalid_body", "The request's body is not JSON", str(error))
    return await submit(server, request, body)


async def submit(server: Any, request: web.Request, body: Any) -> web.Response:
    """Put the prompt of a body into the queue; the answer is that of POST /prompt."""
    body = server.trigger_on_prompt(body)
    if (problem := body_problem(body) or request_problem(server, body)) is not None:
        return problem
    try:
        server.prompt_queue.refuse_if_full()
    except QueueFullError as error:
        return queue_is_full(error)
    try:
        number = take_number(server, body)
    except (TypeError, ValueError, OverflowError):
        return refusal("invalid_body", "number must be a number", f"Received {body['number']!r}.")
    prompt, prompt_id = body["prompt"], body.get("prompt_id") or str(uuid.uuid4())
    server.node_replace_manager.apply_replacements(prompt)
    if (problem := await url_inputs.replace_in(server, body, prompt)) is not None:
        return problem
    valid, error, outputs, node_errors = await execution.validate_prompt(
        prompt_id, prompt, body.get("partial_execution_targets")
    )
    if not valid:
        logging.warning("Prompt %s is invalid: %s", prompt_id, error)
        return answer({"error": error, "node_errors": node_errors}, status=400)
    extra_data, sensitive = completed_extra_data(body, request)
    if (problem := fields_problem(body, extra_data)) is not None:
        return problem
    if args.multi_user:
        extra_data.setdefault("tenant", user_of(server, request))
    item = (number, prompt_id, prompt, extra_data, outputs, sensitive)
    try:
        hook = await server.webhooks.expect(prompt_id, body, f"{request.scheme}://{request.host}")
    except JournalFullError as error:
        return refusal("journal_full", "The prompt was not accepted", str(error), status=507)
    if (problem := await queueing_problem(server.prompt_queue, item)) is not None:
        await server.webhooks.forget(hook)
        return problem
    return answer({"prompt_id": prompt_id, "number": number, "node_errors": node_errors})


async def get_prompt(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.get_queue_info())


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the prompt."""
    register(routes, server, [("GET", "/prompt", get_prompt), ("POST", "/prompt", post_prompt)])


PROBLEM = record({"type": TEXT, "message": TEXT, "details": TEXT, "extra_info": OBJECT})
NODE_PROBLEM = record({"errors": many(PROBLEM), "dependent_outputs": many(TEXT), "class_type": TEXT})
REFUSAL = record({"error": PROBLEM, "node_errors": by_name(NODE_PROBLEM)})
GRAPH = by_name(record({"class_type": TEXT, "inputs": OBJECT}, {"_meta": OBJECT}))
WANTED = record({"prompt": GRAPH}, {
    "prompt_id": or_null({"type": "string", "minLength": 1, "maxLength": LONGEST_PROMPT_ID}),
    "client_id": TEXT, "number": or_null(NUMBER), "front": TRUTH, "extra_data": or_null(OBJECT),
    "partial_execution_targets": or_null(many(TEXT)),
    "force": ANY, "cache": ANY, "priority": ANY, "tenant": ANY, "timeout_seconds": ANY,
})  # fmt: skip
QUEUE_LENGTH = record({"exec_info": record({"queue_remaining": WHOLE, "paused": TRUTH})})
OPERATIONS = {
    "GET /prompt": Operation("Length of the queue", {200: QUEUE_LENGTH}),
    "POST /prompt": Operation(
        "Run a workflow in API form",
        {200: record({"prompt_id": TEXT, "number": NUMBER, "node_errors": by_name(NODE_PROBLEM)}),
         400: REFUSAL, 413: REFUSAL, 503: REFUSAL, 507: REFUSAL},
        body=WANTED,
    ),
}  # fmt: skip

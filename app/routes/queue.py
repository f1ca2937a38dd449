"""The queue, and stopping what runs: /queue, /interrupt, /free, and the cancel routes of /api/jobs."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from app.routes import answer, listed, read_json, read_object, register
from app.routes.operations import REASON, TEXT, TRUTH, Operation, many, record
from comfy import interruption


def without_sensitive(items: list) -> list[tuple]:
    """Queue items as clients may see them: (number, id, prompt, extra data, outputs), no tokens."""
    return [tuple(item[:5]) for item in items]


def cancel(server: Any, prompt_id: str) -> bool:
    """Take a waiting prompt out of the queue or interrupt it if it runs; False when it is finished or
    unknown.
    """
    waiting = server.prompt_queue.delete_queue_item(lambda item: item[1] == prompt_id)
    return bool(waiting) or server.prompt_queue.interrupt_if_running(prompt_id)


async def get_queue(server: Any, request: web.Request) -> web.Response:
    running, pending = server.prompt_queue.get_current_queue_volatile()
    return answer({"queue_running": without_sensitive(running), "queue_pending": without_sensitive(pending)})


async def post_queue(server: Any, request: web.Request) -> web.Response:
    body = await read_object(request)
    doomed = listed(body, "delete")
    if body.get("clear"):
        server.prompt_queue.wipe_queue()
    for prompt_id in doomed:
        server.prompt_queue.delete_queue_item(lambda item, wanted=prompt_id: item[1] == wanted)
    return web.Response()


async def post_interrupt(server: Any, request: web.Request) -> web.Response:
    try:
        body = await read_json(request)
    except ValueError:  # mostly there is no body at all
        body = None
    prompt_id = body.get("prompt_id") if isinstance(body, dict) else None
    if not prompt_id:
        logging.info("Interrupting whatever runs.")
        interruption.interrupt_current_processing()
    elif server.prompt_queue.interrupt_if_running(prompt_id):
        logging.info("Interrupting prompt %s.", prompt_id)
    return web.Response()


async def post_free(server: Any, request: web.Request) -> web.Response:
    body = await read_object(request)
    for flag in ("unload_models", "free_memory"):
        if body.get(flag):
            server.prompt_queue.set_flag(flag, True)
    return web.Response()


async def post_pause(server: Any, request: web.Request) -> web.Response:
    """Start no more prompts; what runs goes on."""
    server.prompt_queue.set_paused(True)
    return web.json_response({"paused": True})


async def post_resume(server: Any, request: web.Request) -> web.Response:
    """Start prompts again."""
    server.prompt_queue.set_paused(False)
    return web.json_response({"paused": False})


async def post_cancel(server: Any, request: web.Request) -> web.Response:
    return web.json_response({"cancelled": cancel(server, request.match_info["job_id"])})


async def post_cancel_many(server: Any, request: web.Request) -> web.Response:
    """Cancel several. Any text is an id here, because prompts may bring ids of any form."""
    try:
        body = await read_json(request)
    except ValueError:
        return web.json_response({"error": "Request body must be valid JSON"}, status=400)
    job_ids = body.get("job_ids") if isinstance(body, dict) else None
    if not isinstance(job_ids, list):
        return web.json_response({"error": "job_ids must be a list"}, status=400)
    invalid = [job_id for job_id in job_ids if not isinstance(job_id, str) or not job_id]
    if invalid:
        return web.json_response({"error": "job_ids must be texts", "invalid_ids": invalid}, status=400)
    cancelled = [cancel(server, job_id) for job_id in job_ids]
    return web.json_response({"cancelled": any(cancelled)})


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the queue."""
    register(
        routes,
        server,
        [
            ("GET", "/queue", get_queue),
            ("POST", "/queue", post_queue),
            ("POST", "/interrupt", post_interrupt),
            ("POST", "/free", post_free),
            ("POST", "/depot/queue/pause", post_pause),
            ("POST", "/depot/queue/resume", post_resume),
            ("POST", "/api/jobs/cancel", post_cancel_many),
            ("POST", "/api/jobs/{job_id}/cancel", post_cancel),
        ],
    )


ITEM = {"type": "array", "minItems": 5, "maxItems": 5}
"""Number, id, graph, extra data, outputs."""
IDS = record({}, {"clear": TRUTH, "delete": many(TEXT)})
ERROR = record({"error": TEXT}, {"invalid_ids": {"type": "array"}})
CANCELLED = record({"cancelled": TRUTH})
PAUSED = record({"paused": TRUTH})
OPERATIONS = {
    "GET /queue": Operation(
        "What runs and what waits", {200: record({"queue_running": many(ITEM), "queue_pending": many(ITEM)})}
    ),
    "POST /queue": Operation("Take prompts out of the queue", {200: None, 400: REASON}, body=IDS),
    "POST /interrupt": Operation(
        "Stop what runs", {200: None}, body=record({}, {"prompt_id": TEXT}), needs_body=False
    ),
    "POST /free": Operation(
        "Let models and results go between two prompts", {200: None, 400: REASON},
        body=record({}, {"unload_models": TRUTH, "free_memory": TRUTH}),
    ),
    "POST /depot/queue/pause": Operation("Start no more prompts", {200: PAUSED}),
    "POST /depot/queue/resume": Operation("Start prompts again", {200: PAUSED}),
    "POST /api/jobs/cancel": Operation(
        "Cancel several jobs", {200: CANCELLED, 400: ERROR}, body=record({"job_ids": many(TEXT)})
    ),
    "POST /api/jobs/{job_id}/cancel": Operation("Cancel a job", {200: CANCELLED}),
}  # fmt: skip

"""What ran: /history."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

from app.routes import answer, listed, read_object, register, whole_number
from app.routes.operations import OBJECT, REASON, TEXT, TRUTH, WHOLE, Operation, by_name, many, record
from comfy_execution.queueing.history import JournalHistory


async def history_answer(queue: Any, **wish: Any) -> web.Response:
    """Entries as JSON. What the journal holds is JSON already: it is only joined."""
    if not isinstance(queue.history, JournalHistory):
        return answer(queue.get_history(**wish))

    def joined() -> str:
        texts = queue.history.texts(**wish)
        return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts) + "}"

    is_short = wish.get("prompt_id") is not None
    return web.json_response(text=joined() if is_short else await asyncio.to_thread(joined))


async def get_history(server: Any, request: web.Request) -> web.Response:
    max_items = max(0, whole_number(request.query.get("max_items"), 0)) or None
    offset = whole_number(request.query.get("offset"), -1)
    return await history_answer(server.prompt_queue, max_items=max_items, offset=offset)


async def get_history_of_prompt(server: Any, request: web.Request) -> web.Response:
    return await history_answer(server.prompt_queue, prompt_id=request.match_info["prompt_id"])


async def post_history(server: Any, request: web.Request) -> web.Response:
    body = await read_object(request)
    doomed = listed(body, "delete")
    if body.get("clear"):
        server.prompt_queue.wipe_history()
    for prompt_id in doomed:
        server.prompt_queue.delete_history_item(prompt_id)
    return web.Response()


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the history."""
    register(
        routes,
        server,
        [
            ("GET", "/history", get_history),
            ("GET", "/history/{prompt_id}", get_history_of_prompt),
            ("POST", "/history", post_history),
        ],
    )


ENTRY = record(
    {"prompt": {"type": "array"}, "outputs": OBJECT, "status": OBJECT}, {"meta": OBJECT, "reasons": OBJECT}
)
OPERATIONS = {
    "GET /history": Operation(
        "What ran, by id", {200: by_name(ENTRY), 400: REASON}, query={"max_items": WHOLE, "offset": WHOLE}
    ),
    "GET /history/{prompt_id}": Operation("What became of a prompt; empty until then", {200: by_name(ENTRY)}),
    "POST /history": Operation(
        "Forget what ran", {200: None, 400: REASON}, body=record({}, {"clear": TRUTH, "delete": many(TEXT)})
    ),
}

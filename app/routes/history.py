"""What ran: /history."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from app.routes import answer, listed, read_object, register, whole_number


async def get_history(server: Any, request: web.Request) -> web.Response:
    max_items = max(0, whole_number(request.query.get("max_items"), 0)) or None
    offset = whole_number(request.query.get("offset"), -1)
    return answer(server.prompt_queue.get_history(max_items=max_items, offset=offset))


async def get_history_of_prompt(server: Any, request: web.Request) -> web.Response:
    return answer(server.prompt_queue.get_history(prompt_id=request.match_info["prompt_id"]))


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

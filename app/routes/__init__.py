"""The HTTP routes, one file per topic: functions `(server, request)` and `add_routes(routes, server)`."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from aiohttp import web


def register(routes: web.RouteTableDef, server: Any, table: Iterable[tuple[str, str, Any]]) -> None:
    """Add (method, path, handler) rows; each handler gets the server as its first argument."""
    for method, path, handler in table:
        routes.route(method, path)(functools.partial(handler, server))


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the request's body; 400 with a sentence for anything else."""
    try:
        content = await request.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise web.HTTPBadRequest(text="The request's body must be a JSON object.")
    return content


def whole_number(text: str | None, default: int) -> int:
    """A query value as a number; 400 for text that is none."""
    try:
        return default if text is None else int(text)
    except ValueError:
        raise web.HTTPBadRequest(text=f"{text!r} is not a whole number.") from None

"""The HTTP routes, one file per topic: functions `(server, request)` and `add_routes(routes, server)`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable
from typing import Any

from aiohttp import web

import protocol


def register(routes: web.RouteTableDef, server: Any, table: Iterable[tuple[str, str, Any]]) -> None:
    """Add (method, path, handler) rows; each handler gets the server as its first argument."""
    for method, path, handler in table:
        routes.route(method, path)(functools.partial(handler, server))


def answer(content: Any, *, status: int = 200) -> web.Response:
    """A JSON answer that may hold what nodes and packs made."""
    return web.json_response(text=protocol.to_json(content), status=status)


def answer_encoded(body: bytes) -> web.Response:
    """An answer that is JSON already."""
    return web.Response(body=body, content_type="application/json", charset="utf-8")


async def read_json(request: web.Request) -> Any:
    """The JSON in the request's body; ValueError for anything else, 413 for one over the limit. NaN, which
    Python's clients can send and no browser can read, is null.
    """
    try:
        return json.loads(await request.text(), parse_constant=lambda name: None)
    except web.HTTPRequestEntityTooLarge:
        raise too_large(request) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except LookupError as error:
        raise ValueError(str(error)) from None


def too_large(request: web.Request) -> web.HTTPRequestEntityTooLarge:
    """The refusal of a body over the limit, in the shape of other refusals."""
    limit = request.client_max_size
    message = f"The request's body has more than {limit:,} bytes"
    details = f"{message}. Start the server with a larger --max-upload-size (megabytes) to allow it."
    body = {
        "error": {
            "type": "body_too_large", "message": message, "details": details, "extra_info": {"limit": limit}
        },
        "node_errors": {},
    }
    return web.HTTPRequestEntityTooLarge(
        limit, limit, text=protocol.to_json(body), content_type="application/json"
    )  # fmt: skip


async def read_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the request's body; 400 with a sentence for anything else."""
    try:
        content = await read_json(request)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise web.HTTPBadRequest(text="The request's body must be a JSON object.")
    return content


def is_list_of_texts(value: Any) -> bool:
    """Is it a list of ids, as JSON has them?"""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def listed(body: dict[str, Any], field: str) -> list[str]:
    """The ids that a body lists in a field; 400 for anything but a list of texts."""
    ids = body.get(field) or []
    if not is_list_of_texts(ids):
        raise web.HTTPBadRequest(text=f"{field} must be a list of ids.")
    return ids


def whole_number(text: str | None, default: int) -> int:
    """A query value as a number; 400 for text that is none."""
    try:
        number = default if text is None else int(text)
        if abs(number) > sys.maxsize:
            raise ValueError("no list is so long")
        return number
    except ValueError:
        raise web.HTTPBadRequest(text=f"{text!r} is not a whole number.") from None

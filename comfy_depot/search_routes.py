"""`GET /depot/search`: models by name, hash or base model.

    ?name=dream xl&hash=0a1b2c3d4e&base_model=sdxl&folder=checkpoints&limit=100&offset=0&metadata=true
        {models: [{folder, name, tier, size, sha256, base_model, ...}], total, is_complete}

What is given must all hold, and one of name, hash and base_model must be given.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from comfy_depot.search import DEFAULT_RESULTS, BadSearch, Wanted, search

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

_FIELDS = frozenset("name hash base_model folder limit offset metadata".split())


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add the route."""

    @routes.get("/depot/search")
    async def search_models(request: web.Request) -> web.Response:
        """Find models."""
        query = request.query
        try:
            unknown = sorted(set(query) - _FIELDS)
            if unknown:
                raise BadSearch(f"'{unknown[0][:80]}' is not known here. Use {', '.join(sorted(_FIELDS))}.")
            wanted = Wanted(query.get("name", ""), query.get("hash", "").strip(),
                            query.get("base_model", ""), query.get("folder", ""))
            limit = _number("limit", query.get("limit"), DEFAULT_RESULTS)
            offset = _number("offset", query.get("offset"), 0)
            with_metadata = _truth("metadata", query.get("metadata", "false"))
            body = await asyncio.to_thread(lambda: search(
                depot, wanted, limit=limit, offset=offset, with_metadata=with_metadata).as_json())
        except BadSearch as error:
            return web.json_response({"error": {"type": "bad_search", "message": str(error)}}, status=400)
        return web.json_response(body)


def _number(field: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadSearch(f"{field} is '{text[:80]}'. Write a whole number, 0 or more.")
    return int(text)


def _truth(field: str, text: str) -> bool:
    if text not in ("true", "false", "1", "0"):
        raise BadSearch(f"{field} is '{text[:80]}'. Write true or false.")
    return text in ("true", "1")

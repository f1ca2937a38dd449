"""/api/assets and /api/tags: there is no database of assets, and clients are told so in the agreed form."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from app.routes import register
from app.routes.operations import OBJECT, TEXT, Operation, record

REFUSAL = {
    "error": {
        "code": "SERVICE_DISABLED",
        "message": "This server keeps no database of assets. Use /history, /view and /experiment/models.",
        "details": {},
    }
}


async def refuse(server: Any, request: web.Request) -> web.Response:
    return web.json_response(REFUSAL, status=503)


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the assets."""
    register(routes, server, [("*", "/api/assets{tail:(/.*)?}", refuse), ("*", "/api/tags", refuse)])


DISABLED = record({"error": record({"code": TEXT, "message": TEXT, "details": OBJECT})})
OPERATIONS = {
    "* /api/assets{tail:(/.*)?}": Operation(
        "There is no database of assets",
        {503: DISABLED},
        path={"tail": {"type": "string", "pattern": "^(/.*)?$"}},
    ),
    "* /api/tags": Operation("There is no database of assets", {503: DISABLED}),
}

"""GET /openapi.json: all routes in a form that programs read."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from app.openapi import document_of
from app.routes import register
from app.routes.operations import OBJECT, Operation


async def get_document(server: Any, request: web.Request) -> web.Response:
    return web.json_response(document_of(server))


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """The route of the description."""
    register(routes, server, [("GET", "/openapi.json", get_document)])


OPERATIONS = {"GET /openapi.json": Operation("This description", {200: OBJECT})}

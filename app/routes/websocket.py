"""GET /ws: a client's line for messages."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

import aiohttp
from aiohttp import web

from app.client_line import ClientLine
from app.routes import register
from app.routes.operations import REASON, TEXT, Operation
from comfy_api import feature_flags


async def greet(server: Any, sid: str) -> None:
    """Tell a client its id and the queue, and one that comes back what it has missed and the node in work."""
    await server.send("status", {"status": server.get_queue_info(), "sid": sid}, sid)
    missed = server.missed.back(sid)
    for event, data in missed:
        await server.send(event, data, sid)
    node_id, prompt_id = server.last_node_id, server.last_prompt_id
    if server.client_id == sid and node_id is not None:
        data = {"node": node_id, "display_node": node_id, "prompt_id": prompt_id}
        if not (missed and missed[-1][0] == "executing" and missed[-1][1].get("prompt_id") == prompt_id):
            await server.send("executing", data, sid)


async def take_first_message(server: Any, sid: str, text: str) -> None:
    """A client may begin with its feature flags; then it gets the server's. Anything else is left alone."""
    try:
        message = json.loads(text)
    except ValueError:
        logging.warning("Client %s sent a message that is not JSON.", sid)
        return
    if not isinstance(message, dict) or message.get("type") != "feature_flags":
        return
    flags = message.get("data")
    server.sockets_metadata[sid]["feature_flags"] = flags if isinstance(flags, dict) else {}
    await server.send("feature_flags", feature_flags.get_server_features(), sid)


async def talk(server: Any, sid: str, socket: web.WebSocketResponse) -> None:
    """Read until the client leaves. Only the first message has a meaning."""
    first = True
    async for message in socket:
        if message.type == aiohttp.WSMsgType.ERROR:
            logging.warning("The websocket of client %s broke: %s", sid, socket.exception())
        elif message.type == aiohttp.WSMsgType.TEXT and first and server.sockets.get(sid) is socket:
            await take_first_message(server, sid, message.data)
            first = False


async def get_websocket(server: Any, request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    sid = request.query.get("clientId") or uuid.uuid4().hex
    if (old_line := server.lines.get(server.sockets.get(sid))) is not None:
        server.missed.gone(sid, old_line.close())
    server.sockets[sid], server.lines[socket] = socket, ClientLine(sid, socket, request.transport)
    server.sockets_metadata[sid] = {"feature_flags": {}}
    try:
        await greet(server, sid)
        await talk(server, sid, socket)
    finally:
        unsent = server.lines.pop(socket).close()
        # A client that reconnects opens the new line before the old one ends: the new registration must stay.
        if server.sockets.get(sid) is socket:
            server.missed.gone(sid, unsent)  # first: the worker asks at any moment who hears it
            del server.sockets[sid]
            server.sockets_metadata.pop(sid, None)
    return socket


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """The websocket."""
    register(routes, server, [("GET", "/ws", get_websocket)])


OPERATIONS = {
    "GET /ws": Operation(
        "The line for messages (docs/http.md)", {101: None, 400: REASON}, query={"clientId": TEXT}
    )
}

"""/internal: what only the web page uses (logs, folders, recent files); it has no twin below /api."""

from __future__ import annotations

import os
import shutil
from typing import Any

from aiohttp import web

import app.logger
import folder_paths
from app.routes import read_object, register
from app.routes.operations import REASON, TEXT, TRUTH, WHOLE, Operation, by_name, many, one_of, record


class LogSubscribers:
    """The clients whose log panel is open; what is written to the terminal is sent to them."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.client_ids: set[str] = set()
        app.logger.on_flush(self.send)

    def send(self, entries: list[dict[str, str]]) -> None:
        """Send new entries; clients that have gone are forgotten.

        Runs in whichever thread writes to the log.
        """
        self.client_ids &= set(self.server.sockets)
        for client_id in list(self.client_ids):
            self.server.send_sync("logs", {"entries": entries, "size": None}, client_id)


def terminal_size() -> dict[str, int]:
    """The terminal's size in characters."""
    size = shutil.get_terminal_size()
    return {"cols": size.columns, "rows": size.lines}


async def get_logs(server: Any, request: web.Request) -> web.Response:
    return web.json_response("".join(f"{entry['t']} - {entry['m']}" for entry in list(app.logger.get_logs())))


async def get_raw_logs(server: Any, request: web.Request) -> web.Response:
    return web.json_response({"entries": list(app.logger.get_logs()), "size": terminal_size()})


async def subscribe_logs(server: Any, request: web.Request) -> web.Response:
    body = await read_object(request)
    client_id = body.get("clientId")
    if not isinstance(client_id, str):
        raise web.HTTPBadRequest(text="clientId must be the id of a websocket client.")
    if body.get("enabled"):
        server.log_subscribers.client_ids.add(client_id)
    else:
        server.log_subscribers.client_ids.discard(client_id)
    return web.Response()


async def get_folder_paths(server: Any, request: web.Request) -> web.Response:
    folders = folder_paths.folder_names_and_paths
    return web.json_response({kind: list(paths) for kind, (paths, _) in folders.items()})


async def get_files(server: Any, request: web.Request) -> web.Response:
    """Names of the files in input, output or temp, newest first."""
    kind = request.match_info["directory_type"]
    folder = folder_paths.get_directory_by_type(kind)
    if folder is None:
        return web.json_response({"error": "Invalid directory type"}, status=400)
    if not os.path.isdir(folder):
        return web.json_response([])
    with os.scandir(folder) as entries:
        files = [
            (entry.stat().st_mtime, entry.name)
            for entry in entries
            if entry.is_file() and not entry.name.startswith(".")
        ]
    return web.json_response([f"{name} [{kind}]" for _, name in sorted(files, reverse=True)])


def table(server: Any) -> web.RouteTableDef:
    """The routes below /internal, without that part of their paths."""
    routes = web.RouteTableDef()
    register(
        routes,
        server,
        [
            ("GET", "/logs", get_logs),
            ("GET", "/logs/raw", get_raw_logs),
            ("PATCH", "/logs/subscribe", subscribe_logs),
            ("GET", "/folder_paths", get_folder_paths),
            ("GET", "/files/{directory_type}", get_files),
        ],
    )
    return routes


def create_application(server: Any) -> web.Application:
    """The sub-application that stands below /internal."""
    application = web.Application()
    application.add_routes(table(server))
    return application


LOG_ENTRY = record({"t": TEXT, "m": TEXT})
OPERATIONS = {
    "GET /internal/logs": Operation("The log as one text", {200: TEXT}),
    "GET /internal/logs/raw": Operation(
        "The log by entries",
        {200: record({"entries": many(LOG_ENTRY), "size": record({"cols": WHOLE, "rows": WHOLE})})},
    ),
    "PATCH /internal/logs/subscribe": Operation(
        "Send the log over a client's websocket, or no more", {200: None, 400: REASON},
        body=record({"clientId": TEXT}, {"enabled": TRUTH}),
    ),
    "GET /internal/folder_paths": Operation("Folders by kind of model", {200: by_name(many(TEXT))}),
    "GET /internal/files/{directory_type}": Operation(
        "Files, the newest first", {200: many(TEXT), 400: record({"error": TEXT})},
        path={"directory_type": one_of("output", "input", "temp")},
    ),
}  # fmt: skip

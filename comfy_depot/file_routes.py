"""`GET /depot/files/{folder}/{name}`: this node's models for other nodes, with ranges.

    GET /depot/files                  a manifest of the models on this disk, whose urls lead here
    GET /depot/files/{folder}/{name}  the file

Both need `Authorization: Bearer` with the value of the environment variable DEPOT_TOKEN, and answer 403 to
everybody while it is not set: a server gives its models to no stranger. A file that no list shows is none.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

import folder_paths
from comfy_depot import inventory, places
from comfy_depot.eviction import Stamp
from comfy_depot.serve import Throttle, send_file

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

TOKEN = "DEPOT_TOKEN"  # noqa: S105 - the name of a variable


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add the routes."""

    async def manifest(request: web.Request) -> web.Response:
        if (refusal := _refusal(request)) is not None:
            return refusal
        return web.json_response(await asyncio.to_thread(_manifest, depot, f"{request.scheme}://{request.host}"))

    async def file(request: web.Request) -> web.StreamResponse:
        if (refusal := _refusal(request)) is not None:
            return refusal
        path = await asyncio.to_thread(_path, depot, request.match_info["folder"], request.match_info["name"])
        if path is None:
            return _error(404, "no_file", "There is no such model on this disk. GET /depot/files lists them.")
        return await send_file(request, path, Throttle(0))

    routes.get("/depot/files")(manifest)
    routes.get("/depot/files/{folder}/{name:.+}")(file)


def _refusal(request: web.Request) -> web.Response | None:
    token = os.environ.get(TOKEN, "")
    if not token:
        message = f"This server shares no files. To share them start it with {TOKEN} in its environment."
        return _error(403, "not_shared", message)
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {token}".encode()):
        return _error(401, "bad_token", f"Send 'Authorization: Bearer ...' with the {TOKEN} of this server.")
    return None


def _path(depot: Depot, folder: str, name: str) -> Path | None:
    """The file of a name that the lists show."""
    shown = name.replace("/", os.sep)
    if folder in inventory.NOT_MODELS or folder not in places.table():
        return None
    path = depot.local_path(folder, shown) if shown in folder_paths.get_filename_list(folder) else None
    return None if path is None else Path(path)


def _manifest(depot: Depot, origin: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for folder in sorted(places.table()):
        for file in inventory.files_on_disk(depot, folder) if folder not in inventory.NOT_MODELS else ():
            entry = {"url": f"{origin}/depot/files/{folder}/{quote(file.name)}", "size": file.size,
                     "headers": {"Authorization": f"Bearer ${TOKEN}"}}
            sha256 = depot.digests.of(Stamp.of(os.stat(file.path)))
            content.setdefault(folder, {})[file.name] = {**entry, "sha256": sha256} if sha256 else entry
    return content


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)

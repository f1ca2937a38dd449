"""`POST /depot/warm`: bring models that nobody waits for yet.

    {folder, name}            202 {transfer: {...}}, or 200 {folder, name, tier: "disk"}
    {}                        202 {dry_run, models: [{folder, name, size, why}]}: configured and popular ones
    {"dry_run": true, ...}    200, and nothing is fetched
    {"tier": "memory", ...}   loads instead; see memory_routes.py
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy_depot import memory_routes
from comfy_depot.errors import DepotError, ModelUnavailable
from comfy_depot.manifest import Entry
from comfy_depot.warm import Wish

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

_BODY = ('Send {"folder": "checkpoints", "name": "x.safetensors"}, or {} for what --depot-warm names; '
         'add "dry_run": true to only look.')


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add the route."""
    from comfy_depot.routes import _BadBody, _body_of, _error

    async def warm(request: web.Request) -> web.Response:
        try:
            body = await _body_of(request, _BODY) if request.can_read_body else {}
            if memory_routes.is_meant(body):
                return await memory_routes.warm(depot, body)
            problem = _problem(body)
            if problem is not None:
                raise _BadBody(f"{problem} {_BODY}")
            return await asyncio.to_thread(_warm, depot, body)
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        except ModelUnavailable as error:
            return _error(404, "model_unavailable", str(error))
        except DepotError as error:
            return _error(400, "refused", str(error))

    routes.post("/depot/warm")(warm)


def _problem(body: dict[str, Any]) -> str | None:
    unknown = sorted(body.keys() - {"folder", "name", "dry_run", "tier"})
    if unknown:
        return f"'{unknown[0]}' is not known here."
    if not isinstance(body.get("dry_run", False), bool):
        return "'dry_run' is neither true nor false."
    given = [body[name] for name in ("folder", "name") if name in body]
    if given and (len(given) < 2 or not all(isinstance(one, str) and one for one in given)):
        return "'folder' and 'name' belong together and are texts."
    return None


def _warm(depot: Depot, body: dict[str, Any]) -> web.Response:
    from comfy_depot.routes import describe

    is_dry_run = body.get("dry_run", False)
    if "folder" not in body:
        wishes = depot.warm.plan()
        if not is_dry_run and wishes:
            threading.Thread(target=_bring_all, args=(depot, wishes), name="depot-warm-all",
                             daemon=True).start()
        return _planned(is_dry_run, wishes)
    folder, name = body["folder"], body["name"]
    if depot.current_path(folder, name) is not None:
        return web.json_response({"folder": folder, "name": name, "tier": "disk"})
    entry: Entry = depot.entry(folder, name)
    if is_dry_run:
        return _planned(True, [Wish(entry.folder, entry.name, entry.size, "asked")])
    return web.json_response({"transfer": describe(depot.warm.ask(folder, name))}, status=202)


def _planned(is_dry_run: bool, wishes: list[Wish]) -> web.Response:
    return web.json_response({"dry_run": is_dry_run, "models": [wish.as_json() for wish in wishes]},
                             status=200 if is_dry_run else 202)


def _bring_all(depot: Depot, wishes: list[Wish]) -> None:
    for wish in wishes:
        if depot.warm.is_closed:
            return
        depot.warm.bring_if_known(wish)

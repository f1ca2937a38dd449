"""`/depot/...` over HTTP: what there is, what is on its way, and what to do about it.

    GET    /depot/models?folder=&tier=   {models: [{folder, name, tier, size, ...}], problems: [...]}
    POST   /depot/fetch {folder, name}   202 {transfer: {...}}, or 200 {folder, name, tier: "disk"}
    GET    /depot/transfers              {transfers: [...]}
    DELETE /depot/transfers/{id}         {cancelled: id}
    GET    /depot/stats                  {tiers, transfers, accesses, problems, bytes_free}
    POST   /depot/manifests/refresh      {models: count, problems: [...]}

Every error is `{"error": {"type", "message"}}`, and the message says what to do. No answer holds a header, a
token or more of a url than its host.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from comfy_depot import inventory
from comfy_depot.errors import DepotError, DiskFull, ModelUnavailable
from comfy_depot.manifest import Problem

if TYPE_CHECKING:
    from comfy_depot.depot import Depot
    from comfy_depot.transfers import Transfer

_FETCH_BODY = 'Send {"folder": "checkpoints", "name": "x.safetensors"}.'


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add the depot's routes to a route table."""
    handlers = _Handlers(depot)
    routes.get("/depot/models")(handlers.list_models)
    routes.post("/depot/fetch")(handlers.fetch)
    routes.get("/depot/transfers")(handlers.list_transfers)
    routes.delete("/depot/transfers/{id}")(handlers.cancel)
    routes.get("/depot/stats")(handlers.stats)
    routes.post("/depot/manifests/refresh")(handlers.refresh)


class _Handlers:
    def __init__(self, depot: Depot) -> None:
        self.depot = depot

    async def list_models(self, request: web.Request) -> web.Response:
        """Every known model with its tier."""
        folder, tier = request.query.get("folder"), request.query.get("tier")
        if tier is not None and tier not in inventory.TIERS:
            known = ", ".join(inventory.TIERS)
            return _error(400, "bad_tier", f"tier '{tier}' is not known. Use one of: {known}.")
        found = await asyncio.to_thread(inventory.models, self.depot, folder=folder, tier=tier)
        problems = self.depot.catalogue.snapshot().problems
        return web.json_response({
            "models": [inventory.as_json(model) for model in found], "problems": _problems(problems)
        })

    async def fetch(self, request: web.Request) -> web.Response:
        """Start the download of a model."""
        try:
            folder, name = _folder_and_name(await request.json())
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _error(400, "not_json", f"The body is not JSON. {_FETCH_BODY}")
        except ValueError as error:
            return _error(400, "bad_request", str(error))
        return await asyncio.to_thread(self._start_fetch, folder, name)

    def _start_fetch(self, folder: str, name: str) -> web.Response:
        if self.depot.local_path(folder, name) is not None:
            return web.json_response({"folder": folder, "name": name, "tier": "disk"})
        try:
            transfer = self.depot.start_fetch(folder, name)
        except DiskFull as error:
            return _error(507, "disk_full", str(error))
        except ModelUnavailable as error:
            return _error(404, "model_unavailable", str(error))
        except DepotError as error:
            return _error(400, "refused", str(error))
        return web.json_response({"transfer": describe(transfer)}, status=202)

    async def list_transfers(self, request: web.Request) -> web.Response:
        """The downloads under way."""
        return web.json_response({"transfers": [describe(one) for one in self.depot.active_transfers()]})

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop a download; what has arrived stays for a later one."""
        wanted = request.match_info["id"]
        if not any(transfer.id == wanted for transfer in self.depot.active_transfers()):
            message = f"No transfer '{wanted}' is under way. GET /depot/transfers lists them."
            return _error(404, "no_transfer", message)
        await asyncio.to_thread(self.depot.transfers.cancel, wanted)
        return web.json_response({"cancelled": wanted})

    async def stats(self, request: web.Request) -> web.Response:
        """Counts and sizes."""
        return web.json_response(await asyncio.to_thread(inventory.stats, self.depot))

    async def refresh(self, request: web.Request) -> web.Response:
        """Read the manifests again now."""
        snapshot = await asyncio.to_thread(self.depot.catalogue.refresh)
        count = sum(len(models) for models in snapshot.entries.values())
        return web.json_response({"models": count, "problems": _problems(snapshot.problems)})


def describe(transfer: Transfer) -> dict[str, Any]:
    """A transfer for people who may watch it: the source's host, nothing of its url."""
    return {
        "id": transfer.id,
        "folder": transfer.entry.folder,
        "name": transfer.entry.name,
        "state": str(getattr(transfer.state, "value", transfer.state)),
        "bytes_done": transfer.bytes_done,
        "bytes_total": transfer.bytes_total,
        "bytes_per_second": transfer.bytes_per_second,
        "source": _host(transfer.source),
        "error": str(transfer.error) if transfer.error else None,
    }


def _host(source: str | None) -> str | None:
    return urlsplit(source).hostname if source and "://" in source else source


def _folder_and_name(body: object) -> tuple[str, str]:
    if not isinstance(body, dict):
        raise ValueError(f"The body is no object. {_FETCH_BODY}")
    for field in ("folder", "name"):
        if not isinstance(body.get(field), str) or not body[field]:
            raise ValueError(f"'{field}' is missing or no text. {_FETCH_BODY}")
    return body["folder"], body["name"]


def _problems(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [{"file": one.file, "line": one.line, "message": one.message} for one in problems]


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)

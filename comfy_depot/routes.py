"""`/depot/...` over HTTP: what there is, what is on its way, and what to do about it.

    GET    /depot/models?folder=&tier=   {models: [{folder, name, tier, size, ...}], problems: [...],
                                          resident: [{files, bytes, loads, hits, ...}], dropped: [...],
                                          memory: {...}}; of tier "memory" no models but those in memory
    POST   /depot/fetch {folder, name}   202 {transfer: {...}}, or 200 {folder, name, tier: "disk"}
    POST   /depot/evict {folder, name}   {dry_run, bytes_freed, bytes_over, evicted: [...], kept: [...]}
    POST   /depot/evict {max_size, keep_days}       the same; `dry_run` in both
    POST   /depot/pin|unpin {folder, name, dry_run} {dry_run, pinned: [{folder, name}]}; with
                                         {"tier": "memory"} or {group} see memory_routes.py
    GET    /depot/groups                 see memory_routes.py
    GET    /depot/search?name=&hash=&base_model=    {models: [...], total, is_complete} (`search_routes.py`)
    GET    /depot/transfers              {transfers: [...]}
    DELETE /depot/transfers/{id}         {cancelled: id}
    GET    /depot/stats                  {tiers, transfers, accesses, problems, bytes_free, resident}
    POST   /depot/warm                   see warm_routes.py
    POST   /depot/manifests/refresh      {models: count, problems: [...], lists: [{name, state, message}]}
    GET    /depot/offers                 {policy, hosts, offers: [{folder, name, state, message, url}]}
    POST   /depot/offers {workflow}      {offers: [...]}
    POST   /depot/offers/accept|forget {folder, name}       as GET /depot/offers
    see also upkeep_routes.py (log, verify, replay), task_routes.py (/api/tasks), file_routes.py

Every error is `{"error": {"type", "message"}}`, and the message says what to do. No answer holds a header, a
token or more of a url than its host.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from comfy_depot import (
    file_routes,
    inventory,
    memory_routes,
    options,
    search_routes,
    task_routes,
    upkeep_routes,
    warm_routes,
)
from comfy_depot.errors import DepotError, DiskFull, ModelUnavailable
from comfy_depot.eviction import Limits
from comfy_depot.manifest import Problem
from comfy_depot.pins import PinsUnreadable
from comfy_depot.policies import Key

if TYPE_CHECKING:
    from comfy_depot.depot import Depot
    from comfy_depot.transfers import Transfer

_FETCH_BODY = 'Send {"folder": "checkpoints", "name": "x.safetensors"}.'
_PIN_BODY = 'Send {"folder": "checkpoints", "name": "x.safetensors"}; add "dry_run": true to only look.'
_OFFER_BODY = 'Send {"workflow": {"nodes": [...]}}.'
_EVICT_BODY = ('Send {"folder": "checkpoints", "name": "x.safetensors"}, or limits as '
               '{"max_size": "200G", "keep_days": 7}; add "dry_run": true to only look.')


IN_MEMORY = "memory"
"""The tier for who asks only what is in memory: no file or manifest is listed, however many there are."""


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add the depot's routes to a route table."""
    handlers = _Handlers(depot)
    routes.get("/depot/models")(handlers.list_models)
    routes.post("/depot/fetch")(handlers.fetch)
    routes.post("/depot/evict")(handlers.evict)
    routes.post("/depot/pin")(handlers.pin)
    routes.post("/depot/unpin")(handlers.unpin)
    routes.get("/depot/transfers")(handlers.list_transfers)
    routes.delete("/depot/transfers/{id}")(handlers.cancel)
    routes.get("/depot/stats")(handlers.stats)
    routes.post("/depot/manifests/refresh")(handlers.refresh)
    warm_routes.add_routes(routes, depot)
    memory_routes.add_routes(routes, depot)
    routes.get("/depot/offers")(handlers.list_offers)
    routes.post("/depot/offers")(handlers.offer)
    routes.post("/depot/offers/accept")(handlers.accept_offer)
    routes.post("/depot/offers/forget")(handlers.forget_offer)
    search_routes.add_routes(routes, depot)
    upkeep_routes.add_routes(routes, depot)
    task_routes.add_routes(routes, depot)
    file_routes.add_routes(routes, depot)


class _Handlers:
    def __init__(self, depot: Depot) -> None:
        self.depot = depot

    async def list_models(self, request: web.Request) -> web.Response:
        """Every known model with its tier."""
        folder, tier = request.query.get("folder"), request.query.get("tier")
        known_tiers = (*inventory.TIERS, IN_MEMORY)
        if tier is not None and tier not in known_tiers:
            known = ", ".join(known_tiers)
            return _error(400, "bad_tier", f"tier '{tier}' is not known. Use one of: {known}.")
        try:
            found = [] if tier == IN_MEMORY else await asyncio.to_thread(
                inventory.models, self.depot, folder=folder, tier=tier)
        except ValueError as error:
            return _error(400, "bad_folder", str(error))
        problems = await asyncio.to_thread(self.depot.problems)
        return web.json_response({
            "models": [inventory.as_json(model) for model in found], "problems": _problems(problems),
            "pinned": await asyncio.to_thread(self._pinned),
            "resident": await asyncio.to_thread(self.depot.residents.models),
            "dropped": self.depot.residents.drops(),
            "memory": await asyncio.to_thread(self.depot.pinning.report),
        })

    async def fetch(self, request: web.Request) -> web.Response:
        """Start the download of a model."""
        try:
            folder, name = _folder_and_name(await _body_of(request, _FETCH_BODY), _FETCH_BODY)
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        return await asyncio.to_thread(self._start_fetch, folder, name)

    async def evict(self, request: web.Request) -> web.Response:
        """Delete models that a manifest can bring back, by name or down to limits."""
        try:
            limits, is_dry_run = _eviction_of(await _body_of(request, _EVICT_BODY))
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        return await asyncio.to_thread(self._evict, limits, is_dry_run)

    def _pinned(self) -> list[dict[str, str]]:
        with contextlib.suppress(PinsUnreadable):
            return [{"folder": folder, "name": name} for folder, name in sorted(self.depot.pins.all())]
        return []

    async def pin(self, request: web.Request) -> web.Response:
        """Keep a model on the disk."""
        return await self._change_pins(request, self.depot.pin, lambda pins, key: pins | {key})

    async def unpin(self, request: web.Request) -> web.Response:
        """Let a pinned model go again when room is needed."""
        return await self._change_pins(request, self.depot.unpin, lambda pins, key: pins - {key})

    async def _change_pins(
        self, request: web.Request, change: Callable[..., Key],
        foretell: Callable[[AbstractSet[Key], Key], AbstractSet[Key]],
    ) -> web.Response:
        def carry_out() -> web.Response:
            try:
                key = change(folder, name, is_dry_run=is_dry_run)
                pins = foretell(self.depot.pins.all(), key)
            except ModelUnavailable as error:
                return _error(404, "model_unavailable", str(error))
            except DepotError as error:
                return _error(409, "pins_unreadable", str(error))
            return web.json_response({"dry_run": is_dry_run, "pinned": [
                {"folder": folder, "name": name} for folder, name in sorted(pins)]})

        try:
            body = await _body_of(request, _PIN_BODY)
            if memory_routes.is_meant(body):
                return await memory_routes.change_pins(self.depot, request, body)
            folder, name = _folder_and_name(body, _PIN_BODY)
            is_dry_run = _dry_run_of(body, {"folder", "name", "tier"}, _PIN_BODY)
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        return await asyncio.to_thread(carry_out)

    def _evict(self, limits: Limits, is_dry_run: bool) -> web.Response:
        try:
            plan = self.depot.plan_eviction(limits)
        except ModelUnavailable as error:
            return _error(404, "model_unavailable", str(error))
        except PinsUnreadable as error:
            return _error(409, "pins_unreadable", str(error))
        if not is_dry_run:
            plan = plan.execute()
        if limits.names is not None and not plan.going:
            (folder, name), reason = plan.staying[0].model.key, plan.staying[0].reason
            return _error(409, "must_stay", f"'{folder}/{name}' stays: {reason}.")
        return web.json_response({"dry_run": is_dry_run, **plan.as_json()})

    def _start_fetch(self, folder: str, name: str) -> web.Response:
        if self.depot.current_path(folder, name) is not None:
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
        """Bring the lists of elsewhere to their versions and read the manifests again, now."""
        outcomes = await asyncio.to_thread(self.depot.lists.refresh)
        snapshot = await asyncio.to_thread(self.depot.catalogue.refresh)
        count = sum(len(models) for models in snapshot.entries.values())
        lists = [{"name": one.name, "state": one.state, "message": one.message} for one in outcomes]
        return web.json_response({"models": count, "problems": _problems(snapshot.problems), "lists": lists})

    async def list_offers(self, request: web.Request) -> web.Response:
        """The models that workflows have named, and the policy."""
        offers, options = await asyncio.to_thread(self.depot.offers.listed), self.depot.options
        return web.json_response({"policy": options.workflow_models, "hosts": options.workflow_hosts,
                                  "offers": [asdict(offer) for offer in offers]})

    async def offer(self, request: web.Request) -> web.Response:
        """Take up the models of a workflow as the policy says."""
        try:
            body = await _body_of(request, _OFFER_BODY)
            if not isinstance(body.get("workflow"), dict):
                raise _BadBody(f"'workflow' is missing or no object. {_OFFER_BODY}")
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        offers = await asyncio.to_thread(self.depot.offers.offer, body["workflow"])
        return web.json_response({"offers": [asdict(offer) for offer in offers]})

    async def accept_offer(self, request: web.Request) -> web.Response:
        """Let a model of a workflow count like one of a manifest."""
        return await self._with_offer(request, self.depot.offers.accept)

    async def forget_offer(self, request: web.Request) -> web.Response:
        """Take a model of a workflow out again."""
        return await self._with_offer(request, self.depot.offers.forget)

    async def _with_offer(self, request: web.Request, act: Callable[[str, str], None]) -> web.Response:
        try:
            folder, name = _folder_and_name(await _body_of(request, _FETCH_BODY), _FETCH_BODY)
            await asyncio.to_thread(act, folder, name)
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        except ModelUnavailable as error:
            return _error(404, "model_unavailable", str(error))
        return await self.list_offers(request)


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


class _BadBody(ValueError):
    """A request's body is not what the route takes; `kind` is the type of the answer."""

    def __init__(self, message: str, *, kind: str = "bad_request") -> None:
        super().__init__(message)
        self.kind = kind


async def _body_of(request: web.Request, form: str) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, LookupError, RecursionError):  # also digits, charsets and depths that Python refuses
        raise _BadBody(f"The body is not JSON. {form}", kind="not_json") from None
    if not isinstance(body, dict):
        raise _BadBody(f"The body is no object. {form}")
    return body


def _folder_and_name(body: dict[str, Any], form: str) -> tuple[str, str]:
    for field in ("folder", "name"):
        if not isinstance(body.get(field), str) or not body[field]:
            raise _BadBody(f"'{field}' is missing or no text. {form}")
    return body["folder"], body["name"]


def _dry_run_of(body: dict[str, Any], fields: set[str], form: str) -> bool:
    """Whether only to look; a field that is none of `fields` is refused: it may be meant as `dry_run`."""
    unknown = sorted(body.keys() - fields - {"dry_run"})
    if unknown:
        raise _BadBody(f"'{unknown[0][:80]}' is not known here. {form}")
    is_dry_run = body.get("dry_run", False)
    if not isinstance(is_dry_run, bool):
        raise _BadBody(f"'dry_run' is neither true nor false. {form}")
    return is_dry_run


def _eviction_of(body: dict[str, Any]) -> tuple[Limits, bool]:
    """What to evict, and whether only to look."""
    is_dry_run = _dry_run_of(body, {"folder", "name", "max_size", "keep_days"}, _EVICT_BODY)
    days = body.get("keep_days")
    if days is not None and (isinstance(days, bool) or not isinstance(days, (int, float))):
        raise _BadBody(f"'keep_days' is no number. {_EVICT_BODY}")
    names = {_folder_and_name(body, _EVICT_BODY)} if body.keys() & {"folder", "name"} else None
    try:
        return Limits(max_size=_bytes(body.get("max_size")), keep_days=days, names=names), is_dry_run
    except ValueError as error:
        raise _BadBody(f"{error} {_EVICT_BODY}") from None


def _bytes(size: object) -> int | None:
    if isinstance(size, str):
        try:
            return options.parse_size(size)
        except argparse.ArgumentTypeError as error:
            raise ValueError(str(error)) from None
    if isinstance(size, bool) or not (size is None or isinstance(size, int)):
        raise ValueError("'max_size' is neither bytes nor a text such as \"200G\".")
    return size


def _problems(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [{"file": one.file, "line": one.line, "message": one.message} for one in problems]


def _error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)

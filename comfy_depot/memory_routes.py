"""The tier "memory" of the routes that pin and warm up.

    POST /depot/pin|unpin {"tier": "memory", folder, name}    name may be a glob; or {"group": NAME}
                     200 {dry_run, tier, pins: [{pattern, by, since}], models: [{folder, name, bytes}],
                          pinned_bytes, budget, message}: pins are all after it, models those it is about
                     409 {error, pinned: [{name, bytes, by}]} when they do not fit into the budget
    POST /depot/warm {"tier": "memory", folder, name}    202 {dry_run, models: [{folder, name, bytes, state,
    POST /depot/warm {"tier": "memory"}                       message}]}: that model, or all pinned ones
    GET  /depot/groups   {groups: [{name, patterns, is_active, models: [{folder, name, bytes}], problem}]}
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy_depot.errors import DepotError, ModelUnavailable
from comfy_depot.memory_pins import NotPinned
from comfy_depot.pinning import OverBudget, Plan

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

LONGEST_PATTERN = 400
_PIN = ('Send {"tier": "memory", "folder": "checkpoints", "name": "sdxl*"}, or {"group": "video"}; add '
        '"dry_run": true to only look.')
_WARM = ('Send {"tier": "memory", "folder": "checkpoints", "name": "x.safetensors"}, or {"tier": "memory"} '
         'for all pinned models; add "dry_run": true to only look.')


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add what only memory has."""

    @routes.get("/depot/groups")
    async def list_groups(request: web.Request) -> web.Response:
        return web.json_response({"groups": await asyncio.to_thread(depot.pinning.outlook)})


def is_meant(body: dict[str, Any]) -> bool:
    """Whether a body is about memory; any tier but "disk" is, so that a misspelt one is refused here."""
    return body.get("tier", "disk") != "disk" or "group" in body


async def change_pins(depot: Depot, request: web.Request, body: dict[str, Any]) -> web.Response:
    """Pin or unpin in memory; raises what the routes answer with 400."""
    from comfy_depot.routes import _error

    is_dry_run = _checked(body, {"folder", "name", "group"}, _PIN)
    is_pin = request.path.endswith("/pin")
    who = request.headers.get("comfy-user") or request.remote or "somebody"

    def plan() -> Plan:
        if "group" in body:
            return depot.pinning.plan_group(body["group"], is_on=is_pin)
        if is_pin:
            return depot.pinning.plan_pin(body["folder"], body["name"], f"POST /depot/pin by {who[:100]}")
        return depot.pinning.plan_unpin(body["folder"], body["name"])

    def carry_out() -> web.Response:
        try:
            made = depot.pinning.carry_out(plan, is_dry_run=is_dry_run)
        except ModelUnavailable as error:
            return _error(404, "model_unavailable", str(error))
        except NotPinned as error:
            return _error(404, "not_pinned", str(error))
        except OverBudget as error:
            return web.json_response({
                "error": {"type": "over_budget", "message": str(error)},
                "pinned": [{"name": one.name, "bytes": one.size, "by": one.by} for one in error.pinned],
            }, status=409)
        except DepotError as error:
            return _error(409, "pins_unreadable", str(error))
        except OSError as error:
            return _error(507, "not_written", f"The pins cannot be written ({error}). Nothing has changed. "
                                              "Look after the depot's state folder (--depot-dir).")
        return web.json_response({"dry_run": is_dry_run, "budget": depot.pinning.budget, **made.as_json()})

    return await asyncio.to_thread(carry_out)


async def warm(depot: Depot, body: dict[str, Any]) -> web.Response:
    """Load a model or all pinned ones; raises what the routes answer with 400."""
    is_dry_run = _checked(body, {"folder", "name"}, _WARM)
    work = depot.warm_memory

    def begin() -> web.Response:
        if "folder" in body:
            one = work.plan if is_dry_run else work.ask
            found = [one(body["folder"], body["name"])]
        else:
            found = work.pinned() if is_dry_run else work.warm_all()
        is_done = is_dry_run or all(model.state == "ready" for model in found)
        return web.json_response({"dry_run": is_dry_run, "models": [model.as_json() for model in found]},
                                 status=200 if is_done else 202)

    return await asyncio.to_thread(begin)


def _checked(body: dict[str, Any], fields: set[str], form: str) -> bool:
    """Whether only to look; _BadBody for a body that is not what the routes take."""
    from comfy_depot.routes import _BadBody, _dry_run_of, _folder_and_name

    is_dry_run = _dry_run_of(body, {*fields, "tier"}, form)
    if body.get("tier", "memory") != "memory":
        raise _BadBody(f"'tier' is none of disk and memory, or a group is not of the disk. {form}")
    if "group" in body:
        if not isinstance(body["group"], str) or body.keys() & {"folder", "name"}:
            raise _BadBody(f"'group' is a text and stands without 'folder' and 'name'. {form}")
    elif "group" in fields or body.keys() & {"folder", "name"}:
        given = "/".join(_folder_and_name(body, form))
        if len(given) > LONGEST_PATTERN or not given.isprintable():
            raise _BadBody(f"'folder' and 'name' are at most {LONGEST_PATTERN} printable characters. {form}")
    return is_dry_run

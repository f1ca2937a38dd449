"""What an administrator does now and then, over HTTP as on the command line.

    GET  /depot/log?limit=100                      {accesses: [{time, folder, name, ...}]}, newest first
    POST /depot/verify {hash: false}               {models, problems: [...]}
    POST /depot/replay {size: "200G", policy}      {results: [...]} of the own access log
    POST /depot/manifests/import-templates {check: false}      {file, models, state, refused}
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from comfy_depot import access, options, replay
from comfy_depot.policies import POLICIES
from comfy_depot.verifying import wrong_files

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

_MOST_ROWS = 10_000
_VERIFY = 'Send {} to compare sizes, or {"hash": true} to read the files and compare their sha256 too.'
_REPLAY = 'Send {"size": "200G"} or {"size": "10%"}; "policy" names one policy.'
_IMPORT = 'Send {} to write templates.json, or {"check": true} to only compare.'


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add the routes."""
    from comfy_depot.routes import _BadBody, _body_of, _error

    async def log(request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= _MOST_ROWS):
            return _error(400, "bad_request", f"limit is '{limit[:80]}'. Write 1 to {_MOST_ROWS}.")
        await asyncio.to_thread(depot.access.flush)
        rows = await asyncio.to_thread(access.read, depot.options.depot_dir, limit=int(limit))
        return web.json_response({"accesses": [asdict(row) for row in rows]})

    async def answer(request: web.Request, form: str, fields: set[str], work: Any) -> web.Response:
        try:
            body = await _body_of(request, form) if request.can_read_body else {}
            unknown = sorted(body.keys() - fields)
            if unknown:
                raise _BadBody(f"'{unknown[0][:80]}' is not known here. {form}")
            return web.json_response(await asyncio.to_thread(work, depot, body))
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        except ValueError as error:
            return _error(400, "bad_request", f"{error} {form}")
        except OSError as error:
            return _error(409, "not_written", f"{error}. Check the folder's owner and rights.")

    async def verify(request: web.Request) -> web.Response:
        return await answer(request, _VERIFY, {"hash"}, _verify)

    async def replay_log(request: web.Request) -> web.Response:
        return await answer(request, _REPLAY, {"size", "policy"}, _replay)

    async def import_templates(request: web.Request) -> web.Response:
        return await answer(request, _IMPORT, {"check"}, _import_templates)

    routes.get("/depot/log")(log)
    routes.post("/depot/verify")(verify)
    routes.post("/depot/replay")(replay_log)
    routes.post("/depot/manifests/import-templates")(import_templates)


def _verify(depot: Depot, body: dict[str, Any]) -> dict[str, Any]:
    problems = [str(problem) for problem in depot.catalogue.snapshot().problems]
    problems += wrong_files(depot, with_hashes=_truth(body, "hash"))
    return {"models": sum(1 for _ in depot.catalogue), "problems": problems}


def _replay(depot: Depot, body: dict[str, Any]) -> dict[str, Any]:
    known, policy, size = [*POLICIES, *replay.OFFLINE], body.get("policy"), body.get("size")
    if policy is not None and policy not in known:
        raise ValueError(f"'policy' is none of {', '.join(known)}.")
    try:
        budget = options.parse_budget(str(size))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"'size': {error}") from None
    depot.access.flush()
    trace = replay.of_log(access.read(depot.options.depot_dir))
    if not len(trace):
        raise ValueError("There is no use to replay: the access log is empty.")
    return {"results": [replay.replay(trace, replay.disk_bytes(trace, budget), name).as_json()
                        for name in known if policy in (None, name)]}


def _import_templates(depot: Depot, body: dict[str, Any]) -> dict[str, Any]:
    from comfy_depot import templates

    is_check, file = _truth(body, "check"), depot.options.model_manifests / templates.FILE_NAME
    models, refused, is_current = templates.write(file, only_check=is_check)
    if not is_check:
        depot.catalogue.refresh()
    state = "current" if is_current else "not current" if is_check else "written"
    return {"file": file.name, "models": models, "state": state, "refused": refused}


def _truth(body: dict[str, Any], field: str) -> bool:
    value = body.get(field, False)
    if not isinstance(value, bool):
        raise ValueError(f"'{field}' is neither true nor false.")
    return value

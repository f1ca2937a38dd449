"""The web page of upstream's server: the depot's panel in it, the fields of a posted prompt, and the
models page, which walks folders itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

import folder_paths
from comfy_depot import layout, places
from comfy_depot.upstream import core, force_request

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

EXTENSION = "depot"
PANEL = Path(__file__).resolve().parent.parent.parent / "web" / "depot"


def on_routes(depot: Depot) -> None:
    """The server gets its routes, the nodes are there: the panel is shown, and posted workflows are read."""
    if PANEL.is_dir():
        core.nodes().EXTENSION_WEB_DIRS.setdefault(EXTENSION, str(PANEL))
    server = core.server()
    if server is not None:
        server.add_on_prompt_handler(depot.offers.on_prompt)


def take_force(body: Any) -> Any:
    """A body of `POST /prompt` with `force` and `cache` in its extra data.

    Raises:
        aiohttp.web.HTTPBadRequest: they ask for what cannot be; the answer says what could.
    """
    try:
        return force_request.moved(body)
    except force_request.InvalidRequest as error:
        raise web.HTTPBadRequest(text=json.dumps(error.answer), content_type="application/json") from None


def with_manifest_models(depot: Depot, folder: str, files: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files of a models page with what only a manifest has, without size and dates; partials left out."""
    shown = [file for file in files if layout.HIDDEN not in Path(file["name"]).parts]
    kind = folder_paths.map_legacy(folder)
    directory, directories = places.directory_for(kind), places.table().get(kind, ([], ()))[0]
    if directory is None:
        return shown
    there = {file["name"].replace(os.sep, "/") for file in shown}
    index = directories.index(directory)
    models = depot.catalogue.snapshot().entries.get(kind, {})
    missing = sorted(set(models) - there)
    return [*shown, *({"name": name.replace("/", os.sep), "pathIndex": index} for name in missing)]

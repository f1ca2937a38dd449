"""What node packs bring for the web page: scripts, translations, example workflows, subgraphs, replaced
nodes.
"""

from __future__ import annotations

import asyncio
import glob
import os
import urllib.parse
from typing import Any

from aiohttp import web

from app.routes import register
from app.routes.operations import OBJECT, TEXT, Operation, by_name, many, or_null, record
from app.web_extensions import web_directories


def scripts_below(folder: str) -> list[str]:
    """Relative names of all .js files below a folder, with forward slashes."""
    found = glob.glob(os.path.join(glob.escape(folder), "**", "*.js"), recursive=True)
    return sorted(os.path.relpath(file, folder).replace(os.sep, "/") for file in found)


def extension_scripts(web_root: str) -> list[str]:
    """Addresses of every script that the web page loads at its start: its own and those of the packs."""
    own = ["/extensions/" + name for name in scripts_below(os.path.join(web_root, "extensions"))]
    packs = [
        f"/extensions/{urllib.parse.quote(pack)}/{name}"
        for pack, folder in web_directories().items()
        for name in scripts_below(folder)
    ]
    return own + packs


async def get_extensions(server: Any, request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(extension_scripts, server.web_root))


async def get_translations(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.custom_node_manager.build_translations())


async def get_workflow_templates(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.custom_node_manager.example_workflows())


async def get_subgraphs(server: Any, request: web.Request) -> web.Response:
    found = server.subgraph_manager.all()
    return web.json_response({key: subgraph.describe() for key, subgraph in found.items()})


async def get_subgraph(server: Any, request: web.Request) -> web.Response:
    subgraph = server.subgraph_manager.all().get(request.match_info["id"])
    return web.json_response(None if subgraph is None else subgraph.describe_with_data())


async def get_node_replacements(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.node_replace_manager.as_dict())


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the packs' additions."""
    register(
        routes,
        server,
        [
            ("GET", "/extensions", get_extensions),
            ("GET", "/i18n", get_translations),
            ("GET", "/workflow_templates", get_workflow_templates),
            ("GET", "/global_subgraphs", get_subgraphs),
            ("GET", "/global_subgraphs/{id}", get_subgraph),
            ("GET", "/node_replacements", get_node_replacements),
        ],
    )


SUBGRAPH = record({"source": TEXT, "name": TEXT, "info": record({"node_pack": TEXT})})
SUBGRAPH_DATA = record({"source": TEXT, "name": TEXT, "info": OBJECT, "data": TEXT})
SUCCESSOR = record({"new_node_id": TEXT, "old_node_id": TEXT}, {
    "old_widget_ids": or_null(many(TEXT)), "input_mapping": or_null(many(OBJECT)),
    "output_mapping": or_null(many(OBJECT)),
})  # fmt: skip
OPERATIONS = {
    "GET /extensions": Operation("Scripts of the web page and of node packs", {200: many(TEXT)}),
    "GET /i18n": Operation("Translations of node packs, by language", {200: by_name(OBJECT)}),
    "GET /workflow_templates": Operation("Example workflows of node packs", {200: by_name(many(TEXT))}),
    "GET /global_subgraphs": Operation("Subgraphs that packs bring", {200: by_name(SUBGRAPH)}),
    "GET /global_subgraphs/{id}": Operation("One subgraph with its workflow", {200: or_null(SUBGRAPH_DATA)}),
    "GET /node_replacements": Operation("Successors of old node classes", {200: by_name(many(SUCCESSOR))}),
}

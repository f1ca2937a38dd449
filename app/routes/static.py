"""The web page itself, and the files of node packs, templates and documentation."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from aiohttp import web

import nodes
from app.custom_node_manager import EXAMPLE_FOLDERS
from app.frontend_management import FrontendManager, template_files
from app.node_help import help_page
from app.routes import register
from app.routes.object_info import node_info
from app.routes.operations import BYTES, REASON, Operation, Raw
from app.safe_paths import inside
from app.web_extensions import web_directories

ENTRY_PAGE_HEADERS = {"Cache-Control": "no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}


async def get_page(server: Any, request: web.Request) -> web.StreamResponse:
    return web.FileResponse(os.path.join(server.web_root, "index.html"), headers=ENTRY_PAGE_HEADERS)


async def get_template_file(server: Any, request: web.Request) -> web.StreamResponse:
    files = await asyncio.to_thread(template_files)
    path = files.get(request.match_info["path"])
    if path is None:
        raise web.HTTPNotFound()
    return web.FileResponse(path)


def file_below(folders: Iterable[str], name: str) -> web.FileResponse:
    """The file of that name in the first folder that has it; 404 when none has."""
    for folder in folders:
        path = inside(folder, name)
        if path is not None and os.path.isfile(path):
            return web.FileResponse(path)
    raise web.HTTPNotFound()


async def get_extension_file(server: Any, request: web.Request) -> web.StreamResponse:
    """A file of a pack's web folder, else of the web page's own extensions."""
    path = request.match_info["path"]
    for name, folder in web_directories().items():
        if path.startswith(name + "/"):
            return file_below([folder], path[len(name) + 1 :])
    return file_below([os.path.join(server.web_root, "extensions")], path)


async def get_example_workflow(server: Any, request: web.Request) -> web.StreamResponse:
    """An example workflow of a pack, or a picture beside it."""
    folder = nodes.LOADED_MODULE_DIRS.get(request.match_info["pack"])
    if folder is None:
        raise web.HTTPNotFound()
    return file_below([os.path.join(folder, kind) for kind in EXAMPLE_FOLDERS], request.match_info["path"])


async def get_help_page(server: Any, request: web.Request) -> web.StreamResponse:
    """A page about a node: of the documentation package, else written from the node itself."""
    path = request.match_info["path"]
    folder = FrontendManager.embedded_docs_path()
    name = path.partition("/")[0]
    if folder is not None and (place := inside(folder, name)) is not None and os.path.isdir(place):
        return file_below([folder], path)
    if not path.endswith(".md") or name not in nodes.NODE_CLASS_MAPPINGS:
        raise web.HTTPNotFound()
    return web.Response(text=help_page(node_info(name)), content_type="text/markdown")


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """The entry page."""
    register(routes, server, [("GET", "/", get_page)])


def table(server: Any) -> web.RouteTableDef:
    """The routes of files, which have no twin below /api."""
    mounted = web.RouteTableDef()
    register(mounted, server, [
        ("GET", "/extensions/{path:.*}", get_extension_file),
        ("GET", "/api/workflow_templates/{pack}/{path:.*}", get_example_workflow),
        ("GET", "/templates/{path:.*}", get_template_file),
        ("GET", "/docs/{path:.*}", get_help_page),
    ])  # fmt: skip
    return mounted


def mount_files(application: web.Application, server: Any) -> None:
    """Mount every kind of file, and last the web page's folder."""
    application.add_routes(table(server))
    application.add_routes([web.static("/", server.web_root)])


FOUND = {200: BYTES, 206: BYTES, 304: None, 404: REASON, 416: REASON}
OPERATIONS = {
    "GET /": Operation(
        "The web page", {200: Raw("text/html"), 206: Raw("text/html"), 304: None, 416: REASON}
    ),
    "GET /extensions/{path:.*}": Operation("A file of a node pack for the web page", FOUND),
    "GET /api/workflow_templates/{pack}/{path:.*}": Operation("An example workflow of a node pack", FOUND),
    "GET /templates/{path:.*}": Operation("A file of the template browser", FOUND),
    "GET /docs/{path:.*}": Operation("A page about a node, {class}/{language}.md", FOUND),
}

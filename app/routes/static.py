"""The web page itself, and the files of node packs, templates and documentation."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import nodes
from aiohttp import web

from app.custom_node_manager import EXAMPLE_FOLDERS
from app.frontend_management import FrontendManager, template_files
from app.routes import register

ENTRY_PAGE_HEADERS = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "0"}


async def get_page(server: Any, request: web.Request) -> web.StreamResponse:
    return web.FileResponse(os.path.join(server.web_root, "index.html"), headers=ENTRY_PAGE_HEADERS)


async def get_template_file(server: Any, request: web.Request) -> web.StreamResponse:
    files = await asyncio.to_thread(template_files)
    path = files.get(request.match_info["path"])
    if path is None:
        raise web.HTTPNotFound()
    return web.FileResponse(path)


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """The entry page."""
    register(routes, server, [("GET", "/", get_page)])


def mount_files(application: web.Application, server: Any) -> None:
    """Mount every folder of files.

    Called when the node packs are loaded; the web page's folder comes last.
    """
    for name, folder in nodes.EXTENSION_WEB_DIRS.items():
        application.add_routes([web.static("/extensions/" + name, folder)])
    for name, folder in nodes.LOADED_MODULE_DIRS.items():
        for examples in (os.path.join(folder, kind) for kind in EXAMPLE_FOLDERS):
            if os.path.isdir(examples):
                application.add_routes([web.static("/api/workflow_templates/" + name, examples)])
    mounted = web.RouteTableDef()
    register(mounted, server, [("GET", "/templates/{path:.*}", get_template_file)])
    application.add_routes(mounted)
    docs = FrontendManager.embedded_docs_path()
    if docs is not None:
        application.add_routes([web.static("/docs", docs)])
    application.add_routes([web.static("/", server.web_root)])

"""The OpenAPI description of all routes, from the tables `OPERATIONS` beside the handlers.

Every route stands as it is and below /api, which is one entry with two servers. What node packs add is not
described.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping
from typing import Any

import app.routes
import comfyui_version
from app.routes import internal, static
from app.routes.operations import TEXT, Content, Operation, Raw, Schema

WITHOUT_TWIN = ("/internal", "/extensions/", "/api/workflow_templates/", "/templates/", "/docs/")
METHODS_OF_ANY = ("GET", "POST", "PUT", "DELETE")
FOREIGN = "The request comes from the page of another site."
MEANINGS = {
    101: "The line is open.", 200: "Done.", 201: "Made.", 202: "Begun.", 204: "Done; nothing to say.",
    206: "A part of it.", 304: "Not changed since.", 416: "There is no such part.",
    400: "The request is not understood.", 401: "Not known, or not allowed.", 403: FOREIGN,
    404: "There is no such thing.", 409: "It is in a state in which this cannot be done.",
    422: "It cannot be followed.", 429: "Too many at once; see Retry-After.",
    413: "The body is larger than --max-upload-size.", 503: "Not now, or not on this server.",
    507: "The disk is full.",
}  # fmt: skip
ROUTE = tuple[str, str]
"""Method and path, as in a table of routes."""


class NotDescribed(ValueError):
    """Routes and descriptions do not fit together."""


def tables() -> dict[str, Operation]:
    """`METHOD /path` -> its description, of all files of routes."""
    found: dict[str, Operation] = {}
    for module in pkgutil.iter_modules(app.routes.__path__):
        found |= getattr(importlib.import_module(f"app.routes.{module.name}"), "OPERATIONS", {})
    return found


def routes_of(server: Any) -> list[ROUTE]:
    """What a server serves, without the twins below /api."""
    inside = [(route.method, "/internal" + route.path) for route in internal.table(server)]
    tables = (server.routes, static.table(server))
    return [*inside, *((route.method, route.path) for table in tables for route in table)]


def problems(routes: Iterable[ROUTE], operations: Mapping[str, Operation]) -> list[str]:
    """A sentence for each route without a description, and each description without a route."""
    served = {f"{method} {path}" for method, path in routes}
    missing = [
        f"Route '{route}' has no description. Add an entry {route!r} to OPERATIONS in the file of "
        "app/routes/ that serves it (what it may hold: app/routes/operations.py)."
        for route in sorted(served - operations.keys())
    ]
    stale = [
        f"OPERATIONS describes '{route}', and no such route is served. Correct or remove the entry."
        for route in sorted(operations.keys() - served)
    ]
    return missing + stale


def template_of(path: str) -> str:
    """A path as OpenAPI writes it, without what a parameter may look like."""
    return re.sub(r"\{(\w+):(?:[^{}]|\{[^{}]*\})*\}", r"{\1}", path)


def parameters(path: str, operation: Operation) -> list[Schema]:
    """What stands in the path and behind it."""
    names = re.findall(r"\{(\w+)", path)
    inside = [
        {"name": name, "in": "path", "required": True, "schema": operation.path.get(name, TEXT)}
        for name in names
    ]
    behind = [
        {"name": name, "in": "query", "schema": schema,
         **({"required": True} if name in operation.needs_query else {})}
        for name, schema in operation.query.items()
    ]  # fmt: skip
    return inside + behind


def content_of(content: Content) -> Schema:
    """A body in OpenAPI's form."""
    if content is None:
        return {}
    if isinstance(content, Raw):
        return {"content": {content.media_type: {"schema": content.schema} if content.schema else {}}}
    return {"content": {"application/json": {"schema": content}}}


def described(method: str, path: str, operation: Operation) -> Schema:
    """One route in OpenAPI's form."""
    answers = {403: None, **({413: None} if operation.body is not None else {}), **operation.answers}
    entry: Schema = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()} {path}").strip("_"),
        "summary": operation.summary,
        "tags": [(path.removeprefix("/api").strip("/").split("/")[0] or "page").partition("{")[0]],
        "responses": {
            str(status): {"description": MEANINGS[status], **content_of(content)}
            for status, content in sorted(answers.items())
        },
    }
    if found := parameters(path, operation):
        entry["parameters"] = found
    if operation.body is not None:
        entry["requestBody"] = {"required": operation.needs_body, **content_of(operation.body)}
    return entry


def document(routes: Iterable[ROUTE], operations: Mapping[str, Operation]) -> Schema:
    """The whole description of those routes that are described."""
    paths: dict[str, Schema] = {}
    for method, path in sorted(routes):
        operation = operations.get(f"{method} {path}")
        if operation is None:
            continue
        item = paths.setdefault(template_of(path), {})
        if path == "/" or path.startswith(WITHOUT_TWIN):
            item["servers"] = [{"url": "/"}]
        for one in METHODS_OF_ANY if method == "*" else (method,):
            item[one.lower()] = described(one, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ComfyUI Depot",
            "version": comfyui_version.__version__,
            "description": "Runs workflows, and keeps the models that they need. See docs/http.md.",
            "license": {"name": "GPL-3.0-only", "identifier": "GPL-3.0-only"},
        },
        "servers": [{"url": "/"}, {"url": "/api"}],
        "paths": paths,
    }


def document_of(server: Any) -> Schema:
    """The description of a running server."""
    return document(routes_of(server), tables())

"""Model files: names for scripts (/models), the web page's model library (/experiment/models), headers,
embeddings.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import web

import folder_paths
from app.encoded_lists import EncodedLists
from app.model_manager import as_webp, files_as_json, find_model, model_files
from app.routes import answer_encoded, register, whole_number
from app.routes.object_info import LISTS
from app.routes.operations import NUMBER, OBJECT, REASON, TEXT, WHOLE, Operation, Raw, many, record
from app.safe_paths import inside
from app.safetensors_header import read_header

METADATA_HEADER_BYTES = 1024 * 1024
FILES = EncodedLists(files_as_json)
"""Lines of the model library, by their content."""


def known_folder(request: web.Request) -> str:
    """The route's {folder} under its present name; 404 for an unknown kind of model."""
    folder = folder_paths.map_legacy(request.match_info["folder"])
    if folder not in folder_paths.folder_names_and_paths:
        raise web.HTTPNotFound()
    return folder


async def get_embeddings(server: Any, request: web.Request) -> web.Response:
    def encoded() -> bytes:
        names = folder_paths.get_filename_list("embeddings")
        return LISTS.json_of([os.path.splitext(name)[0] for name in names])

    return answer_encoded(await asyncio.to_thread(encoded))


async def get_model_types(server: Any, request: web.Request) -> web.Response:
    return web.json_response(list(folder_paths.folder_names_and_paths))


async def get_models(server: Any, request: web.Request) -> web.Response:
    folder = known_folder(request)
    return answer_encoded(await asyncio.to_thread(
        lambda: LISTS.json_of(folder_paths.get_filename_list(folder))))


async def get_model_folders(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.model_file_manager.folders())


async def get_model_files(server: Any, request: web.Request) -> web.Response:
    folder = known_folder(request)
    return answer_encoded(await asyncio.to_thread(lambda: FILES.json_of(model_files(folder))))


async def get_model_preview(server: Any, request: web.Request) -> web.Response:
    """Cover picture of a model, from a picture beside it or its header."""
    folder = known_folder(request)
    index = whole_number(request.match_info["path_index"], 0)
    places = folder_paths.get_folder_paths(folder)
    if not request.match_info["filename"]:
        raise web.HTTPBadRequest(text="Name a model file.")
    if not 0 <= index < len(places):
        raise web.HTTPNotFound()
    path = find_model(folder, index, request.match_info["filename"])
    if path is None:
        raise web.HTTPForbidden()
    covers = await asyncio.to_thread(server.model_file_manager.get_model_previews, path)
    if not covers:
        raise web.HTTPNotFound()
    if isinstance(covers[0], str) and inside(places[index], covers[0]) is None:
        raise web.HTTPForbidden()  # a link that leaves the model folder
    body = await asyncio.to_thread(as_webp, covers[0])
    if body is None:
        raise web.HTTPNotFound()
    return web.Response(body=body, content_type="image/webp")


async def get_view_metadata(server: Any, request: web.Request) -> web.Response:
    """The `__metadata__` of a safetensors file on disk; of a listed one that is not there yet, nothing."""
    folder, filename = request.match_info["folder"], request.query.get("filename", "")
    if not filename.endswith(".safetensors"):
        raise web.HTTPNotFound()
    path = folder_paths.get_full_path(folder, filename)
    if path is None and folder in folder_paths.folder_names_and_paths:
        if filename in await asyncio.to_thread(folder_paths.get_filename_list, folder):
            return web.json_response({})  # the page asks for every model that it lists
    header = (
        None
        if path is None
        else await asyncio.to_thread(read_header, path, bytes_limit=METADATA_HEADER_BYTES)
    )
    if header is None or "__metadata__" not in header:
        raise web.HTTPNotFound()
    return web.json_response(header["__metadata__"])


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the models."""
    register(
        routes,
        server,
        [
            ("GET", "/embeddings", get_embeddings),
            ("GET", "/models", get_model_types),
            ("GET", "/models/{folder}", get_models),
            ("GET", "/experiment/models", get_model_folders),
            ("GET", "/experiment/models/preview/{folder}/{path_index}/{filename:.*}", get_model_preview),
            ("GET", "/experiment/models/{folder}", get_model_files),
            ("GET", "/view_metadata/{folder}", get_view_metadata),
        ],
    )


MODEL = record({"name": TEXT, "pathIndex": WHOLE}, {"size": WHOLE, "modified": NUMBER, "created": NUMBER})
FOLDER = record({"name": TEXT, "folders": many(TEXT), "extensions": many(TEXT)})
OPERATIONS = {
    "GET /embeddings": Operation("Names of embeddings, without their ends", {200: many(TEXT)}),
    "GET /models": Operation("Kinds of models", {200: many(TEXT)}),
    "GET /models/{folder}": Operation("Names of the models of a kind", {200: many(TEXT), 404: REASON}),
    "GET /experiment/models": Operation("Kinds of models with their folders", {200: many(FOLDER)}),
    "GET /experiment/models/{folder}": Operation(
        "Models of a kind; size and dates of those on this disk", {200: many(MODEL), 404: REASON}
    ),
    "GET /experiment/models/preview/{folder}/{path_index}/{filename:.*}": Operation(
        "Cover picture of a model", {200: Raw("image/webp"), 400: REASON, 403: REASON, 404: REASON},
        path={"path_index": WHOLE},
    ),
    "GET /view_metadata/{folder}": Operation(
        "Metadata in the header of a safetensors file", {200: OBJECT, 404: REASON},
        query={"filename": TEXT}, needs_query=("filename",),
    ),
}  # fmt: skip

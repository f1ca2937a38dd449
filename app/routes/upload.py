"""POST /upload/image and /upload/mask."""

from __future__ import annotations

import asyncio
import filecmp
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO

from aiohttp import web
from aiohttp.http import HttpProcessingError

import folder_paths
from app.atomic_write import path_beside
from app.routes import register
from app.routes.operations import FILE, REASON, TEXT, Operation, form, one_of, record
from app.routes.view import locate, opened
from app.safe_paths import inside


def uploaded_file(form: Mapping[str, Any]) -> web.FileField:
    """The form's picture; 400 when there is none or it has no name."""
    field = form.get("image")
    if not isinstance(field, web.FileField) or not is_name(field.filename):
        raise web.HTTPBadRequest(text="The form needs a file with a name in its field 'image'.")
    return field


def is_name(text: str) -> bool:
    """Can a file be called so, and be spoken of in JSON? Bytes that are no UTF-8 arrive as surrogates."""
    return bool(text) and not any("\ud800" <= character <= "\udfff" for character in text)


async def read_form(request: web.Request) -> Mapping[str, Any]:
    """The fields of a form; 400 for what is none."""
    try:
        return await request.post()
    except (ValueError, HttpProcessingError) as error:
        raise web.HTTPBadRequest(text=f"The request's body is no form: {error}") from None


def subfolder_of(form: Mapping[str, Any]) -> str:
    """The form's subfolder; 400 for a file in its place."""
    subfolder = form.get("subfolder", "")
    if not isinstance(subfolder, str):
        raise web.HTTPBadRequest(text="subfolder must be a text.")
    return subfolder


def destination(form: Mapping[str, Any], filename: str) -> tuple[str, str]:
    """(path, folder type) to write to; 400 when the form names no folder or leaves it."""
    kind = form.get("type") or "input"
    folder = folder_paths.get_directory_by_type(kind)
    if folder is None:
        raise web.HTTPBadRequest(text="type must be input, temp or output.")
    path = inside(folder, subfolder_of(form), filename)
    if path is None or os.path.realpath(path) == os.path.realpath(folder) or os.path.isdir(path):
        raise web.HTTPBadRequest(text="The file's name or subfolder leads out of the folder.")
    return path, kind


def free_path(path: str, new_file: str) -> str:
    """`path`, else with " (1)", " (2)" and so on: the first that is free or already holds the same bytes."""
    stem, suffix = os.path.splitext(path)
    candidate, number = path, 0
    while os.path.exists(candidate) and not filecmp.cmp(candidate, new_file, shallow=False):
        number += 1
        candidate = f"{stem} ({number}){suffix}"
    return candidate


def store(source: BinaryIO, path: str, *, overwrite: bool) -> str:
    """Write the upload and return the file's final name."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = path_beside(path)
    try:
        with open(beside, "xb") as file:
            shutil.copyfileobj(source, file)
        final = path if overwrite else free_path(path, beside)
        os.replace(beside, final)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    return os.path.basename(final)


async def save(form: Mapping[str, Any], filename: str, source: BinaryIO) -> web.Response:
    """Write the upload where the form says, and tell its name."""
    path, kind = destination(form, filename)
    overwrite = form.get("overwrite") in ("true", "1")
    try:
        name = await asyncio.to_thread(store, source, path, overwrite=overwrite)
    except OSError as error:
        raise web.HTTPBadRequest(
            text=f"The file cannot be written ({error.strerror}). Choose another name or subfolder."
        ) from None
    return web.json_response({"name": name, "subfolder": subfolder_of(form), "type": kind})


async def post_image(server: Any, request: web.Request) -> web.Response:
    form = await read_form(request)
    field = uploaded_file(form)
    return await save(form, field.filename, field.file)


def with_alpha_of(original: str, mask: BinaryIO) -> BinaryIO:
    """A PNG of the original picture with the mask's alpha channel; its text metadata is kept."""
    from PIL.PngImagePlugin import PngInfo

    metadata = PngInfo()
    with opened(original) as picture, opened(mask) as masked:
        for key, value in getattr(picture, "text", {}).items():
            metadata.add_text(key, value)
        painted = picture.convert("RGBA")
        painted.putalpha(masked.convert("RGBA").getchannel("A").resize(painted.size))
    file = tempfile.TemporaryFile()
    painted.save(file, format="PNG", compress_level=4, pnginfo=metadata)
    file.seek(0)
    return file


async def post_mask(server: Any, request: web.Request) -> web.Response:
    form = await read_form(request)
    field = uploaded_file(form)
    try:
        reference = json.loads(form.get("original_ref", ""))
        original = locate(reference)
    except (ValueError, TypeError, AttributeError):
        raise web.HTTPBadRequest(text="original_ref must be JSON {filename, type, subfolder}.") from None
    try:
        combined = await asyncio.to_thread(with_alpha_of, original, field.file)
    except (OSError, ValueError) as error:
        raise web.HTTPBadRequest(text=f"The mask or its original is not a picture: {error}") from None
    with combined:
        return await save(form, field.filename, combined)


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes that take pictures."""
    register(routes, server, [("POST", "/upload/image", post_image), ("POST", "/upload/mask", post_mask)])


STORED = record({"name": TEXT, "subfolder": TEXT, "type": TEXT})
PLACE = {
    "type": one_of("input", "temp", "output"),
    "subfolder": TEXT,
    "overwrite": one_of("true", "1", "false"),
}
OPERATIONS = {
    "POST /upload/image": Operation(
        "Store a picture", {200: STORED, 400: REASON, 413: REASON}, body=form({"image": FILE}, PLACE)
    ),
    "POST /upload/mask": Operation(
        "Store a picture with the alpha channel of another",
        {200: STORED, 400: REASON, 403: REASON, 404: REASON, 413: REASON},
        body=form({"image": FILE, "original_ref": TEXT}, PLACE),
    ),
}

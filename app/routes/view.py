"""GET /view: a picture, video, sound or other file out of input, output or temp."""

from __future__ import annotations

import asyncio
import contextlib
import io
import mimetypes
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from aiohttp import web

import folder_paths
from app.routes import register
from app.routes.operations import BYTES, REASON, TEXT, Operation, one_of
from app.safe_paths import inside, quoted

DEFAULT_QUALITY = 90


def locate(query: Any) -> str:
    """The path a query names: filename (perhaps ending in " [output]"), type, subfolder.

    Raises 400, 403 or 404.
    """
    filename, folder = folder_paths.annotated_filepath(query.get("filename", ""))
    if not filename:
        raise web.HTTPNotFound() if "filename" not in query else web.HTTPBadRequest()
    if filename.startswith(("/", "\\")) or ".." in filename:
        raise web.HTTPBadRequest()
    folder = folder or folder_paths.get_directory_by_type(query.get("type", "output"))
    if folder is None:
        raise web.HTTPBadRequest()
    path = inside(folder, query.get("subfolder", ""), os.path.basename(filename))
    if path is None:
        raise web.HTTPForbidden()
    if not os.path.isfile(path):
        raise web.HTTPNotFound()
    return path


@contextlib.contextmanager
def opened(file: str | BinaryIO) -> Iterator[Any]:
    """A PIL picture; OSError or ValueError for a file that is none, or one that would fill the memory."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            yield picture
    except (Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(str(error)) from error


def shrunk(path: str, wish: str, channel: str) -> tuple[bytes, str]:
    """(file, MIME type) of a picture as WEBP or JPEG; `wish` is "webp;90"."""
    kind, _, quality = wish.partition(";")
    if kind != "jpeg" or "a" in channel:
        kind = "webp"
    with opened(path) as picture:
        converted = picture.convert("RGB") if kind == "jpeg" or channel == "rgb" else picture
        file = io.BytesIO()
        converted.save(file, format=kind, quality=int(quality) if quality.isdigit() else DEFAULT_QUALITY)
    return file.getvalue(), f"image/{kind}"


def only_colour(path: str) -> tuple[bytes, str]:
    """(PNG file, MIME type) of a picture without its alpha channel."""
    with opened(path) as picture:
        file = io.BytesIO()
        picture.convert("RGB").save(file, format="PNG")
    return file.getvalue(), "image/png"


def only_alpha(path: str) -> tuple[bytes, str]:
    """(PNG file, MIME type) of a picture's alpha channel, as the alpha of a black picture; opaque where it
    has none.
    """
    from PIL import Image

    with opened(path) as picture:
        alpha = picture.getchannel("A") if "A" in picture.getbands() else Image.new("L", picture.size, 255)
        mask = Image.new("RGBA", picture.size)
        mask.putalpha(alpha)
        file = io.BytesIO()
        mask.save(file, format="PNG")
    return file.getvalue(), "image/png"


async def converted(path: str, convert: Any, *arguments: str) -> web.Response:
    """The answer with a converted picture; 400 for a file that is none."""
    try:
        body, content_type = await asyncio.to_thread(convert, path, *arguments)
    except (OSError, ValueError) as error:
        raise web.HTTPBadRequest(
            text=f"{os.path.basename(path)} cannot be read as a picture: {error}"
        ) from None
    disposition = f"filename={quoted(os.path.basename(path))}"
    return web.Response(
        body=body,
        content_type=content_type,
        headers={"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"},
    )


def as_it_is(path: str, destination: str | None) -> web.FileResponse:
    """The file itself. What could run as a page of this server is a download, except an SVG for an <img>."""
    content_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    disposition = f"filename={quoted(os.path.basename(path))}"
    headers = {"X-Content-Type-Options": "nosniff"}
    if folder_paths.is_dangerous_content_type(content_type):
        # The answer depends on a request header: a cache must not give one answer for the other.
        headers.update({"Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"})
        if not folder_paths.renders_safely_as_image(content_type, destination):
            content_type, disposition = "application/octet-stream", "attachment; " + disposition
    headers.update({"Content-Type": content_type, "Content-Disposition": disposition})
    return web.FileResponse(path, headers=headers)


async def get_view(server: Any, request: web.Request) -> web.StreamResponse:
    query = request.query
    path, channel = locate(query), query.get("channel", "")
    if "preview" in query:
        return await converted(path, shrunk, query["preview"], channel)
    if channel == "rgb":
        return await converted(path, only_colour)
    if channel == "a":
        return await converted(path, only_alpha)
    return as_it_is(path, request.headers.get("Sec-Fetch-Dest"))


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes that show files."""
    register(routes, server, [("GET", "/view", get_view)])


OPERATIONS = {
    "GET /view": Operation(
        "A file of output, input or temp, perhaps converted",
        {200: BYTES, 206: BYTES, 304: None, 400: REASON, 403: REASON, 404: REASON, 416: REASON},
        query={
            "filename": TEXT, "type": one_of("output", "input", "temp"), "subfolder": TEXT,
            "preview": {"type": "string", "examples": ["webp;90", "jpeg;80"]},
            "channel": one_of("rgba", "rgb", "a"),
        },
        needs_query=("filename",),
    )
}  # fmt: skip

"""`/api/v2/assets`: files that workflows take in, and the files that jobs have made."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

import folder_paths
from app import content_store, v2_shapes
from app.content_store import Receiver
from app.routes import answer
from app.routes.v2_answers import (
    V2Error,
    base_of,
    not_found,
    read_body,
    register_v2,
    too_large,
    unusable,
)
from app.routes.v2_jobs import output_item
from app.routes.view import as_it_is

LONGEST_FIELD = 1 << 14
LONGEST_PATH = 400
PIECE = 1 << 16
NOSNIFF = {"X-Content-Type-Options": "nosniff"}
_MIME = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,80}")


@dataclass
class Form:
    """The fields of an upload."""

    texts: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    type_of_part: str = ""
    has_file: bool = False


async def read_form(request: web.Request, receiver: Receiver) -> Form:
    """Take the file into `receiver` and the rest into a form."""
    form = Form()
    if not request.content_type.startswith("multipart/"):
        raise unusable("An upload is a multipart/form-data body with the fields file and file_path.")
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name is not None:
                await _take_part(part, form, receiver)
    except content_store.TooLargeError:
        raise too_large(receiver.most_bytes or 0) from None
    except (ValueError, AssertionError, HttpProcessingError) as error:
        raise unusable(f"The upload is no proper form: {error}") from None
    return form


async def _take_part(part: BodyPartReader, form: Form, receiver: Receiver) -> None:
    if part.name == "file" and not form.has_file:
        form.has_file, form.type_of_part = True, part.headers.get("Content-Type", "")
        while piece := await part.read_chunk(PIECE):
            receiver.write(piece)
        return
    text = bytearray()
    while piece := await part.read_chunk(PIECE):
        text += piece
        if len(text) > LONGEST_FIELD:
            raise unusable(f"The field {part.name!r} has more than {LONGEST_FIELD} bytes.")
    value = text.decode("utf-8", "replace").strip()
    if part.name == "tags":
        form.tags.append(value)
    else:
        form.texts[str(part.name)] = value


def check_path(path: str) -> str:
    """What a client calls its file. It is shown and gives the ending; the file is called by its content."""
    parts = re.split(r"[/\\]", path)
    if not path or len(path) > LONGEST_PATH or not path.isprintable() or "" in parts or ".." in parts:
        raise unusable("file_path must be a relative name of a file, such as photo.png.")
    if len(parts) > 1 and (parts[0] == "models" or parts[0] in folder_paths.folder_names_and_paths):
        raise unusable(
            "Models are not uploaded here: name them in a manifest, or let the server fetch them "
            "(POST /api/assets/download)."
        )
    return path


def type_of(form: Form, path: str) -> str:
    """The MIME type of an upload: what its client says, else what its name says."""
    for text in (form.texts.get("content_type", ""), form.type_of_part):
        plain = text.partition(";")[0].strip().lower()
        if _MIME.fullmatch(plain):
            return plain
    return mimetypes.guess_type(path)[0] or "application/octet-stream"


async def post_asset(server: Any, request: web.Request) -> web.Response:
    """Take a file; 201 for a new one, 200 for bytes that were here."""
    with Receiver(request.client_max_size) as receiver:
        form = await read_form(request, receiver)
        if not form.has_file:
            raise unusable("The upload has no field file.")
        path = check_path(form.texts.get("file_path", ""))
        expected = form.texts.get("expected_hash")
        if expected and expected.lower() != receiver.hash:
            raise V2Error(
                409, "hash_mismatch", "What has arrived is not what expected_hash says. Send it again.",
                expected=expected[:100], received=receiver.hash,
            )
        known = server.asset_index.by_hash(receiver.hash)
        if known is not None:
            return answer(known.describe(base_of(request), created_new=False))
        stored = await asyncio.to_thread(receiver.keep, content_store.extension_of(path))
    asset = server.asset_index.add(stored, type_of(form, path), path, form.tags)
    return answer(asset.describe(base_of(request), created_new=True), status=201)


async def post_from_hash(server: Any, request: web.Request) -> web.Response:
    """An asset of bytes that are here already."""
    content_hash = (await read_body(request)).get("hash")
    if not isinstance(content_hash, str):
        raise unusable("hash must be a text: blake3: and 64 hexadecimal digits.")
    asset = server.asset_index.by_hash(content_hash.lower())
    if asset is None:
        raise not_found("No file with these bytes is here. Upload it.", "blob_not_found")
    return answer(asset.describe(base_of(request), created_new=False))


async def head_by_hash(server: Any, request: web.Request) -> web.Response:
    """Are these bytes here? 200 or 404."""
    is_here = server.asset_index.by_hash(request.match_info["hash"].lower()) is not None
    return web.Response(status=200 if is_here else 404)


def nothing_there(asset_id: str) -> V2Error:
    return not_found(f"There is no asset {asset_id[:200]!r}.")


async def get_asset(server: Any, request: web.Request) -> web.Response:
    """What is known of an upload or an output."""
    asset_id = request.match_info["asset_id"]
    if (asset := server.asset_index.get(asset_id)) is not None:
        return answer(asset.describe(base_of(request)))
    ref, item = v2_shapes.output_ref(asset_id), output_item(server, asset_id)
    output = None if ref is None else v2_shapes.describe_output(ref, item, base_of(request))
    if output is None:
        raise nothing_there(asset_id)
    path = v2_shapes.file_of(item)
    moment = None if path is None else v2_shapes.moment(os.path.getmtime(path) * 1000)
    return answer({
        "id": asset_id, "hash": None, "size_bytes": output["size_bytes"],
        "content_type": output["content_type"], "file_path": output["name"],
        "created_at": moment or v2_shapes.moment(0), "url": output["url"],
        "url_expires_at": output["url_expires_at"], "job_id": output["job_id"],
    })  # fmt: skip


async def get_content(server: Any, request: web.Request) -> web.StreamResponse:
    """The bytes, or a range of them."""
    asset_id = request.match_info["asset_id"]
    asset, item = server.asset_index.get(asset_id), output_item(server, asset_id)
    if asset is None and item is None:
        raise nothing_there(asset_id)
    if isinstance(item, str):
        body = item.encode("utf-8", "replace")  # packs show texts with half characters
        return web.Response(body=body, content_type="text/plain", charset="utf-8", headers=NOSNIFF)
    path = v2_shapes.file_of(item) if asset is None else asset.path if asset.is_there else None
    if path is None:
        raise not_found(
            "The file is gone, and asking again does not help. Upload it, or run the job again.",
            "output_unavailable",
        )
    return as_it_is(path, request.headers.get("Sec-Fetch-Dest"))


async def delete_asset(server: Any, request: web.Request) -> web.Response:
    """Forget an upload and delete its file. Outputs belong to their job."""
    asset_id = request.match_info["asset_id"]
    asset = server.asset_index.get(asset_id)
    if asset is None:
        raise nothing_there(asset_id)
    server.asset_index.delete(asset)
    return web.Response(status=204)


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the assets."""
    register_v2(
        routes,
        server,
        [
            ("POST", "/api/v2/assets", post_asset),
            ("POST", "/api/v2/assets/from-hash", post_from_hash),
            ("HEAD", "/api/v2/assets/by-hash/{hash}", head_by_hash),
            ("GET", "/api/v2/assets/{asset_id}", get_asset),
            ("DELETE", "/api/v2/assets/{asset_id}", delete_asset),
            ("GET", "/api/v2/assets/{asset_id}/content", get_content),
        ],
    )

"""/userdata: the web page's own files of a user, such as workflows."""

from __future__ import annotations

import glob
import mimetypes
import os
from typing import Any

from aiohttp import web

import folder_paths
from app.atomic_write import write_atomically
from app.routes import register
from app.routes.operations import (
    BYTES,
    NUMBER,
    REASON,
    TEXT,
    WHOLE,
    Operation,
    Raw,
    either,
    many,
    one_of,
    record,
)


def cannot_be_written(error: OSError) -> web.HTTPBadRequest:
    """The answer for a name that the disk refuses."""
    return web.HTTPBadRequest(text=f"The file cannot be written ({error.strerror}). Choose another name.")


def user_path(server: Any, request: web.Request, file: str | None, *, create_dir: bool = True) -> str:
    """Path of a user's file; 403 for an unknown user and for a path that leaves the user's folder."""
    try:
        path = server.user_manager.get_request_user_filepath(request, file, create_dir=create_dir)
    except KeyError:
        raise web.HTTPForbidden(text="Invalid user specified in request") from None
    except OSError as error:  # its folder cannot be made
        raise cannot_be_written(error) from None
    if path is None:
        raise web.HTTPForbidden()
    return path


def existing_path(server: Any, request: web.Request) -> str:
    """Path of the route's {file}; 404 when it is missing."""
    path = user_path(server, request, request.match_info["file"])
    if not os.path.isfile(path):
        raise web.HTTPNotFound()
    return path


def relative(path: str, root: str) -> str:
    """`path` below `root`, with forward slashes."""
    return os.path.relpath(path, root).replace(os.sep, "/")


def file_info(path: str, root: str) -> dict[str, Any]:
    """{path, size, modified, created}, times in milliseconds."""
    found = os.stat(path)
    return {
        "path": relative(path, root),
        "size": found.st_size,
        "modified": int(found.st_mtime * 1000),
        "created": int(found.st_ctime * 1000),
    }


def says_yes(request: web.Request, name: str) -> bool:
    """Is the query value "true"?"""
    return request.query.get(name, "").lower() == "true"


def described(request: web.Request, path: str, root: str) -> web.Response:
    """A file that was written or moved: its path, or with full_info everything about it."""
    return web.json_response(
        file_info(path, root) if says_yes(request, "full_info") else relative(path, root)
    )


def check_overwrite(request: web.Request, path: str) -> None:
    """409 when the file is there and must not be replaced."""
    if request.query.get("overwrite") == "false" and os.path.exists(path):
        raise web.HTTPConflict(text="File already exists")


async def list_userdata(server: Any, request: web.Request) -> web.Response:
    """Files of one folder. 404 for a missing folder: to the web page that means an empty one."""
    folder = request.query.get("dir", "")
    if not folder:
        raise web.HTTPBadRequest(text="Directory not provided")
    path = user_path(server, request, folder, create_dir=False)
    if not os.path.exists(path):
        raise web.HTTPNotFound(text="Directory not found")
    recurse = says_yes(request, "recurse")
    pattern = os.path.join(glob.escape(path), "**" if recurse else "", "*")
    files = sorted(file for file in glob.glob(pattern, recursive=recurse) if os.path.isfile(file))
    if says_yes(request, "full_info"):
        return web.json_response([file_info(file, path) for file in files])
    names = [relative(file, path) for file in files]
    if says_yes(request, "split"):
        return web.json_response([[name, *name.split("/")] for name in names])
    return web.json_response(names)


def tree(path: str, root: str) -> list[dict[str, Any]]:
    """Everything below `path`, folders first, each sorted by name; times in seconds."""
    found: list[dict[str, Any]] = []
    for place, folders, files in os.walk(path):
        for name in folders:
            found.append(
                {"name": name, "path": relative(os.path.join(place, name), root), "type": "directory"}
            )
        for name in files:
            entry = {"name": name, "path": relative(os.path.join(place, name), root), "type": "file"}
            try:
                status = os.stat(os.path.join(place, name))
                entry.update(size=status.st_size, modified=status.st_mtime)
            except OSError:
                pass  # gone since, or a dangling link: listed by name
            found.append(entry)
    return sorted(found, key=lambda entry: (entry["type"] != "directory", entry["name"].lower()))


async def list_userdata_tree(server: Any, request: web.Request) -> web.Response:
    root = user_path(server, request, None, create_dir=False)
    wanted = request.query.get("path", "")
    try:
        path = user_path(server, request, wanted, create_dir=False) if wanted else root
    except web.HTTPForbidden:
        raise web.HTTPBadRequest(text="Invalid path requested") from None
    if not os.path.exists(path):
        if path == root:  # a user who has stored nothing yet
            return web.json_response([])
        raise web.HTTPNotFound(text="Requested path not found")
    if not os.path.isdir(path):
        raise web.HTTPBadRequest(text="Requested path is not a directory")
    return web.json_response(tree(path, root))


async def get_userdata(server: Any, request: web.Request) -> web.StreamResponse:
    """The file as a download, since it must never run as a page. Only user.css is used in place."""
    path = existing_path(server, request)
    content_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
    disposition = "attachment"
    if path == os.path.join(user_path(server, request, None, create_dir=False), "user.css"):
        content_type, disposition = "text/css", "inline"
    elif folder_paths.is_dangerous_content_type(content_type):
        content_type = "application/octet-stream"
    return web.FileResponse(
        path,
        headers={
            "Content-Type": content_type,
            "Content-Disposition": disposition,
            "X-Content-Type-Options": "nosniff",
        },
    )


async def post_userdata(server: Any, request: web.Request) -> web.Response:
    path = user_path(server, request, request.match_info["file"])
    check_overwrite(request, path)
    try:
        write_atomically(path, await request.read())
    except OSError as error:
        raise cannot_be_written(error) from None
    return described(request, path, user_path(server, request, None))


async def delete_userdata(server: Any, request: web.Request) -> web.Response:
    os.remove(existing_path(server, request))
    return web.Response(status=204)


async def move_userdata(server: Any, request: web.Request) -> web.Response:
    source = existing_path(server, request)
    target = user_path(server, request, request.match_info["dest"])
    check_overwrite(request, target)
    try:
        os.replace(source, target)
    except OSError as error:
        raise cannot_be_written(error) from None
    return described(request, target, user_path(server, request, None))


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the users' files."""
    register(
        routes,
        server,
        [
            ("GET", "/userdata", list_userdata),
            ("GET", "/v2/userdata", list_userdata_tree),
            ("GET", "/userdata/{file}", get_userdata),
            ("POST", "/userdata/{file}", post_userdata),
            ("DELETE", "/userdata/{file}", delete_userdata),
            ("POST", "/userdata/{file}/move/{dest}", move_userdata),
        ],
    )


FILE_INFO = record({"path": TEXT, "size": WHOLE, "modified": WHOLE, "created": WHOLE})
WRITTEN = either(TEXT, FILE_INFO)
TREE_ENTRY = record(
    {"name": TEXT, "path": TEXT, "type": one_of("file", "directory")}, {"size": WHOLE, "modified": NUMBER}
)
YES = one_of("true", "false")
ADDED = {"overwrite": YES, "full_info": YES}
REFUSED = {400: REASON, 403: REASON}
OPERATIONS = {
    "GET /userdata": Operation(
        "Files in a folder of the user",
        {200: either(many(TEXT), many(FILE_INFO), many(many(TEXT))), 404: REASON, **REFUSED},
        query={"dir": TEXT, "recurse": YES, "full_info": YES, "split": YES}, needs_query=("dir",),
    ),
    "GET /v2/userdata": Operation(
        "Files and folders of the user", {200: many(TREE_ENTRY), 404: REASON, **REFUSED}, query={"path": TEXT}
    ),
    "GET /userdata/{file}": Operation("A file of the user", {200: BYTES, 404: REASON, **REFUSED}),
    "POST /userdata/{file}": Operation(
        "Write a file of the user", {200: WRITTEN, 409: REASON, 413: REASON, **REFUSED}, query=ADDED,
        body=Raw("application/octet-stream"), needs_body=False,
    ),
    "DELETE /userdata/{file}": Operation("Delete a file of the user", {204: None, 404: REASON, **REFUSED}),
    "POST /userdata/{file}/move/{dest}": Operation(
        "Move or rename a file of the user", {200: WRITTEN, 404: REASON, 409: REASON, **REFUSED}, query=ADDED
    ),
}  # fmt: skip

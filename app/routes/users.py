"""/users and /settings."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import web

from app.routes import read_json, read_object, register
from app.routes.operations import ANY, OBJECT, REASON, TEXT, TRUTH, Operation, by_name, either, record
from comfy.cli_args import args


async def get_users(server: Any, request: web.Request) -> web.Response:
    users = server.user_manager
    if args.multi_user:
        return web.json_response({"storage": "server", "users": users.users})
    folder = users.get_request_user_filepath(request, None, create_dir=False)
    return web.json_response({"storage": "server", "migrated": folder is not None and os.path.exists(folder)})


async def post_users(server: Any, request: web.Request) -> web.Response:
    try:
        body = await read_json(request)
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("username"), str):
        return web.json_response({"error": 'The request\'s body must be {"username": text}.'}, status=400)
    name = body["username"]
    if name in server.user_manager.users.values():
        return web.json_response({"error": "Duplicate username."}, status=400)
    try:
        return web.json_response(server.user_manager.add_user(name))
    except ValueError as error:
        return web.json_response({"error": str(error)}, status=400)


async def get_settings(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.settings.get_settings(request))


async def get_setting(server: Any, request: web.Request) -> web.Response:
    return web.json_response(server.settings.get_settings(request).get(request.match_info["id"]))


async def post_settings(server: Any, request: web.Request) -> web.Response:
    new = await read_object(request)
    server.settings.save_settings(request, {**server.settings.get_chosen(request), **new})
    return web.Response()


async def post_setting(server: Any, request: web.Request) -> web.Response:
    try:
        value = await read_json(request)
    except ValueError:
        raise web.HTTPBadRequest(text="The setting's value must be JSON.") from None
    settings = server.settings.get_chosen(request)
    server.settings.save_settings(request, {**settings, request.match_info["id"]: value})
    return web.Response()


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of users and their settings."""
    register(
        routes,
        server,
        [
            ("GET", "/users", get_users),
            ("POST", "/users", post_users),
            ("GET", "/settings", get_settings),
            ("GET", "/settings/{id}", get_setting),
            ("POST", "/settings", post_settings),
            ("POST", "/settings/{id}", post_setting),
        ],
    )


OPERATIONS = {
    "GET /users": Operation(
        "Users, or with one user whether there are files of it",
        {200: either(record({"storage": TEXT, "users": by_name(TEXT)}),
                     record({"storage": TEXT, "migrated": TRUTH}))},
    ),
    "POST /users": Operation(
        "Make a user; its id", {200: TEXT, 400: record({"error": TEXT})}, body=record({"username": TEXT})
    ),
    "GET /settings": Operation("Settings of the web page", {200: OBJECT, 401: REASON}),
    "GET /settings/{id}": Operation("One setting, or null", {200: ANY, 401: REASON}),
    "POST /settings": Operation("Change some settings", {200: None, 400: REASON, 401: REASON}, body=OBJECT),
    "POST /settings/{id}": Operation("Change one setting", {200: None, 400: REASON, 401: REASON}, body=ANY),
}  # fmt: skip

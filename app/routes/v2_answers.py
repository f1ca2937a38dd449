"""Answers and errors of the v2 interface: `{"error": {"code", "message", "details"}}`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from app.routes import answer, read_json, register

Handler = Callable[[Any, web.Request], Awaitable[web.StreamResponse]]


class V2Error(Exception):
    """An error for the client."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.retry_after, self.details = retry_after, details

    def response(self) -> web.Response:
        """The answer."""
        error = {"code": self.code, "message": self.message, "details": self.details or None}
        response = answer({"error": error}, status=self.status)
        if self.retry_after is not None:
            response.headers["Retry-After"] = str(self.retry_after)
        return response


def bad_request(message: str) -> V2Error:
    """A request that cannot be read."""
    return V2Error(400, "invalid_request", message)


def unusable(message: str, code: str = "invalid_request", **details: Any) -> V2Error:
    """A request that can be read and not be followed."""
    return V2Error(422, code, message, **details)


def not_found(message: str, code: str = "not_found") -> V2Error:
    """There is nothing of that id."""
    return V2Error(404, code, message)


def too_large(limit: int) -> V2Error:
    """A body over the limit."""
    return V2Error(
        413, "payload_too_large",
        f"The request has more than {limit:,} bytes. Start the server with a larger --max-upload-size "
        "(megabytes) to allow it.", limit=limit,
    )  # fmt: skip


def base_of(request: web.Request) -> str:
    """The server's address as this client knows it."""
    return f"{request.scheme}://{request.host}"


async def read_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request. V2Error for anything else."""
    try:
        body = await read_json(request)
    except web.HTTPRequestEntityTooLarge:
        raise too_large(request.client_max_size) from None
    except ValueError as error:
        raise bad_request(f"The request's body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise bad_request("The request's body must be a JSON object.")
    return body


def register_v2(routes: web.RouteTableDef, server: Any, table: Iterable[tuple[str, str, Handler]]) -> None:
    """Add rows of (method, path, handler); a V2Error becomes its answer."""

    def answering(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def with_errors(server: Any, request: web.Request) -> web.StreamResponse:
            try:
                return await handler(server, request)
            except V2Error as error:
                return error.response()

        return with_errors

    register(routes, server, [(method, path, answering(handler)) for method, path, handler in table])

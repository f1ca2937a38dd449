"""Optional gzip of text answers (--enable-compress-response-body)."""

from __future__ import annotations

from aiohttp import web

COMPRESSIBLE = (
    "application/json",
    "text/plain",
    "text/html",
    "text/css",
    "text/javascript",
    "application/javascript",
)


@web.middleware
async def compress_body(request: web.Request, handler) -> web.StreamResponse:
    """Compress JSON and text when the client accepts gzip."""
    response = await handler(request)
    accepts = "gzip" in request.headers.get("Accept-Encoding", "").lower()
    if (
        accepts
        and isinstance(response, web.Response)
        and response.body
        and response.content_type in COMPRESSIBLE
    ):
        response.enable_compression(web.ContentCoding.gzip)
    return response

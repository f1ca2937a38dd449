"""Keeps the web page from talking to any other server (--disable-api-nodes)."""

from __future__ import annotations

from aiohttp import web

# Inline and evaluated scripts are what the official web UI is built with; "blob:" is for its workers and
# pictures.
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' data: blob:",
    "frame-src": "'self'",
    "object-src": "'self'",
}
HEADER = "; ".join(f"{kind} {sources}" for kind, sources in POLICY.items()) + ";"


async def forbid_the_internet(request: web.Request, response: web.StreamResponse) -> None:
    """Add the content security policy to every answer."""
    response.headers["Content-Security-Policy"] = HEADER

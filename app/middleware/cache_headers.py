"""How long a browser may keep what it gets: pictures a day, code never (stale scripts break the page)."""

from __future__ import annotations

from aiohttp import web

SECONDS_FOUND = 24 * 60 * 60
SECONDS_MISSING = 60 * 60
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def cache_rule(path: str, status: int) -> str | None:
    """The Cache-Control value for a path and an answer's status, or None to leave the header alone."""
    name = path.rpartition("/")[2].lower()
    if name.endswith((".js", ".css")) or (name.startswith("index") and name.endswith(".json")):
        return "no-store"
    if not name.endswith(PICTURE_SUFFIXES):
        return None
    if status == 404:
        return f"public, max-age={SECONDS_MISSING}"
    if status in (302, 303, 307):
        return "no-cache"
    if 200 <= status < 300 or status in (301, 308):
        return f"public, max-age={SECONDS_FOUND}"
    return None


async def set_cache_header(request: web.Request, response: web.StreamResponse) -> None:
    """Set Cache-Control by file kind unless the handler did."""
    rule = cache_rule(request.path, response.status)
    if rule is not None:
        response.headers.setdefault("Cache-Control", rule)

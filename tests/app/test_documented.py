"""Every route of the server is named in docs/http.md."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "http.md"


async def test_every_route_is_in_the_page_about_http(client):
    page = PAGE.read_text(encoding="utf-8")
    internal = [
        route.resource.canonical for route in client.prompt_server.app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/internal")
    ]  # fmt: skip
    paths = {re.sub(r":[^}]*", "", route.path) for route in client.prompt_server.routes} | set(internal)
    missing = [path for path in sorted(paths) if path.partition("{tail")[0] not in page]
    assert missing == []

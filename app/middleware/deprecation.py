"""Says in the log which parts of the old web page's interface are still asked for: the packs whose scripts
import them stop working when the page drops them.
"""

from __future__ import annotations

import logging
import re

from aiohttp import web

OLD = re.compile(r"/scripts/ui(\.js$|/)|/extensions/core/")
MOST_NAMED = 200
NAMED: set[str] = set()
"""Each is said once. Module-level, as the log is."""


def importing_pack(referrer: str) -> str | None:
    """The pack whose script asks, as far as the browser tells."""
    found = re.search(r"/extensions/([^/]+)/", referrer)
    return found[1] if found and found[1] != "core" else None


@web.middleware
async def name_old_scripts(request: web.Request, handler) -> web.StreamResponse:
    """Warn once for each script of the old interface."""
    path = request.path
    if OLD.match(path) and path not in NAMED and len(NAMED) < MOST_NAMED:
        NAMED.add(path)
        pack = importing_pack(request.headers.get("Referer", ""))
        logging.warning(
            "%s belongs to an interface of the web page that is going away; %s imports it. "
            "Update the node pack, or ask its author to.",
            path, f"node pack {pack}" if pack else "a node pack",
        )  # fmt: skip
    return await handler(request)

"""A journal that cannot be read or written is told to whoever asked."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from comfy_execution.queueing.journal import JournalError, JournalFullError


@web.middleware
async def tell_of_the_journal(request: web.Request, handler: Any) -> web.StreamResponse:
    """503 with the reason, or 507 when the disk is full."""
    try:
        return await handler(request)
    except JournalError as error:
        logging.error("%s %s failed: %s", request.method, request.path, error)
        is_full = isinstance(error, JournalFullError)
        details = {
            "type": "journal_full" if is_full else "journal_failed",
            "message": "The queue's journal cannot be used", "details": str(error), "extra_info": {},
        }  # fmt: skip
        return web.json_response({"error": details}, status=507 if is_full else 503)

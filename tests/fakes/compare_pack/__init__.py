"""Small nodes that show how a ComfyUI server runs prompts, for benchmarks/compare_execution.py.

Loaded by both servers. `GET /compare_pack/calls` answers with every call since it was asked last.
"""

from aiohttp import web

from server import PromptServer

from . import decisions, runs, schemas, values
from .declare import CALLS, CLASSES

NODE_CLASS_MAPPINGS = CLASSES

__all__ = ["NODE_CLASS_MAPPINGS", "decisions", "runs", "schemas", "values"]


@PromptServer.instance.routes.get("/compare_pack/calls")
async def get_calls(request):
    """The calls, oldest first; they are forgotten afterwards."""
    calls = CALLS[:]
    del CALLS[: len(calls)]
    return web.json_response(calls)

"""How many nodes run again when a user goes from workflow A to B and back to A.

    python benchmarks/cache_retention.py --url A --url B    on running ComfyUI servers

Both workflows are small pictures (EmptyImage -> ImageScaleBy -> ImageInvert -> SaveImage: every ComfyUI has
these nodes, and they need no model) with colours of their own, so that nothing is known from before. They run
A, B, A on each server; the nodes that each run executed are counted on the websocket.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import uuid
from typing import Any

Prompt = dict[str, Any]


def workflow(colour: int, side: int) -> Prompt:
    """Four nodes in a row."""
    size = {"width": side, "height": side, "batch_size": 1, "color": colour}
    return {
        "1": {"class_type": "EmptyImage", "inputs": size},
        "2": {
            "class_type": "ImageScaleBy",
            "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "scale_by": 2.0},
        },
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "retention"}},
    }


async def executed_nodes(session: Any, url: str, prompt: Prompt) -> list[str]:
    """The nodes that the server executes for a prompt. RuntimeError if it refuses or fails it."""
    client, address = uuid.uuid4().hex, url.rstrip("/")
    ran: list[str] = []
    async with session.ws_connect(f"{address}/ws?clientId={client}", max_msg_size=0) as socket:
        body = {"prompt": prompt, "client_id": client}
        async with session.post(f"{address}/prompt", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"HTTP {answer.status}: {(await answer.text())[:200]}")
            prompt_id = (await answer.json())["prompt_id"]
        async for message in socket:
            event = json.loads(message.data) if isinstance(message.data, str) else {"type": ""}
            data = event.get("data", {})
            if event["type"] == "execution_error":
                raise RuntimeError(data["exception_message"][:200])
            if event["type"] == "executing" and data.get("prompt_id") == prompt_id:
                if data["node"] is None:
                    return ran
                ran.append(data["node"])
    raise RuntimeError("The server closed the websocket.")


async def measure(urls: list[str]) -> bool:
    """A, B, A on each server. False if one could not be measured."""
    import aiohttp

    a, b = workflow(random.randrange(2**24), 96), workflow(random.randrange(2**24), 64)
    good = True
    print(f"{'A':>3} {'B':>3} {'A again':>8}   server")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        for url in urls:
            try:
                counts = [len(await executed_nodes(session, url, prompt)) for prompt in (a, b, a)]
            except (RuntimeError, OSError, aiohttp.ClientError, asyncio.TimeoutError) as error:
                print(f"fails: {error!r:.150}  {url}")
                good = False
                continue
            print(f"{counts[0]:3} {counts[1]:3} {counts[2]:8}   {url}")
    return good


def main() -> None:
    """Measure the servers of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", action="append", required=True, help="a running server; may be given again")
    if not asyncio.run(measure(parser.parse_args().url)):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""How long a chain of trivial nodes takes, in this process and over HTTP.

    python benchmarks/executor_chain.py                    chains of 100 to 10,000 nodes in this process
    python benchmarks/executor_chain.py --url A --url B    the same chains on running ComfyUI servers

In process each chain is validated and run, fresh and again when all is cached. Over HTTP a chain is
EmptyImage -> ImageInvert ... -> PreviewImage on pictures of 16 x 16 (nodes that every ComfyUI has, no
model), and the time is from POST to the end message on the websocket, whose bytes are counted. A server that
refuses or fails a chain is reported and not asked for longer ones.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import sys
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LENGTHS = (100, 400, 1000, 10_000)
GOALS = {1000: 0.1, 10_000: 1.2}
GOAL_CACHED_1000 = 0.010

Prompt = dict[str, Any]


def chain(length: int, first: Prompt, step: Prompt, last: Prompt, name: str) -> Prompt:
    """`first`, then `step` with its input `name` linked to the node before, then `last`."""
    prompt = {"0": first}
    for i in range(1, length):
        node = last if i == length - 1 else step
        prompt[str(i)] = {**node, "inputs": {**node["inputs"], name: [str(i - 1), 0]}}
    return prompt


# -- in process --------------------------------------------------------------------------------------------


class Number:
    """The start of a chain."""

    RETURN_TYPES = ("INT",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT", {"default": 0, "min": 0, "max": 2**31})}}

    def run(self, value: int) -> tuple[int]:
        return (value,)


class AddOne(Number):
    """A link of a chain."""

    def run(self, value: int) -> tuple[int]:
        return (value + 1,)


class Show(Number):
    """The end of a chain."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True

    def run(self, value: int) -> Any:
        return {"ui": {"text": [value]}}


class Sink:
    """A host that counts the bytes of messages, as JSON."""

    client_id = last_node_id = None

    def __init__(self) -> None:
        self.bytes = 0

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Count one message."""
        self.bytes += len(json.dumps({"type": event, "data": data}))


def in_process() -> None:
    """Chains in this process: fresh, and again when all is cached."""
    import execution
    import nodes

    gc.set_threshold(50_000, 20, 20)  # as main.py does
    nodes.NODE_CLASS_MAPPINGS.update(Number=Number, AddOne=AddOne, Show=Show)

    def one_run(executor: Any, prompt: Prompt) -> tuple[float, float]:
        start = time.perf_counter()
        valid, error, outputs, _ = asyncio.run(execution.validate_prompt("p", prompt, None))
        assert valid, error
        validated = time.perf_counter()
        executor.execute(prompt, "p", {"client_id": "benchmark"}, outputs)
        assert executor.success
        return validated - start, time.perf_counter() - validated

    print(f"{'nodes':>7} {'validate':>9} {'run':>9} {'total':>9} {'us/node':>8} {'cached':>9} {'bytes':>10}")
    for length in LENGTHS:
        sink = Sink()
        executor = execution.PromptExecutor(sink)
        fresh, cached, size = [], [], 0
        for _ in range(9):
            executor.reset()
            sink.bytes = 0
            prompt = chain(
                length,
                {"class_type": "Number", "inputs": {"value": 0}},
                {"class_type": "AddOne", "inputs": {}},
                {"class_type": "Show", "inputs": {}},
                "value",
            )
            fresh.append(one_run(executor, prompt))
            size = sink.bytes
            cached.append(sum(one_run(executor, prompt)))
        validate, run = min(fresh, key=sum)
        total = validate + run
        print(
            f"{length:7} {validate:8.4f}s {run:8.4f}s {total:8.4f}s {total / length * 1e6:8.1f} "
            f"{min(cached):8.4f}s {size:10}{_verdict(length, total, min(cached))}"
        )


def _verdict(length: int, total: float, cached: float) -> str:
    goals = (
        [f"goal {GOALS[length]} s: {'met' if total <= GOALS[length] else 'MISSED'}"]
        if length in GOALS
        else []
    )
    if length == 1000:
        goals.append(f"cached goal {GOAL_CACHED_1000} s: {'met' if cached <= GOAL_CACHED_1000 else 'MISSED'}")
    return "  " + ", ".join(goals) if goals else ""


# -- over HTTP ---------------------------------------------------------------------------------------------


async def run_remote(session: Any, url: str, prompt: Prompt) -> tuple[float, int, int]:
    """(seconds, bytes, messages) of one prompt. RuntimeError if the server refuses or fails it."""
    client = uuid.uuid4().hex
    address = url.rstrip("/")
    async with session.ws_connect(f"{address}/ws?clientId={client}", max_msg_size=0) as socket:
        await socket.receive()
        size = count = 0
        start = time.perf_counter()
        body = {"prompt": prompt, "client_id": client}
        async with session.post(f"{address}/prompt", json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"HTTP {answer.status}: {(await answer.text())[:200]}")
        async for message in socket:
            if not isinstance(message.data, str):
                break
            size, count = size + len(message.data), count + 1
            event = json.loads(message.data)
            if event["type"] == "execution_error":
                raise RuntimeError(event["data"]["exception_message"][:200])
            if event["type"] == "executing" and event["data"]["node"] is None:
                break
        return time.perf_counter() - start, size, count


async def over_http(urls: list[str], lengths: list[int]) -> None:
    """The chains on servers, in turns, fresh and cached."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=600)
    failed: set[str] = set()
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for url in urls:
            await run_remote(session, url, image_chain(3))  # the first prompt loads torch
        print(f"{'nodes':>7} {'fresh':>9} {'cached':>9} {'messages':>9} {'bytes':>12}  server")
        for length in lengths:
            for url in urls:
                if url in failed:
                    continue
                prompt = image_chain(length)
                try:
                    fresh, size, count = await run_remote(session, url, prompt)
                    cached, _, _ = await run_remote(session, url, prompt)
                except (RuntimeError, aiohttp.ClientError, asyncio.TimeoutError) as error:
                    failed.add(url)
                    print(f"{length:7} fails: {error!r:.150}  {url}")
                    continue
                print(f"{length:7} {fresh:8.3f}s {cached:8.3f}s {count:9} {size:12}  {url}")


def image_chain(length: int) -> Prompt:
    """A chain of picture nodes; its colour is random, so that nothing is cached from before."""
    colour = random.randrange(2**24)
    return chain(
        length,
        {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": colour}},
        {"class_type": "ImageInvert", "inputs": {}},
        {"class_type": "PreviewImage", "inputs": {}},
        "image",
    ) | _preview_link(length)


def _preview_link(length: int) -> Prompt:
    """The last node, whose input is called "images"."""
    last = {"class_type": "PreviewImage", "inputs": {"images": [str(length - 2), 0]}}
    return {str(length - 1): last}


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", action="append", default=[], help="a running server; may be given again")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    chosen = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if chosen.url:
            asyncio.run(over_http(chosen.url, chosen.lengths))
        else:
            in_process()


if __name__ == "__main__":
    main()

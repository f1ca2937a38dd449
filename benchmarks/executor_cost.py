"""What the engine costs per node, on chains and fans of trivial nodes, in this process and over HTTP.

    python benchmarks/executor_cost.py                                  every shape in this process
    python benchmarks/executor_cost.py --shape fan --lengths 100 1000
    python benchmarks/executor_cost.py --url A --url B                  the same graphs on running servers

    chain    each node is linked to the one before, the last one shows it
    fan      one source, and all others show it
    gather   many sources, added up by ten nodes, which one shows (in process only)
    pairs    many sources, and each is shown by a node of its own

In process each graph is validated and run, fresh and again when all is cached; the bytes of the events are
counted in a run of their own. Over HTTP the nodes are EmptyImage, ImageInvert and PreviewImage on pictures of
16 x 16 (nodes that every ComfyUI has, no model), and the time is from POST to the end message on the
websocket, whose bytes are counted; with --pid, the growth of the server's memory too. A server that refuses
or fails a graph is reported and not asked for longer ones of that shape.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LENGTHS = (100, 1000, 10_000)
GOAL_MICROSECONDS_PER_NODE = 50
GOAL_CACHED_SECONDS_PER_NODE = 0.010 / 1000
GATHERERS = 10

Prompt = dict[str, Any]
Node = Callable[[str, str, Any], Prompt]
"""(role, id of the node, link or None) -> its entry; roles: source, step, show."""


def chain(length: int, make: Node) -> Prompt:
    """Each node is linked to the one before."""
    prompt = {"0": make("source", "0", None)}
    for i in range(1, length):
        prompt[str(i)] = make("show" if i == length - 1 else "step", str(i), [str(i - 1), 0])
    return prompt


def fan(length: int, make: Node) -> Prompt:
    """One source that all others show."""
    shows = {str(i): make("show", str(i), ["0", 0]) for i in range(1, length)}
    return {"0": make("source", "0", None), **shows}


def pairs(length: int, make: Node) -> Prompt:
    """Every second node shows the one before."""
    return {
        str(i): make("show", str(i), [str(i - 1), 0]) if i % 2 else make("source", str(i), None)
        for i in range(length)
    }


def gather(length: int, make: Node) -> Prompt:
    """Sources, ten sums of them, the sum of these, and the node that shows it."""
    sources = [str(i) for i in range(length - GATHERERS - 2)]
    prompt = {name: make("source", name, None) for name in sources}
    for i in range(GATHERERS):
        prompt[f"sum{i}"] = _sum(sources[i::GATHERERS])
    prompt["sum"] = _sum([f"sum{i}" for i in range(GATHERERS)])
    prompt["show"] = make("show", "show", ["sum", 0])
    return prompt


def _sum(names: list[str]) -> Prompt:
    return {"class_type": "TrivialSum", "inputs": {f"value{i}": [name, 0] for i, name in enumerate(names)}}


SHAPES = {"chain": chain, "fan": fan, "gather": gather, "pairs": pairs}


# -- in process --------------------------------------------------------------------------------------------


def trivial(role: str, node_id: str, link: Any) -> Prompt:
    """A node of `trivial_nodes.py`. Values differ, since equal nodes would share one result."""
    class_type = {"source": "TrivialNumber", "step": "TrivialAdd", "show": "TrivialShow"}[role]
    return {"class_type": class_type, "inputs": {"value": int(node_id) if link is None else link}}


class Sink:
    """A host that takes events; a counting one also counts their bytes as JSON."""

    client_id = last_node_id = None

    def __init__(self, *, counts: bool = False) -> None:
        self.counts = counts
        self.bytes = 0

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Take one event."""
        if self.counts:
            self.bytes += len(json.dumps({"type": event, "data": data}))


def in_process(shapes: list[str], lengths: list[int], repeats: int) -> None:
    """Each graph in this process: fresh, and again when all is cached."""
    import execution
    import nodes
    from benchmarks.trivial_nodes import NODE_CLASS_MAPPINGS

    gc.set_threshold(50_000, 20, 20)  # as main.py does
    nodes.NODE_CLASS_MAPPINGS.update(NODE_CLASS_MAPPINGS)
    loop = asyncio.new_event_loop()  # a server has one that runs

    def one_run(executor: Any, prompt: Prompt) -> tuple[float, float]:
        start = time.perf_counter()
        valid, error, outputs, _ = loop.run_until_complete(execution.validate_prompt("p", prompt, None))
        assert valid, error
        validated = time.perf_counter()
        executor.execute(prompt, "p", {"client_id": "benchmark"}, outputs)
        assert executor.success
        return validated - start, time.perf_counter() - validated

    print(f"{'shape':6} {'nodes':>7} {'validate':>9} {'run':>9} {'total':>9} {'us/node':>8} {'cached':>9} "
          f"{'bytes':>10}")
    for shape in shapes:
        for length in lengths:
            executor = execution.PromptExecutor(Sink())
            fresh, cached = [], []
            for _ in range(repeats):
                executor.reset()
                prompt = SHAPES[shape](length, trivial)
                fresh.append(one_run(executor, prompt))
                cached.append(sum(one_run(executor, prompt)))
            executor.server = sink = Sink(counts=True)
            executor.reset()
            one_run(executor, prompt)
            validate, run = min(fresh, key=sum)
            total = validate + run
            print(f"{shape:6} {length:7} {validate:8.4f}s {run:8.4f}s {total:8.4f}s "
                  f"{total / length * 1e6:8.1f} {min(cached):8.4f}s {sink.bytes:10}"
                  f"  {_verdict(length, total, min(cached))}", flush=True)  # fmt: skip


def _verdict(length: int, total: float, cached: float) -> str:
    said = {True: "met", False: "MISSED"}
    verdict = f"goal {GOAL_MICROSECONDS_PER_NODE} us/node: "
    verdict += said[total / length * 1e6 <= GOAL_MICROSECONDS_PER_NODE]
    if length == 1000:
        verdict += f", cached 0.010 s: {said[cached <= GOAL_CACHED_SECONDS_PER_NODE * length]}"
    return verdict


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


def resident_megabytes(pid: int | None) -> float:
    """Memory of a process of this machine (Linux), 0 without one."""
    if pid is None:
        return 0.0
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def over_http(urls: list[str], pids: list[int], shapes: list[str], lengths: list[int]) -> None:
    """The graphs on servers, in turns, fresh and cached."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=600)
    process = dict(zip(urls, pids, strict=False))
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for url in urls:
            await run_remote(session, url, chain(3, picture_nodes()))  # the first prompt loads torch
        print("shape    nodes     fresh    cached  messages        bytes     MB  server")
        for shape in shapes:
            failed: set[str] = set()
            for length in lengths:
                for url in urls:
                    if url in failed:
                        continue
                    prompt = SHAPES[shape](length, picture_nodes())
                    before = resident_megabytes(process.get(url))
                    try:
                        fresh, size, count = await run_remote(session, url, prompt)
                        cached, _, _ = await run_remote(session, url, prompt)
                    except (RuntimeError, aiohttp.ClientError, asyncio.TimeoutError) as error:
                        failed.add(url)
                        print(f"{shape:6} {length:7} fails: {error!r:.150}  {url}", flush=True)
                        continue
                    grown = resident_megabytes(process.get(url)) - before
                    print(f"{shape:6} {length:7} {fresh:8.3f}s {cached:8.3f}s {count:9} {size:12} "
                          f"{grown:6.0f}  {url}", flush=True)  # fmt: skip


def picture_nodes() -> Node:
    """Makes picture nodes; each source has a colour of its own, so that nothing is cached from before."""
    colours = random.Random()

    def make(role: str, node_id: str, link: Any) -> Prompt:
        if role == "source":
            size = {"width": 16, "height": 16, "batch_size": 1, "color": colours.randrange(2**24)}
            return {"class_type": "EmptyImage", "inputs": size}
        if role == "step":
            return {"class_type": "ImageInvert", "inputs": {"image": link}}
        return {"class_type": "PreviewImage", "inputs": {"images": link}}

    return make


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", action="append", default=[], help="a running server; may be given again")
    parser.add_argument(
        "--pid", type=int, action="append", default=[], help="its process, for memory; in the order of --url"
    )
    parser.add_argument("--shape", choices=SHAPES, action="append", default=[])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=9, help="runs in this process; the fastest counts")
    chosen = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if chosen.url:
            shapes = chosen.shape or [name for name in SHAPES if name != "gather"]
            asyncio.run(over_http(chosen.url, chosen.pid, shapes, chosen.lengths))
        else:
            in_process(chosen.shape or list(SHAPES), chosen.lengths, chosen.repeats)


if __name__ == "__main__":
    main()

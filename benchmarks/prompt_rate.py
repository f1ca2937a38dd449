"""How many tiny prompts a server completes per second, and whether its memory grows.

    python benchmarks/prompt_rate.py --url A --url B --pid PID_OF_A --pid PID_OF_B
    python benchmarks/prompt_rate.py --url A --prompts 10000 --clients 1 8 --listen

The servers need `benchmarks/trivial_nodes.py` in their `custom_nodes`. A prompt has three nodes and a number
of its own, so that nothing is known before. Clients post one prompt after the other, each over a connection
that stays open; time ends when the queue is empty. With --listen each client also reads its websocket to the
end, and is a usual client (aiohttp) instead of a lean one. The servers are measured in turns. With --pid
(Linux) two things more are said: the CPU time of the server's process per prompt, which other work on the
machine does not blur, and its memory before, after a warm-up, and in the end. At last, /object_info when
warm and 20 entries of the history, the best of 10.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.executor_cost import resident_megabytes  # noqa: E402  (after the path is set)
from benchmarks.lean_client import post_all  # noqa: E402

GOAL_PER_SECOND = 1000
SECONDS_BETWEEN_LOOKS = 0.02

_numbers = itertools.count(int(time.time() * 1000) % 2**30)


def tiny_prompt() -> dict[str, Any]:
    """Three nodes whose results are not known yet."""
    return {
        "1": {"class_type": "TrivialNumber", "inputs": {"value": next(_numbers)}},
        "2": {"class_type": "TrivialAdd", "inputs": {"value": ["1", 0]}},
        "3": {"class_type": "TrivialShow", "inputs": {"value": ["2", 0]}},
    }


async def _listen(socket: Any, expected: int) -> None:
    """Read messages until `expected` prompts have ended."""
    ended = 0
    while ended < expected:
        event = json.loads((await socket.receive()).data)
        ended += event["type"] == "executing" and event["data"]["node"] is None


async def _listening_client(url: str, prompts: int) -> None:
    """Post prompts one after the other, and read the websocket meanwhile."""
    import aiohttp

    name = uuid.uuid4().hex
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={name}") as socket:
        reading = asyncio.ensure_future(_listen(socket, prompts))
        for _ in range(prompts):
            body = {"prompt": tiny_prompt(), "client_id": name}
            async with session.post(f"{url}/prompt", json=body) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"HTTP {answer.status}: {(await answer.text())[:200]}")
                await answer.read()
        await reading


async def _until_empty(url: str) -> None:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/prompt") as answer:
                if (await answer.json())["exec_info"]["queue_remaining"] == 0:
                    return
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)


def cpu_seconds(pid: int | None) -> float:
    """What a process of this machine has worked (Linux), 0 without one."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def rate(url: str, prompts: int, clients: int, listens: bool) -> float:
    """Prompts completed per second."""
    each = prompts // clients
    bodies = [{"prompt": tiny_prompt()} for _ in range(0 if listens else each * clients)]
    start = time.perf_counter()
    if listens:
        await asyncio.gather(*[_listening_client(url, each) for _ in range(clients)])
    else:
        await post_all(url, bodies, clients)
    await _until_empty(url)
    return each * clients / (time.perf_counter() - start)


async def best_get(url: str, times: int) -> tuple[float, int]:
    """(seconds, bytes) of the fastest answer."""
    import aiohttp

    best, size = float("inf"), 0
    async with aiohttp.ClientSession() as session:
        for _ in range(times):
            start = time.perf_counter()
            async with session.get(url) as answer:
                size = len(await answer.read())
            best = min(best, time.perf_counter() - start)
    return best, size


async def measure(urls: list[str], pids: list[int], chosen: argparse.Namespace) -> None:
    """All measures, of each server in turns."""
    process = dict(zip(urls, pids, strict=False))
    warm_up = max(200, chosen.prompts // 10)
    for clients in chosen.clients:
        for url in urls:
            before = resident_megabytes(process.get(url))
            await rate(url, warm_up, clients, chosen.listen)
            warm, worked = resident_megabytes(process.get(url)), cpu_seconds(process.get(url))
            found = await rate(url, chosen.prompts, clients, chosen.listen)
            after = resident_megabytes(process.get(url))
            worked = (cpu_seconds(process.get(url)) - worked) / chosen.prompts * 1000
            verdict = "met" if found >= GOAL_PER_SECOND else "MISSED"
            print(f"{clients:3} clients{', listening' if chosen.listen else ''}: {found:7.0f} prompts/s "
                  f"(goal {GOAL_PER_SECOND}: {verdict}), {worked:.2f} ms of CPU each, "
                  f"memory {before:.0f} -> {warm:.0f} -> {after:.0f} MB  {url}", flush=True)  # fmt: skip
    for url in urls:
        info, size = await best_get(f"{url}/object_info", 10)
        page, page_size = await best_get(f"{url}/history?max_items=20", 10)
        print(f"/object_info {info * 1000:.1f} ms ({size} bytes), 20 entries of /history "
              f"{page * 1000:.1f} ms ({page_size} bytes)  {url}", flush=True)  # fmt: skip


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", action="append", required=True, help="a running server; may be given again")
    parser.add_argument(
        "--pid", type=int, action="append", default=[], help="its process, for memory; in the order of --url"
    )
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--listen", action="store_true", help="each client reads its websocket")
    chosen = parser.parse_args()
    asyncio.run(measure([url.rstrip("/") for url in chosen.url], chosen.pid, chosen))


if __name__ == "__main__":
    main()

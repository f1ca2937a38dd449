"""How many prompts per second a server accepts, how fast an accepted prompt starts, and how many tiny ones it
completes; with the queue's journal, without it, and beside other servers.

    python benchmarks/queue_durable.py                     ours with --journal, and with --journal off
    python benchmarks/queue_durable.py --url URL ...       other running ComfyUI servers, in the same rounds
    python benchmarks/queue_durable.py --sync full         ours with --journal-sync full too

Every server needs the node pack `tests/fakes/tiny_pack` in its custom_nodes folder; ours get it here.

Accepted: `--clients` connections post a graph of one cheap output node as fast as they are answered. Start:
one client posts to an idle server, and the time runs from POST to `execution_start` on its websocket.
Completed: a batch is posted, and the time runs until the queue is empty. The servers take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.lean_client import post_all  # noqa: E402
from tests.fakes.server_process import ServerProcess  # noqa: E402

GOAL_ACCEPTED = 2000
GOAL_START_MS = 1.0
GOAL_COMPLETED = 1000

_numbers = itertools.count()


def graph() -> dict[str, Any]:
    """One output node that does nothing; no two are equal, so that nothing is cached."""
    return {"1": {"class_type": "TinyText", "inputs": {"text": str(next(_numbers))}}}


async def remaining(session: aiohttp.ClientSession, url: str) -> int:
    """How many prompts wait or run."""
    async with session.get(url + "/prompt") as answer:
        count: int = (await answer.json())["exec_info"]["queue_remaining"]
        return count


async def until_empty(session: aiohttp.ClientSession, url: str) -> None:
    """Wait for the last prompt."""
    while await remaining(session, url):
        await asyncio.sleep(0.02)


async def accepted_per_second(
    session: aiohttp.ClientSession, url: str, clients: int, count: int
) -> tuple[float, float, list[float]]:
    """(accepted per second, completed per second, seconds of each answer in order)."""
    bodies = [{"prompt": graph()} for _ in range(count)]
    start = time.perf_counter()
    accepted, seconds = await post_all(url, bodies, clients)
    await until_empty(session, url)
    return count / accepted, count / (time.perf_counter() - start), sorted(seconds)


async def start_times(session: aiohttp.ClientSession, url: str, count: int) -> list[float]:
    """Seconds from POST to `execution_start`, in order."""
    sid, found = uuid.uuid4().hex, []
    async with session.ws_connect(f"{url}/ws?clientId={sid}") as socket:
        for _ in range(count):
            body = json.dumps({"prompt": graph(), "client_id": sid}).encode()
            start = time.perf_counter()
            posting = asyncio.ensure_future(session.post(url + "/prompt", data=body))
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                if event["type"] == "execution_start":
                    found.append(time.perf_counter() - start)
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
            (await posting).release()
    return sorted(found)


def at(ordered: list[float], share: float) -> float:
    """A percentile, in milliseconds."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000


async def measure(urls: dict[str, str], options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """All figures of all servers, a list of rounds each."""
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in urls}
    connector = aiohttp.TCPConnector(limit=options.clients + 10)
    async with aiohttp.ClientSession(connector=connector) as session:
        for url in urls.values():  # the first prompt loads torch
            await accepted_per_second(session, url, 2, 20)
        for _ in range(options.rounds):
            for name, url in urls.items():
                accepted, completed, answers = await accepted_per_second(
                    session, url, options.clients, options.prompts
                )
                starts = await start_times(session, url, options.starts)
                round_of = {
                    "accepted/s": accepted, "completed/s": completed, "answer p99 ms": at(answers, 0.99),
                    "start p50 ms": at(starts, 0.5), "start p99 ms": at(starts, 0.99),
                }  # fmt: skip
                for figure, value in round_of.items():
                    figures[name].setdefault(figure, []).append(value)
    return figures


def report(figures: dict[str, dict[str, list[float]]]) -> None:
    """A line per server with medians, and the goals."""
    medians = {name: {key: statistics.median(rows) for key, rows in found.items()}
               for name, found in figures.items()}  # fmt: skip
    for name, found in medians.items():
        print(f"{name:14}" + "  ".join(f"{key} {value:9.2f}" for key, value in found.items()))
    if "journal" not in medians or "memory" not in medians:
        return
    ours, memory = medians["journal"], medians["memory"]
    beyond = ours["start p50 ms"] - memory["start p50 ms"]
    print(f"accepted: {ours['accepted/s']:.0f}/s (goal {GOAL_ACCEPTED}); "
          f"start beyond a queue in memory: {beyond:+.2f} ms (goal {GOAL_START_MS}); "
          f"completed: {ours['completed/s']:.0f}/s (goal {GOAL_COMPLETED})")  # fmt: skip


def main() -> None:
    """Start our servers, measure in turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", action="append", default=[], help="another server; several times")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=3000, help="prompts in a round")
    parser.add_argument("--starts", type=int, default=300, help="prompts whose start is timed in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sync", action="append", choices=["normal", "full"], help="default: normal")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        urls = {}
        ours = {"memory": ("--journal", "off")}
        for sync in options.sync or ["normal"]:
            ours["journal" if sync == "normal" else f"journal {sync}"] = ("--journal-sync", sync)
        for name, extra in ours.items():
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            shutil.copytree(ROOT / "tests/fakes/tiny_pack", Path(folder) / "custom_nodes/tiny_pack")
            server = ServerProcess(Path(folder), *extra)
            urls[name] = stack.enter_context(server).url
        urls |= {f"other {number}": url.rstrip("/") for number, url in enumerate(options.url, 1)}
        report(asyncio.run(measure(urls, options)))


if __name__ == "__main__":
    main()

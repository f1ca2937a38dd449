"""Does the server stay up and honest whatever is posted to /prompt?

    python benchmarks/fuzz_prompt.py --minutes 10

Starts the server on a folder of its own and posts the bodies of tests/fakes/hostile_prompts.py, some of them
at once. Every answer must be 200, 400, 413 or 503, with a JSON error that has a type and a message; honest
bodies must be accepted and hopeless ones refused. After each round everything that was accepted, and nothing
else, must have run and be in the history. Ends with 1 and the bodies that went wrong; `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.execution_graphs import node  # noqa: E402
from tests.fakes.hostile_prompts import Body, Hostile  # noqa: E402
from tests.fakes.server_process import ServerProcess, install_compare_pack  # noqa: E402

GRAPH = {
    "1": node("Number", value=1),
    "2": node("Add", a=["1", 0], b=2),
    "3": node("Range", stop=2),
    "4": node("Switch", on=True, if_true=["2", 0], if_false=["3", 0]),
    "5": node("Join", a=["4", 0], b="text", c=["3", 0]),
    "6": node("Limited", i=["2", 0], f=0.5),
    "7": node("Show", value=["5", 0]),
}
STATUSES = (200, 400, 413, 503)
PER_ROUND = 500
AT_ONCE = 4
LIMIT_MEGABYTES = 20
LONGEST_BODY_SHOWN = 2000
SECONDS_TO_RUN_A_ROUND = 120


class Fuzz:
    """One run; `wrong` says what was wrong with which body."""

    def __init__(self, session: aiohttp.ClientSession, url: str, hostile: Hostile) -> None:
        self.session = session
        self.url = url
        self.bodies = hostile.bodies()
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.kinds: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.honest: set[str] = set()
        self.wrong: list[str] = []

    async def round(self, count: int) -> None:
        """Post bodies, then see that exactly what was accepted has run."""
        waiting = list(islice(self.bodies, count))

        async def post_some() -> None:
            while waiting:
                await self._post(waiting.pop())

        await asyncio.gather(*(post_some() for _ in range(AT_ONCE)))
        await self._check_history()

    async def _post(self, body: Body) -> None:
        try:
            async with self.session.post(
                self.url + "/prompt", data=body.content, headers=body.headers
            ) as answer:
                status, text = answer.status, await answer.text()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            # A server may close the line of a body that is too large before it has read all of it.
            self._note(body, 413 if body.name == "over the limit" else 0, repr(error))
            return
        self._note(body, status, text)

    def _note(self, body: Body, status: int, text: str) -> None:
        self.statuses[body.name.split()[0], status] += 1
        problem = self._problem(body, status, text)
        if problem:
            shown = body.content[:LONGEST_BODY_SHOWN]
            self.wrong.append(f"{problem}: {body.name}: HTTP {status} {text[:300]}\n    {shown!r}")

    def _problem(self, body: Body, status: int, text: str) -> str | None:
        if status not in STATUSES:
            return "a server error"
        if (status == 200 and body.expected == "refused") or (status != 200 and body.expected == "valid"):
            return f"should have been {body.expected}"
        try:
            answer = json.loads(text)
        except ValueError:
            return None if body.name == "over the limit" else "the answer is not JSON"
        if status != 200:
            error = answer.get("error")
            has_all = isinstance(error, dict) and error.get("type") and error.get("message")
            self.kinds[error["type"] if has_all else "none"] += 1
            return None if has_all else "an error without type and message"
        self.accepted.add(answer["prompt_id"])
        if body.expected == "valid":
            self.honest.add(answer["prompt_id"])
        return None

    async def _get(self, path: str) -> Any:
        async with self.session.get(self.url + path) as answer:
            return await answer.json()

    async def _check_history(self) -> None:
        deadline = time.monotonic() + SECONDS_TO_RUN_A_ROUND
        while (await self._get("/prompt"))["exec_info"]["queue_remaining"]:
            if time.monotonic() > deadline:
                self.wrong.append("The queue does not become empty.")
                return
            await asyncio.sleep(0.05)
        history = await self._get("/history")
        if set(history) != self.accepted:
            self.wrong.append(f"The history has other prompts: {set(history) ^ self.accepted}")
        for prompt_id, entry in history.items():
            state = entry["status"]["status_str"]
            self.ended[state] += 1
            if prompt_id in self.honest and state != "success":
                self.wrong.append(f"An honest prompt failed: {json.dumps(entry)[:LONGEST_BODY_SHOWN]}")
        self.accepted.clear()
        self.honest.clear()
        await self.session.post(self.url + "/history", json={"clear": True})


async def fuzz(url: str, seconds: float, seed: int, limit: int) -> Fuzz:
    """Post for so long."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        run = Fuzz(session, url, Hostile(seed, GRAPH, limit=limit))
        started = shown = time.monotonic()
        while time.monotonic() - started < seconds and len(run.wrong) < 50:
            await run.round(PER_ROUND)
            if time.monotonic() - shown > 30:
                shown = time.monotonic()
                print(f"{shown - started:.0f} s: {sum(run.statuses.values())} bodies, {len(run.wrong)} wrong")
        return run


def main() -> int:
    """Start the server, fuzz it, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-prompt-") as folder:
        install_compare_pack(Path(folder))
        with ServerProcess(Path(folder), "--max-upload-size", str(LIMIT_MEGABYTES)) as server:
            limit = LIMIT_MEGABYTES * 1024 * 1024
            run = asyncio.run(fuzz(server.url, chosen.minutes * 60, chosen.seed, limit))
            assert server.process is not None
            is_alive = server.process.poll() is None
            print(f"Memory of the server at the end: {server.rss_megabytes() if is_alive else 0:.0f} MB")
    for text in run.wrong:
        print(f"WRONG {text}")
    for (kind, status), times in sorted(run.statuses.items()):
        print(f"{times:8} HTTP {status} {kind}")
    print("Errors:", dict(run.kinds.most_common()))
    print("Ended:", dict(run.ended))
    state = "alive" if is_alive else "DEAD"
    print(f"{sum(run.statuses.values())} bodies, {len(run.wrong)} wrong, server {state}")
    return 1 if run.wrong or not is_alive else 0


if __name__ == "__main__":
    sys.exit(main())

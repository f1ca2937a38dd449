"""Kills the process that owns a queue (SIGKILL), again and again at random moments, and then counts: prompts
that were accepted and lost, outputs that were committed twice, prompts that ran out of their order.

    python benchmarks/queue_kills.py --kills 1000 [--seed 1] [--sync full]

A life is a forked process with a real journal, queue, worker and executor; it takes prompts over a pipe and
says which are accepted, runs them, and is killed up to `--milliseconds` after it was born: while it opens the
journal, accepts, runs a node, saves a file or writes the history. Each prompt saves a file and shows a text.
The last life is let alone until the queue is empty. Exit code 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SECONDS_TO_DRAIN = 120.0


class Host:
    """What the worker needs of a server; nobody listens."""

    client_id = last_node_id = last_prompt_id = None
    number = 0

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Nobody hears it."""

    def queue_updated(self) -> None:
        """Nobody looks."""

    def prompt_succeeded(self, graph: dict, outputs: list) -> None:
        """Nobody learns."""


def live(base: Path, inbox: int, outbox: int, sync: str) -> None:
    """A process that owns the queue: prompts come in as lines of JSON, ids of accepted ones go out."""
    import folder_paths
    from app import worker
    from comfy_execution.queueing.durable import DurableQueue
    from comfy_execution.queueing.journal import Journal
    from execution import PromptQueue

    queue = PromptQueue(Host())
    journal = Journal(base / "queue.db", sync=sync)
    durable = DurableQueue(journal, history_size=lambda: 10**9, max_deaths=0)
    found = queue.attach(durable)
    folder_paths.chooses_number = durable.number_for
    os.write(outbox, f"born {len(found.waiting)}\n".encode())
    runner = worker.Worker(queue, queue.server)
    runner.executor.environment = contextlib.nullcontext

    def work() -> None:
        while True:
            item, task = queue.get()
            with open(base / "starts.log", "ab", buffering=0) as starts:
                starts.write(f"{os.getpid()} {item[1]}\n".encode())
            runner.run_prompt(item, task)
            if not queue.get_tasks_remaining():
                os.write(outbox, b"empty\n")

    threading.Thread(target=work, daemon=True).start()
    if not queue.get_tasks_remaining():
        os.write(outbox, b"empty\n")
    for line in os.fdopen(inbox, "rb"):
        item = json.loads(line)
        say = f"accepted {item[1]}\n".encode()
        if queue.put_soon((*item, {}), lambda error, say=say: error or os.write(outbox, say)):
            os.write(outbox, say)
    time.sleep(3600)


@dataclass
class Life:
    """One process, seen from outside."""

    pid: int
    inbox: int
    outbox: int
    said: list[str] = field(default_factory=list)
    rest: bytes = b""

    def listen(self, seconds: float) -> None:
        """Read what it says within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and select.select([self.outbox], [], [], left)[0]:
            data = os.read(self.outbox, 65536)
            if not data:
                return
            *lines, self.rest = (self.rest + data).split(b"\n")
            self.said += [line.decode() for line in lines]

    def kill(self) -> None:
        """End it as a crash would, and hear what it had said before."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.listen(0.001)
        os.close(self.inbox)
        os.close(self.outbox)


def give_birth(base: Path, sync: str) -> Life:
    """Fork a process that owns the queue. This process has no threads, so that nothing is half done."""
    its_inbox, inbox = os.pipe()
    outbox, its_outbox = os.pipe()
    pid = os.fork()
    if pid:
        os.close(its_inbox)
        os.close(its_outbox)
        return Life(pid, inbox, outbox)
    os.close(inbox)
    os.close(outbox)
    with contextlib.suppress(BaseException):
        live(base, its_inbox, its_outbox, sync)
    os._exit(3)


def prompt(number: int, chance: random.Random) -> list[Any]:
    """A queue item: a node that saves a file and one that shows a text."""
    name = f"p{number:06}"
    graph = {
        "1": {"class_type": "TinySave", "inputs": {"text": name, "seconds": chance.choice([0, 0, 0.004])}},
        "2": {"class_type": "TinyText", "inputs": {"text": name}},
    }
    return [number, name, graph, {"priority": chance.choice([0, 0, 5])}, ["1", "2"]]


@dataclass
class Result:
    """What was found."""

    kills: int = 0
    accepted: int = 0
    run_again: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Nothing is wrong."""
        return not (self.lost or self.twice or self.disordered or self.failed)


class Harness:
    """Lives and deaths on one journal."""

    def __init__(self, base: Path, *, seed: int, sync: str = "normal", milliseconds: float = 60.0) -> None:
        self.base, self.sync, self.milliseconds = base, sync, milliseconds
        self.chance = random.Random(seed)
        self.accepted: list[str] = []
        self.items: dict[str, list[Any]] = {}
        self.at_birth: dict[int, list[str]] = {}
        (base / "output").mkdir(parents=True)

    def one_life(self) -> None:
        """Be born, take prompts, die."""
        life = give_birth(self.base, self.sync)
        self.at_birth[life.pid] = list(self.accepted)
        for _ in range(self.chance.randrange(6)):
            item = prompt(len(self.items), self.chance)
            self.items[item[1]] = item
            with contextlib.suppress(BrokenPipeError):
                os.write(life.inbox, json.dumps(item).encode() + b"\n")
        life.listen(self.chance.random() * self.milliseconds / 1000)
        life.kill()
        self.hear(life)

    def hear(self, life: Life) -> None:
        """Note what was accepted."""
        self.accepted += [line.split()[1] for line in life.said if line.startswith("accepted ")]

    def last_life(self) -> None:
        """Be born, and run all that waits."""
        life = give_birth(self.base, self.sync)
        self.at_birth[life.pid] = list(self.accepted)
        end = time.monotonic() + SECONDS_TO_DRAIN
        while "empty" not in life.said and time.monotonic() < end:
            life.listen(0.02)
        life.kill()
        self.hear(life)

    def result(self, kills: int) -> Result:
        """Compare what was accepted with the history, the files and the order of the starts."""
        history, texts = self.read_history(), self.read_files()
        log = self.base / "starts.log"  # not there if no prompt has started
        starts = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        result = Result(kills, len(self.accepted), len(starts) - len({name for _, name in starts}))
        result.lost = [name for name in self.accepted if name not in history]
        result.failed = [name for name, entry in history.items() if not entry["status"]["completed"]]
        result.twice = [name for name, count in texts.items() if count != 1]
        result.twice += [name for name, entry in history.items() if sorted(entry["outputs"]) != ["1", "2"]]
        result.disordered = self.find_disorder(starts)
        return result

    def read_history(self) -> dict[str, Any]:
        """Entries by id."""
        from comfy_execution.queueing.history import JournalHistory
        from comfy_execution.queueing.journal import Journal

        journal = Journal(self.base / "queue.db")
        entries = dict(JournalHistory(journal, lambda: 10**9))
        journal.close()
        return entries

    def read_files(self) -> Counter[str]:
        """How many saved files each prompt has."""
        return Counter(path.read_text() for path in (self.base / "output").glob("tiny_*.txt"))

    def find_disorder(self, starts: list[list[str]]) -> list[str]:
        """Prompts that started before one of higher priority, or of the same one that had come before. Looked
        at are, in each life, those that waited at its birth; the first may be the one that was interrupted.
        """
        wrong, last = [], ""
        for pid, waited in self.at_birth.items():
            own = [name for starter, name in starts if starter == str(pid) and name in set(waited)]
            if own and own[0] == last:
                own = own[1:]
            keys = [(-self.items[name][3]["priority"], self.items[name][0]) for name in own]
            wrong += [name for name, key, before in zip(own[1:], keys[1:], keys) if key < before]
            every = [name for starter, name in starts if starter == str(pid)]
            last = every[-1] if every else last
        return wrong


def prepare(base: Path) -> None:
    """Load everything that a life needs before the first fork; torch is not."""
    import folder_paths
    import nodes
    from app import worker
    from comfy.cli_args import args
    from tests.fakes import tiny_pack

    args.base_directory = str(base)
    folder_paths.apply_arguments(args)
    nodes.NODE_CLASS_MAPPINGS.update(tiny_pack.NODE_CLASS_MAPPINGS)
    assert worker


def kill_often(base: Path, kills: int, *, seed: int, sync: str, milliseconds: float) -> Result:
    """All lives, and what came of them."""
    prepare(base)
    harness = Harness(base, seed=seed, sync=sync, milliseconds=milliseconds)
    for _ in range(kills):
        harness.one_life()
    harness.last_life()
    return harness.result(kills)


def main() -> int:
    """Kill, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sync", choices=["normal", "full"], default="normal")
    parser.add_argument("--milliseconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = kill_often(
            Path(folder) / "base", options.kills, seed=options.seed, sync=options.sync,
            milliseconds=options.milliseconds,
        )  # fmt: skip
    print(
        f"{result.kills} kills, {result.accepted} prompts accepted, {result.run_again} runs again: "
        f"{len(result.lost)} lost, {len(result.twice)} committed twice, "
        f"{len(result.disordered)} out of order, {len(result.failed)} failed"
    )
    for kind in ("lost", "twice", "disordered", "failed"):
        if found := getattr(result, kind):
            print(f"{kind}: {', '.join(found[:10])}")
    return 0 if result.is_right else 1


if __name__ == "__main__":
    sys.exit(main())

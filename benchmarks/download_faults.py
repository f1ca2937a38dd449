"""Lets everything go wrong with downloads, many times each, and counts what must not happen.

    python benchmarks/download_faults.py --seeds 50 [--only resets,aria2c_killed] [--first-seed 0]

Each run brings one file of 1 to 8 MiB from a real origin on loopback: a token is asked for at the first host,
which redirects to a signed address on a second one. The faults are in `benchmarks/fault_list.py`. Meanwhile
the final names are looked at all the time, and argument lists, logs, state files, events and errors are
searched for the token and the signature. Fetches in this process also load the file while it arrives, and
what came on the way is compared with it. Exit status 1 when a target is missed.

| column | counts | target |
|---|---|---|
| done | runs that ended with the right file under its name | all |
| streamed | files whose tensors came on the way, bit for bit | |
| looks, early | looks at a final name; those that saw anything but a whole, right file | early 0 |
| mixed | files at the end that are neither the one nor the other version | 0 |
| bytes | bodies that left the origin over the size of the file: mean, worst | storm and eight: 1.05, 1.02 |
| per kill | MiB sent twice per SIGKILL, mean and worst | 4 |
| faults | things that went wrong per run, mean | |
| leaks | places where a credential was seen | 0 |
| takeover | seconds until another process goes on when the holder was killed, worst | 5 |
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.fault_list import FAULTS, MIB, SIGNATURE, TOKEN, Bench, Run  # noqa: E402
from tests.fakes.origin import Origin  # noqa: E402

WORST_WASTE = 4 * MIB
WORST_TAKEOVER = 5.0
LEAST_RUNS = 10  # for the mean of a ratio: one small file says little
WORST_RATIO = {"expiry_storm": 1.05, "eight_processes": 1.02}


class Watcher:
    """Looks at the final names of all runs under way, from a thread of its own."""

    def __init__(self) -> None:
        self.looks = 0
        self._runs: set[Run] = set()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._look), threading.Thread(target=self._search)]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def follow(self, run: Run) -> None:
        """Look at this run too."""
        self._runs.add(run)

    def leave(self, run: Run) -> None:
        """A run has ended: one more search, then no more."""
        search(run)
        self._runs.discard(run)

    def _look(self) -> None:
        seen: set[tuple[Run, int]] = set()
        while not self._is_over.wait(0.001):
            for run in list(self._runs):
                self.looks += 1
                run.looks += 1
                try:
                    inode = run.file.stat().st_ino
                    if (run, inode) in seen:
                        continue
                    run.early += run.digest_there() not in run.right
                    seen.add((run, inode))
                except FileNotFoundError:
                    continue

    def _search(self) -> None:
        while not self._is_over.wait(0.1):
            processes = {path: _read(path) for path in Path("/proc").glob("[0-9]*/cmdline")}
            for run in list(self._runs):
                search(run)
                run.leaks.update(str(path) for path, text in processes.items() if _holds_secret(text))


def search(run: Run) -> None:
    """Look for credentials in the files, logs and messages of a run, and at the second host."""
    for file in list(_files(run.folder)):
        if file.suffix not in (".part", ".bad", ".safetensors") and _holds_secret(_read(file)):
            run.leaks.add(str(file.relative_to(run.folder)))
    for message in run.messages():
        if _holds_secret(message.encode()):
            run.leaks.add("an event or error")
    for hit in run.hits():
        if hit.host != run.owner and TOKEN in " ".join(hit.headers.values()):
            run.leaks.add("the second host")


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder that changes meanwhile."""
    for where, _, names in os.walk(folder):
        yield from (Path(where, name) for name in names)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def _holds_secret(text: bytes) -> bool:
    return TOKEN.encode() in text or SIGNATURE.encode() in text


class SecretLines(logging.Handler):
    """Counts log lines that hold a credential."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line."""
        self.count += _holds_secret(record.getMessage().encode())


def run_fault(name: str, seeds: Iterable[int], bench: Bench, watcher: Watcher) -> list[Run]:
    """All seeds of a fault, several at a time."""
    fault, at_once = FAULTS[name]

    def one(seed: int) -> Run:
        run = Run(name, seed, bench)
        watcher.follow(run)
        try:
            fault(run)
        except Exception as error:  # whatever goes wrong belongs to this run, and the others go on
            run.error = f"{type(error).__name__}: {error}"
        finally:
            run.end()
            watcher.leave(run)
        return run

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, seeds))


def report(name: str, runs: list[Run], seconds: float) -> bool:
    """One line, and the errors; whether all targets are met."""
    done = sum(run.is_right for run in runs)
    early, mixed = sum(run.early for run in runs), sum(run.is_mixed for run in runs)
    ratios = [run.bytes_moved / len(run.body) for run in runs]
    wastes = [max(run.bytes_moved - len(run.body), 0) / run.kills for run in runs if run.kills]
    takeovers = [run.takeover for run in runs if run.takeover is not None]
    leaks = set().union(*(run.leaks for run in runs))
    per_kill = f"{statistics.mean(wastes) / MIB:5.2f} {max(wastes) / MIB:5.2f}" if wastes else " " * 11
    takeover = f"{max(takeovers):8.2f}" if takeovers else " " * 8
    print(
        f"{name:18} {done:4}/{len(runs):<4} {statistics.mean(run.faults for run in runs):6.1f}"
        f" {sum(run.streamed for run in runs):8} {sum(run.looks for run in runs):7} "
        f"{early:5} {mixed:5}   {statistics.mean(ratios):5.3f} "
        f"{max(ratios):5.3f}   {per_kill} {len(leaks):5} {takeover} {seconds:7.0f}",
        flush=True,
    )
    for run in runs:
        if not run.is_right or run.early or run.leaks:
            print(f"    seed {run.seed}: {run.error or 'wrong file'} {sorted(run.leaks) or ''}", flush=True)
    ratio = statistics.mean(ratios)
    return (
        done == len(runs) and not early and not mixed and not leaks
        and max(wastes, default=0) <= WORST_WASTE
        and max(takeovers, default=0) < WORST_TAKEOVER
        and (len(runs) < LEAST_RUNS or ratio <= WORST_RATIO.get(name, float("inf")))
    )


def main(arguments: list[str] | None = None) -> int:
    """Run, count, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50, help="runs of each fault")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(FAULTS), help="names of faults, with commas")
    parser.add_argument("--looks", type=int, default=10_000, help="looks at final names, wanted in all")
    chosen = parser.parse_args(arguments)
    os.environ["FAULTS_TOKEN"] = TOKEN
    lines, root = SecretLines(), logging.getLogger()
    level = root.level
    root.addHandler(lines)
    root.setLevel(logging.DEBUG)
    print(
        f"{'fault':18} {'done':>9} {'faults':>6} {'streamed':>8} {'looks':>7} early mixed  bytes / size"
        "  MiB per kill leaks takeover seconds"
    )
    is_good = True
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, Origin() as origin, Watcher() as watcher:
        with Bench(Path(folder), origin) as bench:
            for name in chosen.only.split(","):
                started = time.monotonic()
                seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
                runs = run_fault(name, seeds, bench, watcher)
                is_good &= report(name, runs, time.monotonic() - started)
    root.removeHandler(lines)
    root.setLevel(level)
    print(f"{watcher.looks} looks at final names, {lines.count} log lines with a credential")
    is_good &= watcher.looks >= chosen.looks and not lines.count
    print("all targets are met" if is_good else "A TARGET IS MISSED")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

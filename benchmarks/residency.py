"""What does a switch to another workflow cost while its models are in memory? Ours beside upstream ComfyUI.

    python benchmarks/residency.py --models DIR --set wide --write     write the models (residency_set.py)
    python benchmarks/residency.py --models DIR --set wide --start=--cpu    start ours, measure it; also with
            --upstream ../ComfyUI --upstream-python ../ComfyUI/venv/bin/python --upstream-start=--cpu
    python benchmarks/residency.py --models DIR --set wide --url http://127.0.0.1:8188 --pid 4711   is running

`--start`, `--upstream-start` and `--url` may be given several times; ours is started with the set pinned. A
server that runs already must have DIR as its models folder and pin `residency_set.PINS`. All take turns, one
prompt at a time.

Each server runs all workflows once, which is the first load. Then it goes from workflow to workflow in random
order; after each switch (`--repeat-every`: after some) the same workflow runs once more with another seed.
What a switch adds is its time less the median of the repeats of that workflow, and the spread of the repeats
around that median is the noise of the machine, which stands beside it. Times are seen by a client with a
websocket (wall), and as CPU time of the server, in which other programs on the machine count less. `least`
compares the fastest switch to each workflow with its fastest repeat: a switch that nothing disturbs.

Reads are what the kernel says: each time that a model file is opened or read (inotify) during a prompt, bytes
that the process reads from disk, page faults that need the disk.

`--fields '{"cache": "off"}'` is sent with each prompt to ours, so that every node runs again, loaders too.
`--pressure SIZE` measures ours alone: only checkpoint a, the LoRAs and the ControlNet are pinned, this is the
resident budget, and everything is freed (`POST /free`) after each switch.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import residency_set
from residency_servers import FileWatch, Program, Run, Server, started, usage_of

HERE = Path(__file__).resolve().parents[1]
PRESSURE_PINS = (f"checkpoints/{residency_set.CHECKPOINTS[0]}", "loras/switch_*", "controlnet/switch_*")
MILLISECONDS = 1000.0


# --- measuring ---


async def measure(servers: list[Server], options: argparse.Namespace, watch: FileWatch) -> None:
    """Fill in what each server takes: first runs, switches, repeats."""
    workflows = dict(list(residency_set.workflows_of(options.set).items())[:options.workflows])
    seeds = iter(range(1 << 30))
    for server in servers:
        for name, write in workflows.items():
            server.first.append(await server.run(name, write(next(seeds)), watch))
        await server.pins_are_ready()
    for server in servers:
        server.used, server.noted = usage_of(server.pid), await server.counts()
    chance = random.Random(options.seed)
    last = ""
    for number in range(options.switches):
        last = chance.choice([name for name in workflows if name != last])
        for server in servers:
            if server.is_ours or number < options.switches_of_others:
                is_repeated = number % options.repeat_every == 0
                prompts = [workflows[last](next(seeds)) for _ in range(1 + is_repeated)]
                await _switch(server, last, prompts, watch, options)
        if number % 50 == 49:
            print(f"{number + 1} switches", file=sys.stderr, flush=True)
    for server in servers:
        server.used = usage_of(server.pid) - server.used
        server.noted = {name: value - server.noted[name] for name, value in (await server.counts()).items()}


async def _switch(server: Server, name: str, prompts: list[Any], watch: FileWatch,
                  options: argparse.Namespace) -> None:
    server.switched.append(await server.run(name, prompts[0], watch))
    for prompt in prompts[1:]:
        server.repeated.append(await server.run(name, prompt, watch))
    if options.pressure:
        await server.post("/free", {"unload_models": True, "free_memory": True})


def pinned_opened(server: Server) -> int:
    """How often the pinned files of `--pressure` were opened."""
    names = {residency_set.CHECKPOINTS[0], *residency_set.LORAS, residency_set.CONTROL}
    return sum(count for run in (*server.switched, *server.repeated) for name, count in run.opened.items()
               if name in names)


# --- telling ---


def medians(runs: Iterable[Run], clock: str) -> dict[str, float]:
    """{workflow: median milliseconds by "wall" or "cpu"}"""
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(run.workflow, []).append(getattr(run, clock) * MILLISECONDS)
    return {name: statistics.median(values) for name, values in found.items()}


def beyond(runs: Iterable[Run], usual: dict[str, float], clock: str) -> list[float]:
    """Milliseconds of each run beyond what is usual for its workflow, in order of size."""
    return sorted(getattr(run, clock) * MILLISECONDS - usual[run.workflow] for run in runs
                  if run.workflow in usual)


def share(values: list[float], part: float) -> float:
    """The value that such a part of the sorted values does not exceed."""
    return values[min(len(values) - 1, int(part * len(values)))]


def in_words(values: list[float]) -> str:
    """The spread of sorted values."""
    return "  ".join(f"{share(values, part):9.1f}" for part in (0.5, 0.9, 0.99)) + f"  {values[-1]:9.1f}"


def least_added(server: Server, clock: str) -> list[float]:
    """Per workflow, milliseconds of the fastest switch to it less those of its fastest repeat; sorted."""
    least: list[dict[str, float]] = [{}, {}]
    for table, runs in zip(least, (server.switched, server.repeated), strict=True):
        for run in runs:
            now = getattr(run, clock) * MILLISECONDS
            table[run.workflow] = min(now, table.get(run.workflow, now))
    return sorted(least[0][name] - least[1][name] for name in least[0].keys() & least[1].keys())


def report(server: Server, *, pressure: bool) -> None:
    """All that was measured of one server."""
    print(f"\n{server.name}: {len(server.switched)} switches")
    first = sorted(run.wall for run in server.first)
    print(f"  first run of a workflow: median {statistics.median(first):.2f} s, most {first[-1]:.2f} s")
    print(f"  {'milliseconds':<28}{'p50':>9}  {'p90':>9}  {'p99':>9}  {'most':>9}")
    for clock in ("wall", "cpu"):
        usual = medians(server.repeated, clock)
        for title, values in (
            ("switched prompt", beyond(server.switched, dict.fromkeys(usual, 0.0), clock)),
            ("repeated prompt", beyond(server.repeated, dict.fromkeys(usual, 0.0), clock)),
            ("added by a switch", beyond(server.switched, usual, clock)),
            ("noise of the repeats", beyond(server.repeated, usual, clock)),
        ):
            print(f"  {clock + ', ' + title:<28}{in_words(values)}")
        low, high = median_within(beyond(server.switched, usual, clock))
        print(f"  {clock}, median added, with 95 % confidence: {low:.1f} to {high:.1f}")
        least = least_added(server, clock)
        print(f"  {clock + ', added, least of each':<28}{in_words(least)}")
    opened = sum(sum(run.opened.values()) for run in server.switched)
    again = sum(sum(run.opened.values()) for run in server.repeated)
    with_reads = sum(bool(run.opened) for run in server.switched)
    print(f"  model files opened or read: {opened} times in {with_reads} of the switches, {again} in repeats")
    if pressure:
        print(f"  of these, pinned ones: {pinned_opened(server)}")
    used = server.used
    print(f"  read from disk {used.read_bytes / 1e6:.1f} MB, by read() {used.rchar / 1e6:.1f} MB, "
          f"page faults from disk {used.major_faults}, resident memory {used.rss / 1e6:+.0f} MB")
    usual = medians(server.repeated, "cpu")
    added = [(run.cpu * MILLISECONDS - usual[run.workflow], run.workflow) for run in server.switched
             if run.workflow in usual]
    slowest = ", ".join(f"{name} {value:.0f} ms" for value, name in sorted(added)[:-5:-1])
    print(f"  most CPU time added: {slowest}")
    if server.noted:
        print("  counted by the server: " + ", ".join(f"{name} {int(n)}" for name, n in server.noted.items()))


def median_within(values: list[float]) -> tuple[float, float]:
    """Bounds of the median of what sorted values are drawn from, with 95 % confidence (order statistics)."""
    half, spread = len(values) / 2, 0.98 * math.sqrt(len(values))
    return values[max(0, math.floor(half - spread))], values[min(len(values) - 1, math.ceil(half + spread))]


def compare(ours: Server, other: Server) -> None:
    """How much slower the other one switches. What a switch adds in ours drowns in the noise, so the ratio is
    a bound: the least that the other's median may be over the most that ours may be, and over 1 ms at least.
    """
    print(f"\n{other.name} beside {ours.name}:")
    for clock in ("wall", "cpu"):
        usual, usual_of_other = (medians(server.repeated, clock) for server in (ours, other))
        added, theirs = beyond(ours.switched, usual, clock), beyond(other.switched, usual_of_other, clock)
        least, most = median_within(theirs)[0], median_within(added)[1]
        whole = [MILLISECONDS * statistics.median(getattr(run, clock) for run in server.switched)
                 for server in (ours, other)]
        print(f"  {clock}: a switch adds {statistics.median(theirs):.0f} ms there (at least {least:.0f}), "
              f"{statistics.median(added):.1f} ms here (at most {most:.1f}): at least "
              f"{least / max(most, 1):.0f} x")
        print(f"  {clock}: switched prompts as a whole {whole[1]:.0f} ms there, {whole[0]:.0f} ms here: "
              f"{whole[1] / whole[0]:.1f} x")


# --- the command line ---


def programs(options: argparse.Namespace) -> list[Program]:
    """What is to be started."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pins = PRESSURE_PINS if options.pressure else residency_set.PINS
    more = "".join(f" --pin '{pin}'" for pin in pins)
    if options.pressure:
        more += f" --resident-budget {options.pressure}"
    elif options.resident_budget:
        more += f" --resident-budget {options.resident_budget}"
    more = f" --depot-hash off{more}"  # which reads files
    found = [Program(f"ours {flags}", sys.executable, HERE, flags + more, environment, True)
             for flags in options.start]
    if options.upstream_start:
        root = Path(options.upstream).resolve()
        path = os.pathsep.join(filter(None, [str(root), options.stubs]))
        found += [Program(f"upstream {flags}", options.upstream_python, root, flags,
                          {**environment, "PYTHONPATH": path}, False) for flags in options.upstream_start]
    return found


async def run_all(options: argparse.Namespace) -> list[Server]:
    """Start what is to be started, measure, and end it."""
    watch = FileWatch(residency_set.files_in(options.models))
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(started(program, folder / str(number), options.models, options.cpu))
                   for number, program in enumerate(programs(options))]
        running = zip(options.url, options.pid, strict=True)
        servers += [Server(url, url.rstrip("/"), pid, is_ours=await is_ours(url)) for url, pid in running]
        for server in servers:
            server.fields = json.loads(options.fields) if server.is_ours else {}
            await stack.enter_async_context(server)
        await measure(servers, options, watch)
    return servers


async def is_ours(url: str) -> bool:
    """Whether a running server is one of ours."""
    import aiohttp

    async with aiohttp.ClientSession() as session, session.get(f"{url}/depot/stats") as answer:
        return answer.status == 200


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", type=Path, required=True, help="models folder of the set")
    add("--set", default=residency_set.NARROW, choices=residency_set.SETS)
    add("--write", action="store_true", help="write the set, and do no more")
    add("--start", action="append", default=[], metavar="FLAGS", help="start ours with these flags")
    add("--upstream", help="checkout of upstream ComfyUI")
    add("--upstream-python", default=sys.executable, help="python with upstream's requirements")
    add("--stubs", help="folder put on upstream's path as well")
    add("--upstream-start", action="append", default=[], metavar="FLAGS", help="start upstream with these")
    add("--url", action="append", default=[], help="of a server that runs")
    add("--pid", action="append", default=[], type=int, help="its process, in the same order")
    add("--switches", type=int, default=500)
    add("--switches-of-others", type=int, default=40, help="for servers that are not ours")
    add("--workflows", type=int, metavar="N", help="only the first N of them")
    add("--repeat-every", type=int, default=1, metavar="N", help="repeat after each Nth switch only")
    add("--seed", type=int, default=1, help="of the order")
    add("--cpu", type=int, help="the CPU that servers run on; this client keeps to the others")
    add("--fields", default="{}", help="JSON that is sent with each prompt to ours")
    add("--resident-budget", help="of ours; the default is that of the server")
    add("--pressure", metavar="SIZE", help="the resident budget; see above")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.write:
        residency_set.write(options.models, options.set)
        return
    if options.cpu is not None:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {options.cpu} or {options.cpu})
    before = os.getloadavg()[0]
    servers = asyncio.run(run_all(options))
    print(f"set {options.set}, load of the machine {before:.1f} before and {os.getloadavg()[0]:.1f} after, "
          f"{os.cpu_count()} CPUs")
    for server in servers:
        report(server, pressure=bool(options.pressure))
    for other in servers[1:]:
        compare(servers[0], other)


if __name__ == "__main__":
    main()

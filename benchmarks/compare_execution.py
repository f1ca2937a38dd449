"""Do two ComfyUI servers run prompts alike? The same graphs on both, step by step.

    python benchmarks/compare_execution.py --install ../ComfyUI/custom_nodes --install custom_nodes
    (start both servers)
    python benchmarks/compare_execution.py http://127.0.0.1:8188 http://127.0.0.1:8288

`--install` puts a link to the node pack tests/fakes/compare_pack into a folder of node packs; both servers
need it. Then the graphs of execution_graphs.py and execution_runs.py run, and those that
execution_generated.py makes from `--seed`: before each scenario both servers forget all results, then its
steps are posted to one server and to the other. Compared are the answers to POST /prompt, the messages on the
websocket in their order, which nodes ran and which were cached, every call of a node, and the history. What
is known to differ stands with its reason in EXPECTED; any other difference ends the program with 1.

Upstream takes the outputs of a prompt in the order of a Python set, which is another one in each process. So
the first server's order is read from its history, and the prompt is posted to the second with its nodes in
that order: give upstream's address first. Start this server with --cache-classic: without it results survive
a change of workflow, and less runs than on upstream. Where the orders differ all the same, the messages of
each node are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import fnmatch
import json
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.execution_client import (  # noqa: E402
    PackIsMissing,
    Record,
    Scenario,
    Server,
    ServerHangs,
    Step,
)
from benchmarks.execution_generated import generated  # noqa: E402
from benchmarks.execution_runs import SCENARIOS  # noqa: E402

PACK = ROOT / "tests/fakes/compare_pack"
LINES_OF_DIFFERENCE = 40


@dataclass(frozen=True)
class Expected:
    """A difference that is known: scenarios and parts by pattern, and why."""

    scenario: str
    part: str
    reason: str


EXPECTED = (
    Expected("unknown class/*", "answers", "missing_node_type with the node's name, as in newer versions"),
    Expected("circle/*", "answers", "dependency_cycle on each node of a circle, as in newer versions"),
    Expected("validate inputs: raises/4", "answers", "upstream names the link that was followed last"),
    Expected(
        "undeclared inputs/3",
        "*",
        "a link to an input that a node does not have is left out; upstream passes it, and the node fails",
    ),
    Expected(
        "wrapped values/3",
        "*",
        "a circle made by __value__ is an error; upstream sends one and then says success",
    ),
    Expected(
        "*empty list*/1",
        "*",
        "the error names the empty input; upstream's is that of an index, or the "
        "node is called without its input",
    ),
    Expected("ui with other keys/2", "*", "a key that a later call lacks adds nothing; upstream fails"),
    Expected("returns: nothing/*", "*", "None from a node without outputs is fine; upstream fails"),
    Expected("returns: none with outputs/1", "*", "the error says what to return"),
    Expected("lazy: asks for 'nope'/1", "*", "another text of the error"),
    Expected(
        "expansion: *ExpandList*/*",
        "*",
        "a list that an inner node returns fills its slot; upstream spreads it over the slots, or fails",
    ),
    Expected("expansion: mapped Loop/1", "*", "equal nodes in two expansions share a result"),
    Expected("expansion: ExpandCircle/1", "*", "the error names the nodes of the circle"),
    Expected("expansion: ExpandUnknown/1", "*", "the error says what to install"),
    Expected("tokens/1", "history", "a token that a node shows is not kept in the history"),
    Expected("v3: blocker/*", "*", "block_execution without values blocks; upstream loses it"),
    Expected("v3: a class is locked/1", "*", "another text of the error"),
    Expected("v3: growing inputs/3", "*", "too few inputs are refused; upstream runs the node, which fails"),
    Expected(
        "v3: inputs by choice/5", "*", "an unknown choice is refused; upstream runs the node, which fails"
    ),
    Expected(
        "numbers and texts that look alike/4",
        "*",
        "1.0 and true are two values; upstream takes the result of one for the other",
    ),
)


@dataclass
class Report:
    """What came out of all scenarios."""

    scenarios: int = 0
    steps: int = 0
    grouped: int = 0
    prompts: int = 0
    unexpected: list[str] = field(default_factory=list)
    expected: Counter[Expected] = field(default_factory=Counter)


def differing_parts(first: Record, second: Record, *, in_order: bool, is_large: bool) -> dict[str, Any]:
    """The parts of a step that are not equal, with both contents."""
    parts = {}
    for part in first:
        one, other = first[part], second[part]
        if part in ("events", "calls") and (is_large or not in_order):
            one, other = _grouped(one, is_large), _grouped(other, is_large)
        if one != other and not (part == "events" and _says_less_often(one, other)):
            parts[part] = (one, other)
    return parts


def _says_less_often(one: list[Any], other: list[Any]) -> bool:
    """Does the second server only leave out some lengths of the queue, which change very often here?"""
    lengths = iter([entry for entry in one if entry[0] == "status"])
    return (
        [entry for entry in one if entry[0] != "status"] == [entry for entry in other if entry[0] != "status"]
        and all(entry in lengths for entry in other if entry[0] == "status")
    )  # fmt: skip


def _grouped(entries: list[Any], is_large: bool) -> list[Any]:
    """Entries by node, those of one node in their order; for large prompts without the states on the way."""
    if is_large:
        entries = [entry for entry in entries if entry[0] not in ("progress_state", "status")]
    return sorted(entries, key=lambda entry: json.dumps([entry[0], entry[1:3]], sort_keys=True))


def shown_difference(one: Any, other: Any) -> str:
    """The lines that differ."""

    def lines(content: Any) -> list[str]:
        if isinstance(content, list):
            return [json.dumps(entry, sort_keys=True) for entry in content]
        return [json.dumps(content, sort_keys=True)]

    found = list(difflib.unified_diff(lines(one), lines(other), "A", "B", lineterm="", n=1))
    return "\n".join(f"      {line[:600]}" for line in found[2 : LINES_OF_DIFFERENCE + 2])


async def compare_step(report: Report, scenario: Scenario, number: int, step: Step, servers: Any) -> None:
    """Run one step on both servers and note what differs."""
    first, orders = await servers[0].run(step)
    second, other_orders = await servers[1].run(step, orders)
    in_order = orders == other_orders
    report.steps += 1
    report.prompts += len(first["answers"])
    report.grouped += not in_order
    for part, contents in differing_parts(
        first, second, in_order=in_order, is_large=scenario.is_large
    ).items():
        known = next((one for one in EXPECTED if _fits(one, f"{scenario.name}/{number}", part)), None)
        if known is not None:
            report.expected[known] += 1
            continue
        text = f"{scenario.name}, step {number}: {part}"
        report.unexpected.append(text)
        print(f"  DIFFERS {text}\n{shown_difference(*contents)}", flush=True)


def _fits(known: Expected, scenario: str, part: str) -> bool:
    return fnmatch.fnmatchcase(scenario, known.scenario) and fnmatch.fnmatchcase(part, known.part)


async def compare(urls: list[str], scenarios: list[Scenario]) -> Report:
    """Run all scenarios on both servers."""
    report = Report()
    async with Server(urls[0]) as first, Server(urls[1]) as second:
        for scenario in scenarios:
            report.scenarios += 1
            await first.forget()
            await second.forget()
            for number, step in enumerate(scenario.steps, 1):
                try:
                    await compare_step(report, scenario, number, step, (first, second))
                except ServerHangs as error:  # nothing can be compared after it
                    print(f"  DIFFERS {scenario.name}, step {number}: {error}", flush=True)
                    report.unexpected.append(f"{scenario.name}, step {number}: {error}")
                    return report
    return report


def install(folder: Path) -> None:
    """Link the pack into a folder of node packs; copy it where links cannot be made."""
    target = folder / PACK.name
    if target.exists():
        print(f"{target} is there already.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(PACK, target_is_directory=True)
    except OSError:
        shutil.copytree(PACK, target)
    print(f"The node pack is in {target}. Start the server again.")


def chosen_scenarios(pattern: str, examples: int, seed: int) -> list[Scenario]:
    """Written ones, then generated ones."""
    every = [*SCENARIOS, *generated(examples, seed)]
    return [one for one in every if fnmatch.fnmatchcase(one.name, pattern)]


def main() -> int:
    """Compare two servers, or put the node pack into their folders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs="*", metavar="URL", help="two running servers, upstream's first")
    parser.add_argument("--install", action="append", default=[], type=Path, metavar="DIR")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="scenarios whose name fits")
    parser.add_argument("--examples", type=int, default=60, help="how many scenarios to generate")
    parser.add_argument("--seed", type=int, default=1, help="another seed generates others")
    chosen = parser.parse_args()
    for folder in chosen.install:
        install(folder)
    if not chosen.urls and chosen.install:
        return 0
    if len(chosen.urls) != 2:
        parser.error("give the addresses of two servers")
    scenarios = chosen_scenarios(chosen.only, chosen.examples, chosen.seed)
    started = time.monotonic()
    try:
        report = asyncio.run(compare(chosen.urls, scenarios))
    except PackIsMissing as error:
        print(error)
        return 2
    print_report(report, time.monotonic() - started)
    return 1 if report.unexpected else 0


def print_report(report: Report, seconds: float) -> None:
    """The sum of it."""
    print(f"{report.scenarios} scenarios, {report.steps} steps, {report.prompts} prompts in {seconds:.0f} s.")
    print(f"Compared node by node, because outputs were taken in another order: {report.grouped} steps.")
    for known, times in report.expected.items():
        print(f"Expected, {times} times: {known.scenario}: {known.part}: {known.reason}")
    print(f"Unexpected differences: {len(report.unexpected)}")


if __name__ == "__main__":
    sys.exit(main())

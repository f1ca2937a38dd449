"""Commands about models ahead of need: warm, predict, stats."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from comfy_depot import access, guesses, inventory, options, predict, replay
from comfy_depot.commands import AddCommand
from comfy_depot.commands.opening import folder_and_name, open_depot, options_of
from comfy_depot.commands.printing import human_size, print_json, print_table
from comfy_depot.depot import Depot
from comfy_depot.errors import DepotError
from comfy_depot.predict import Score
from comfy_depot.warm import Wish


def add_commands(add: AddCommand) -> None:
    """Add the commands of this topic."""
    command = add("warm", _warm, "bring models that nobody waits for: those named here, else configured ones")
    command.add_argument("models", nargs="*", metavar="FOLDER/NAME", help="default: what --depot-warm names")
    command.add_argument("--dry-run", action="store_true", help="only show what would be brought")
    command = add("predict", _predict, "how well the next model of a tenant would have been foretold")
    command.add_argument("trace", nargs="?", metavar="TRACE.csv",
                         help="columns time,key,size and tenant, or the output of `log --csv`; - reads "
                              "standard input (default: the own access log)")
    command.add_argument("--method", action="append", choices=predict.METHODS, help="default: all")
    command.add_argument("--size", type=options.parse_budget, default=options.Budget(share=0.2),
                         metavar="SIZE|PERCENT", help="of the disk for which guesses are replayed (default: "
                                                      "20%% of all models)")
    command.add_argument("--budget", type=options.parse_size, default=100 << 30, metavar="BYTES",
                         help="that may be fetched in vain per day (default: 100G)")
    add("stats", _stats, "counts and bytes: models by tier, downloads ahead, predictions and their waste")


def _warm(arguments: argparse.Namespace) -> int:
    from comfy_depot.progress import progress_bars

    results = []
    with open_depot(arguments) as depot, progress_bars(is_shown=not arguments.json) as show:
        for wish in _wishes(depot, arguments.models):
            error = None
            if not arguments.dry_run:
                try:
                    error = depot.warm.bring(wish, show)
                except DepotError as problem:
                    error = str(problem)
            results.append({**wish.as_json(), "error": error})
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, "models": results})
    else:
        print_table(("model", "size", "why"), [(f"{one['folder']}/{one['name']}", human_size(one["size"]),
                                                one["why"]) for one in results if not one["error"]])
    failed = [one["error"] for one in results if one["error"]]
    for message in failed if not arguments.json else []:
        print(f"Error: {message}", file=sys.stderr)
    return 1 if failed else 0


def _wishes(depot: Depot, models: list[str]) -> list[Wish]:
    """What is missing of the models that are named, or of those that are configured."""
    if not models:
        return depot.warm.plan()
    entries = [depot.entry(*folder_and_name(model)) for model in models]
    return [Wish(entry.folder, entry.name, entry.size, "asked") for entry in entries
            if depot.current_path(entry.folder, entry.name) is None]


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.trace is None:
        rows = access.read(options_of(arguments).depot_dir)
        uses = predict.in_order((row.time, (row.folder, row.name), row.bytes, row.tenant or "")
                                for row in rows if row.is_use)
    else:
        with (contextlib.nullcontext(sys.stdin) if arguments.trace == "-"
              else open(arguments.trace, encoding="utf-8", newline="")) as lines:
            uses = predict.in_order(replay.read_uses(lines, shown_as=arguments.trace))
    scores = {method: predict.evaluate(uses, method) for method in arguments.method or predict.METHODS}
    disk = arguments.size.of(lambda: sum({key: size for _, key, size, _ in uses}.values()))
    replays = [guesses.simulate(uses, disk_bytes=disk, budget=arguments.budget, may_evict=may_evict)
               for may_evict in (False, True)]
    if arguments.json:
        print_json({"methods": {method: {folder or "all": score.as_json() for folder, score in found.items()}
                                for method, found in scores.items()},
                    "guesses": [one.as_json() for one in replays]})
        return 0
    print_table(("method", "folder", "uses", "switches", "top 1", "top 3"), [
        (method, folder or "all", *_cells(score)) for method, found in scores.items()
        for folder, score in sorted(found.items()) if folder or len(found) != 2])
    print_table(("guesses", "disk", "misses without", "misses", "guessed", "in vain"), [
        ("evict" if one.may_evict else "never evict", human_size(one.disk_bytes), str(one.misses_without),
         str(one.misses), human_size(one.bytes_guessed), human_size(one.bytes_wasted)) for one in replays])
    return 0


def _cells(score: Score) -> tuple[str, ...]:
    shares = score.as_json()
    return (str(score.uses), str(score.switches),
            *("" if shares[name] is None else f"{shares[name]:.3f}" for name in ("top1", "top3")))


def _stats(arguments: argparse.Namespace) -> int:
    with open_depot(arguments) as depot:
        found = inventory.stats(depot)
    if arguments.json:
        print_json(found)
    else:
        print_table(("what", "value"), list(_flat("", found)))
    return 0


def _flat(path: str, content: Any) -> list[tuple[str, str]]:
    """Nested values as "a.b" and text."""
    if isinstance(content, dict):
        return [row for name, value in content.items()
                for row in _flat(f"{path}.{name}" if path else str(name), value)]
    return [(path, "" if content is None else str(content))]

"""Commands about what stays on the disk: clean, evict, pin, unpin, replay."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from comfy_depot import access, options, replay
from comfy_depot.commands import AddCommand, memory
from comfy_depot.commands.opening import folder_and_name, open_depot, options_of
from comfy_depot.commands.printing import human_size, moment, print_json, print_table
from comfy_depot.depot import Depot
from comfy_depot.errors import ModelUnavailable
from comfy_depot.eviction import Limits, Plan
from comfy_depot.policies import POLICIES, Key
from comfy_depot.replay import OFFLINE


def add_commands(add: AddCommand) -> None:
    """Add the commands of this topic."""
    command = add("clean", _clean, "evict models that a manifest can bring back, longest unused first")
    command.add_argument("--max-size", type=options.parse_size, metavar="BYTES",
                         help="evict until the depot's own models take no more, such as 200G")
    command.add_argument("--keep-days", type=options.parse_days, metavar="DAYS",
                         help="evict what was unused for so long")
    command.add_argument("--dry-run", action="store_true", help="only show what would go")
    command = add("evict", _evict, "evict models that a manifest can bring back, by name")
    command.add_argument("models", nargs="+", metavar="FOLDER/NAME", help="such as checkpoints/x.safetensors")
    command.add_argument("--dry-run", action="store_true", help="only show what would go")
    for name, run, summary in (("pin", _pin, "keep models on the disk or in memory, or show which are kept"),
                               ("unpin", _unpin, "let pinned models go again when room is needed")):
        command = add(name, run, summary)
        command.add_argument("models", nargs="*", metavar="FOLDER/NAME",
                             help="such as checkpoints/x.safetensors")
        command.add_argument("--dry-run", action="store_true", help="only say whether it can be done")
        command.add_argument("--memory", action="store_true",
                             help="in memory instead: a running server takes it up within seconds; names may "
                                  "be globs")
        command.add_argument("--group", metavar="NAME", help="in memory: the group of this name")
    command = add("replay", _replay, "what each eviction policy would have fetched, from a trace of uses")
    command.add_argument("trace", nargs="?", metavar="TRACE.csv",
                         help="columns time,key,size, or the output of `log --csv`; - reads standard input "
                              "(default: the own access log)")
    command.add_argument("--size", type=options.parse_budget, action="append", required=True,
                         metavar="SIZE|PERCENT", help="of the disk, such as 50G, or 10%% of all models")
    command.add_argument("--policy", action="append", choices=[*POLICIES, *OFFLINE],
                         help="default: all. belady and bound know the future and are there to compare")


def _clean(arguments: argparse.Namespace) -> int:
    if arguments.max_size is arguments.keep_days is None:
        raise ValueError("Nothing to clean up to. Add --max-size 200G, --keep-days 7, or both.")
    return _carry_out(arguments, Limits(max_size=arguments.max_size, keep_days=arguments.keep_days))


def _evict(arguments: argparse.Namespace) -> int:
    names = {folder_and_name(model) for model in arguments.models}
    return _carry_out(arguments, Limits(names=names))


def _carry_out(arguments: argparse.Namespace, limits: Limits) -> int:
    """Plan, evict unless it is a dry run, and show what goes and what stays."""
    with open_depot(arguments) as depot:
        planned = depot.plan_eviction(limits)
        plan = planned if arguments.dry_run else planned.execute()
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, **plan.as_json()})
    else:
        words = ("would go", "would stay") if arguments.dry_run else ("went", "stays")
        print_table(("what", "model", "size", "last use", "reason"), _eviction_rows(plan, *words))
        print(f"{'Would free' if arguments.dry_run else 'Freed'} {human_size(plan.bytes_freed)} "
              f"of {len(plan.going)} models; {len(plan.staying)} stay.")
    if plan.bytes_over:
        print(f"The depot's own models still take {human_size(plan.bytes_over)} more than the limit, because "
              "what takes it must stay.", file=sys.stderr)
    has_refused = len(plan.going) < len(planned.going) or limits.names is not None and plan.staying
    return 1 if plan.bytes_over or has_refused else 0


def _pin(arguments: argparse.Namespace) -> int:
    if arguments.memory or arguments.group:
        return memory.change_pins(arguments, is_pin=True)
    return _change_pins(arguments, Depot.pin)


def _unpin(arguments: argparse.Namespace) -> int:
    if not arguments.models and not arguments.group:
        raise ValueError("Nothing to unpin. Name models as FOLDER/NAME, or a group with --group.")
    if arguments.memory or arguments.group:
        return memory.change_pins(arguments, is_pin=False)
    return _change_pins(arguments, Depot.unpin)


def _change_pins(arguments: argparse.Namespace, change: Callable[..., Key]) -> int:
    """Pin or unpin, unless it is a dry run; then show all that is pinned after it."""
    errors = []
    keys = set()
    with open_depot(arguments) as depot:
        for folder, name in map(folder_and_name, arguments.models):
            try:
                keys.add(change(depot, folder, name, is_dry_run=arguments.dry_run))
            except ModelUnavailable as error:
                errors.append(str(error))
        pins = depot.pins.all()
        after = pins | keys if change is Depot.pin else pins - keys
        pinned = [{"folder": folder, "name": name, "on_disk": depot.local_path(folder, name) is not None}
                  for folder, name in sorted(after)]
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, "pinned": pinned, "errors": errors})
    else:
        print_table(("pinned", "tier"), [(f"{one['folder']}/{one['name']}",
                                           "disk" if one["on_disk"] else "cloud") for one in pinned])
    for message in errors:
        print(f"Error: {message}", file=sys.stderr)
    return 1 if errors else 0


def _eviction_rows(plan: Plan, goes: str, stays: str) -> Iterator[tuple[str, ...]]:
    for word, verdicts in ((goes, plan.going), (stays, plan.staying)):
        for verdict in verdicts:
            model = verdict.model
            yield (word, f"{model.folder}/{model.name}", human_size(model.size), moment(model.last_used),
                   verdict.reason)


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.trace is None:
        trace = replay.of_log(access.read(options_of(arguments).depot_dir))
    else:
        if arguments.trace != "-" and not os.path.exists(arguments.trace):
            raise ValueError(f"There is no file '{arguments.trace}'. Name a trace, or leave it out to replay "
                             "the own access log.")
        with (contextlib.nullcontext(sys.stdin) if arguments.trace == "-"
              else open(arguments.trace, encoding="utf-8", newline="")) as lines:
            trace = replay.read_csv(lines, shown_as=arguments.trace)
    if not len(trace):
        raise ValueError("There is no use to replay: the trace or the access log is empty. Models that nodes "
                         "open are logged; python benchmarks/eviction_traces.py --write T.csv makes a trace.")
    results = [replay.replay(trace, replay.disk_bytes(trace, size), policy)
               for size in arguments.size for policy in arguments.policy or [*POLICIES, *OFFLINE]]
    if arguments.json:
        print_json([result.as_json() for result in results])
    else:
        print_table(replay.COLUMNS, replay.rows(results))
    return 0

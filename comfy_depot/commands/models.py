"""Commands about single models: list, fetch, verify, log."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict, astuple

from comfy_depot import access, inventory, manifest, options
from comfy_depot.commands import AddCommand
from comfy_depot.commands.opening import folder_and_name, open_depot, options_of
from comfy_depot.commands.printing import human_size, moment, print_json, print_table
from comfy_depot.errors import DepotError
from comfy_depot.verifying import wrong_files


def add_commands(add: AddCommand) -> None:
    """Add the commands of this topic."""
    command = add("list", _list, "every known model and its tier")
    command.add_argument("--folder", metavar="TYPE", help="one folder type only, such as loras")
    command.add_argument("--tier", choices=inventory.TIERS, help="one tier only")
    command = add("fetch", _fetch, "download models now")
    command.add_argument("models", nargs="+", metavar="FOLDER/NAME", help="such as checkpoints/x.safetensors")
    command.add_argument("--replace", action="store_true",
                         help="also when a file of yours stands there that is not what the manifest names")
    command = add("verify", _verify, "list mistakes in the manifests, and files that are not what they say")
    command.add_argument("--hash", action="store_true", help="also read the files and compare their sha256")
    command.add_argument("--write-schema", action="store_true", help="write the manifests' schema.json anew")
    command = add("log", _log, "which model was used when, newest first")
    command.add_argument("--csv", action="store_true", help="print comma-separated values")
    command.add_argument("--limit", type=options.parse_limit, default=-1,
                         metavar="N", help="the newest N only")


def _list(arguments: argparse.Namespace) -> int:
    with open_depot(arguments) as depot:
        found = inventory.models(depot, folder=arguments.folder, tier=arguments.tier)
        problems = depot.catalogue.snapshot().problems
    if arguments.json:
        print_json([inventory.as_json(model) for model in found])
    else:
        rows = [(model.folder, model.name, model.tier, human_size(model.size), model.source or "",
                 model.group or "", "yes" if model.gated else "") for model in found]
        print_table(("folder", "name", "tier", "size", "source", "group", "gated"), rows)
    if problems:
        print(f"Mistakes in the manifests: {len(problems)}. To see them: python -m comfy_depot verify",
              file=sys.stderr)
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from comfy_depot.progress import progress_bars

    results = []
    with open_depot(arguments) as depot, progress_bars(is_shown=not arguments.json) as show:
        for model in arguments.models:
            try:
                path = depot.fetch(*folder_and_name(model), on_progress=show, replace_own=arguments.replace)
                results.append({"model": model, "path": path, "error": None})
            except (DepotError, ValueError) as error:
                results.append({"model": model, "path": None, "error": str(error)})
    if arguments.json:
        print_json(results)
    for result in results if not arguments.json else []:
        print(result["path"] or f"Error: {result['error']}",
              file=sys.stdout if result["path"] else sys.stderr)
    return 1 if any(result["error"] for result in results) else 0


def _verify(arguments: argparse.Namespace) -> int:
    with open_depot(arguments) as depot:
        if arguments.write_schema:
            file = depot.options.model_manifests / "schema.json"
            file.write_text(json.dumps(manifest.json_schema(), indent=2) + "\n", encoding="utf-8")
        mistakes = [str(problem) for problem in depot.catalogue.snapshot().problems]
        mistakes += wrong_files(depot, with_hashes=arguments.hash)
        models = sum(1 for _ in depot.catalogue)
    if arguments.json:
        print_json({"models": models, "problems": mistakes})
    else:
        for mistake in mistakes:
            print(mistake)
        print(f"Models in the manifests: {models}. Mistakes: {len(mistakes)}.")
    return 1 if mistakes else 0


def _log(arguments: argparse.Namespace) -> int:
    rows = access.read(options_of(arguments).depot_dir, limit=arguments.limit)
    if arguments.json:
        print_json([asdict(row) for row in rows])
    elif arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(access.COLUMNS)
        writer.writerows(astuple(row) for row in rows)
    else:
        shown = [(moment(row.time), f"{row.folder}/{row.name}",
                  row.outcome, human_size(row.bytes), row.prompt or "", row.node or "", row.tenant or "")
                 for row in rows]
        print_table(("time", "model", "outcome", "size", "prompt", "node", "tenant"), shown)
    return 0

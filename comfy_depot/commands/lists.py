"""Commands that change what the manifests say: refresh, import-templates, offers."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comfy_depot.commands import AddCommand
from comfy_depot.commands.opening import folder_and_name, open_depot, options_of
from comfy_depot.commands.printing import print_json, print_table


def add_commands(add: AddCommand) -> None:
    """Add the commands of this topic."""
    add("refresh", _refresh, "fetch the lists that model_versions.json names, where their digests differ")
    command = add("import-templates", _import_templates, "write the manifest of the official templates")
    command.add_argument("--check", action="store_true", help="only compare; status 1 when it is not current")
    command.add_argument("--output", type=Path, metavar="FILE",
                         help="default: templates.json in the manifest folder")
    command = add("offers", _offers, "models that workflows name: those taken up, and those that wait")
    command.add_argument("--from", dest="workflow", type=Path, metavar="FILE",
                         help="offer the models of this workflow")
    command.add_argument("--accept", action="append", default=[], metavar="FOLDER/NAME",
                         help="let it count like a model of your manifests")
    command.add_argument("--forget", action="append", default=[], metavar="FOLDER/NAME", help="take it out")


def _refresh(arguments: argparse.Namespace) -> int:
    with open_depot(arguments) as depot:
        outcomes = depot.lists.refresh()
        problems = depot.catalogue.refresh().problems
        models = sum(1 for _ in depot.catalogue)
    if arguments.json:
        print_json({"models": models, "lists": [asdict(outcome) for outcome in outcomes],
                     "problems": [str(problem) for problem in problems]})
    else:
        rows = [(one.name, one.state, one.message or "") for one in outcomes]
        print_table(("list", "state", "reason"), rows)
        for problem in problems:
            print(problem, file=sys.stderr)
    return 1 if problems else 0


def _import_templates(arguments: argparse.Namespace) -> int:
    from comfy_depot import templates

    file = arguments.output or options_of(arguments).model_manifests / templates.FILE_NAME
    models, refused, is_current = templates.write(file, only_check=arguments.check)
    state = "current" if is_current else "not current" if arguments.check else "written"
    if arguments.json:
        print_json({"file": str(file), "models": models, "state": state, "refused": refused})
    else:
        for reason in refused:
            print(f"Left out: {reason}", file=sys.stderr)
        print(f"{file}: {models} models, {state}.")
    if arguments.check and not is_current:
        print("To write it: python -m comfy_depot import-templates", file=sys.stderr)
        return 1
    return 0


def _offers(arguments: argparse.Namespace) -> int:
    with open_depot(arguments) as depot:
        for model in arguments.accept:
            depot.offers.accept(*folder_and_name(model))
        for model in arguments.forget:
            depot.offers.forget(*folder_and_name(model))
        if arguments.workflow is None:
            found = depot.offers.listed()
        else:
            found = depot.offers.offer(_workflow_of(arguments.workflow))
    if arguments.json:
        print_json([asdict(offer) for offer in found])
    else:
        print_table(("model", "state", "url", "reason"), [
            (f"{one.folder}/{one.name}", one.state, one.url or "", one.message or "") for one in found])
    return 1 if any(one.state == "refused" for one in found) else 0


def _workflow_of(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{file} is no workflow ({error}). Name the JSON file that the web page saves."
        raise ValueError(message) from None

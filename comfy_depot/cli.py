"""`python -m comfy_depot`: the depot by hand.

    list      every known model and its tier
    fetch     download models now
    verify    every mistake in the manifests; also whether files on the disk are what the manifests say
    refresh   fetch the lists of models that are kept elsewhere
    import-templates  write the manifest of the models that the official templates name
    offers    models that workflows name, and which of them are taken up
    clean     evict what was not used for long, or what is too much for a size
    evict     evict models by name
    pin       keep models on the disk; without a name: show which are kept
    unpin     let pinned models go again when room is needed
    replay    what each eviction policy would have fetched, from a trace of uses
    log       which model was used when
    serve     offer a folder of models over HTTP

Exit status: 0 done, 1 something is wrong (it is printed), 2 the command line is wrong, 130 interrupted,
141 the reader of the output has gone.
Tables are for terminals; into a pipe go plain lines with tabs, and `--json` prints JSON everywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import comfy_depot
import folder_paths
from comfy.cli_args import args as program_arguments
from comfy_depot import access, hashing, inventory, manifest, options, replay
from comfy_depot.depot import Depot
from comfy_depot.errors import DepotError, ModelUnavailable
from comfy_depot.eviction import Limits, Plan, Stamp
from comfy_depot.policies import POLICIES
from comfy_depot.replay import OFFLINE
from utils import extra_config


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    common = _common_parser()
    shared, rest = common.parse_known_args(argv)
    arguments = _command_parser(common).parse_args(rest, namespace=shared)
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s: %(message)s")
    try:
        status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough, as in `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (DepotError, OSError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(f"Error: the access log cannot be used ({error}). Look after {access.FILE_NAME} and its rights "
              "in the depot's folder (--depot-dir).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What has arrived is kept; the next fetch goes on from there.", file=sys.stderr)
        return 130


def _common_parser() -> argparse.ArgumentParser:
    """The options that every command takes, before or after its name."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add = parser.add_argument
    add("--base-directory", metavar="DIR", help="folder that holds models, model_manifests and depot")
    add("--models-directory", metavar="DIR", help="folder of the models")
    add("--extra-model-paths-config", metavar="FILE", action="append",
        help="YAML file with more model folders")
    add("--json", action="store_true", help="print JSON")
    options.add_arguments(parser)
    return parser


def _command_parser(common: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comfy_depot", description="Models from the cloud to the disk.", parents=[common],
        conflict_handler="resolve", argument_default=argparse.SUPPRESS,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    command = add("list", _list, "every known model and its tier")
    command.add_argument("--folder", metavar="TYPE", help="one folder type only, such as loras")
    command.add_argument("--tier", choices=inventory.TIERS, help="one tier only")
    command = add("fetch", _fetch, "download models now")
    command.add_argument("models", nargs="+", metavar="FOLDER/NAME", help="such as checkpoints/x.safetensors")
    command = add("verify", _verify, "list mistakes in the manifests, and files that are not what they say")
    command.add_argument("--hash", action="store_true", help="also read the files and compare their sha256")
    command.add_argument("--write-schema", action="store_true", help="write the manifests' schema.json anew")
    _add_list_commands(add)
    command = add("clean", _clean, "evict models that a manifest can bring back, longest unused first")
    command.add_argument("--max-size", type=options.parse_size, metavar="BYTES",
                         help="evict until the depot's own models take no more, such as 200G")
    command.add_argument("--keep-days", type=float, metavar="DAYS", help="evict what was unused for so long")
    command.add_argument("--dry-run", action="store_true", help="only show what would go")
    command = add("evict", _evict, "evict models that a manifest can bring back, by name")
    command.add_argument("models", nargs="+", metavar="FOLDER/NAME", help="such as checkpoints/x.safetensors")
    command.add_argument("--dry-run", action="store_true", help="only show what would go")
    for name, run, summary in (("pin", _pin, "keep models on the disk, or show which are kept"),
                               ("unpin", _unpin, "let pinned models go again when room is needed")):
        command = add(name, run, summary)
        command.add_argument("models", nargs="*" if name == "pin" else "+", metavar="FOLDER/NAME",
                             help="such as checkpoints/x.safetensors")
    command = add("replay", _replay, "what each eviction policy would have fetched, from a trace of uses")
    command.add_argument("trace", nargs="?", metavar="TRACE.csv",
                         help="columns time,key,size, or the output of `log --csv`; - reads standard input "
                              "(default: the own access log)")
    command.add_argument("--size", type=options.parse_budget, action="append", required=True,
                         metavar="SIZE|PERCENT", help="of the disk, such as 50G, or 10%% of all models")
    command.add_argument("--policy", action="append", choices=[*POLICIES, *OFFLINE],
                         help="default: all. belady and bound know the future and are there to compare")
    command = add("log", _log, "which model was used when, newest first")
    command.add_argument("--csv", action="store_true", help="print comma-separated values")
    command.add_argument("--limit", type=int, default=-1, metavar="N", help="the newest N only")
    command = add("serve", _serve, "offer a folder of models over HTTP, read-only")
    command.add_argument("directory", type=Path, metavar="DIR", help="the folder, with one per type in it")
    command.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    command.add_argument("--port", type=int, default=8189, help="default: 8189; 0 takes a free one")
    command.add_argument("--rate", type=options.parse_size, default=0, metavar="BYTES",
                         help="bytes per second, all connections together")
    command.add_argument("--token-env", metavar="NAME", help="environment variable with the token to ask for")
    return parser


def _add_list_commands(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """The commands that change what the manifests say."""
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


def _options(arguments: argparse.Namespace) -> options.Options:
    """Place the folders as the server does, and the depot's options with them."""
    for name in ("base_directory", "models_directory", "extra_model_paths_config"):
        setattr(program_arguments, name, getattr(arguments, name))
    folder_paths.apply_arguments(program_arguments)
    extra_config.load_configured(arguments)
    return options.from_args(arguments, base_directory=Path(folder_paths.base_path))


@contextmanager
def _depot(arguments: argparse.Namespace) -> Iterator[Depot]:
    depot = comfy_depot.start(_options(arguments))
    if depot is None:
        raise ValueError("The depot is off. Leave out --depot-off.")
    try:
        yield depot
    finally:
        comfy_depot.stop()


def _list(arguments: argparse.Namespace) -> int:
    with _depot(arguments) as depot:
        found = inventory.models(depot, folder=arguments.folder, tier=arguments.tier)
        problems = depot.catalogue.snapshot().problems
    if arguments.json:
        _print_json([inventory.as_json(model) for model in found])
    else:
        rows = [(model.folder, model.name, model.tier, human_size(model.size), model.source or "",
                 model.group or "", "yes" if model.gated else "") for model in found]
        _print_table(("folder", "name", "tier", "size", "source", "group", "gated"), rows)
    if problems:
        print(f"Mistakes in the manifests: {len(problems)}. To see them: python -m comfy_depot verify",
              file=sys.stderr)
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from comfy_depot.progress import progress_bars

    results = []
    with _depot(arguments) as depot, progress_bars(is_shown=not arguments.json) as show:
        for model in arguments.models:
            try:
                path = depot.fetch(*_folder_and_name(model), on_progress=show)
                results.append({"model": model, "path": path, "error": None})
            except (DepotError, ValueError) as error:
                results.append({"model": model, "path": None, "error": str(error)})
    if arguments.json:
        _print_json(results)
    for result in results if not arguments.json else []:
        print(result["path"] or f"Error: {result['error']}",
              file=sys.stdout if result["path"] else sys.stderr)
    return 1 if any(result["error"] for result in results) else 0


def _folder_and_name(model: str) -> tuple[str, str]:
    folder, slash, name = model.partition("/")
    if not slash:
        raise ValueError(f"'{model}' names no folder. Write FOLDER/NAME, as checkpoints/{model}.")
    return folder, name


def _clean(arguments: argparse.Namespace) -> int:
    if arguments.max_size is arguments.keep_days is None:
        raise ValueError("Nothing to clean up to. Add --max-size 200G, --keep-days 7, or both.")
    return _carry_out(arguments, Limits(max_size=arguments.max_size, keep_days=arguments.keep_days))


def _evict(arguments: argparse.Namespace) -> int:
    names = {_folder_and_name(model) for model in arguments.models}
    return _carry_out(arguments, Limits(names=names))


def _carry_out(arguments: argparse.Namespace, limits: Limits) -> int:
    """Plan, evict unless it is a dry run, and show what goes and what stays."""
    with _depot(arguments) as depot:
        planned = depot.plan_eviction(limits)
        plan = planned if arguments.dry_run else planned.execute()
    if arguments.json:
        _print_json({"dry_run": arguments.dry_run, **plan.as_json()})
    else:
        words = ("would go", "would stay") if arguments.dry_run else ("went", "stays")
        _print_table(("what", "model", "size", "last use", "reason"), _eviction_rows(plan, *words))
        print(f"{'Would free' if arguments.dry_run else 'Freed'} {human_size(plan.bytes_freed)} "
              f"of {len(plan.going)} models; {len(plan.staying)} stay.")
    if plan.bytes_over:
        print(f"The depot's own models still take {human_size(plan.bytes_over)} more than the limit, because "
              "what takes it must stay.", file=sys.stderr)
    has_refused = len(plan.going) < len(planned.going) or limits.names is not None and plan.staying
    return 1 if plan.bytes_over or has_refused else 0


def _pin(arguments: argparse.Namespace) -> int:
    return _change_pins(arguments, Depot.pin)


def _unpin(arguments: argparse.Namespace) -> int:
    return _change_pins(arguments, Depot.unpin)


def _change_pins(arguments: argparse.Namespace, change: Callable[[Depot, str, str], object]) -> int:
    """Pin or unpin; then show all that is pinned."""
    errors = []
    with _depot(arguments) as depot:
        for folder, name in map(_folder_and_name, arguments.models):
            try:
                change(depot, folder, name)
            except ModelUnavailable as error:
                errors.append(str(error))
        pinned = [{"folder": folder, "name": name, "on_disk": depot.local_path(folder, name) is not None}
                  for folder, name in sorted(depot.pins.all())]
    if arguments.json:
        _print_json({"pinned": pinned, "errors": errors})
    else:
        _print_table(("pinned", "tier"), [(f"{one['folder']}/{one['name']}",
                                           "disk" if one["on_disk"] else "cloud") for one in pinned])
    for message in errors:
        print(f"Error: {message}", file=sys.stderr)
    return 1 if errors else 0


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.trace is None:
        trace = replay.of_log(access.read(_options(arguments).depot_dir))
    else:
        with (contextlib.nullcontext(sys.stdin) if arguments.trace == "-"
              else open(arguments.trace, encoding="utf-8", newline="")) as lines:
            trace = replay.read_csv(lines, shown_as=arguments.trace)
    results = [replay.replay(trace, replay.disk_bytes(trace, size), policy)
               for size in arguments.size for policy in arguments.policy or [*POLICIES, *OFFLINE]]
    if arguments.json:
        _print_json([result.as_json() for result in results])
    else:
        _print_table(replay.COLUMNS, replay.rows(results))
    return 0


def _eviction_rows(plan: Plan, goes: str, stays: str) -> Iterator[tuple[str, ...]]:
    for word, verdicts in ((goes, plan.going), (stays, plan.staying)):
        for verdict in verdicts:
            model = verdict.model
            yield (word, f"{model.folder}/{model.name}", human_size(model.size), _moment(model.last_used),
                   verdict.reason)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _verify(arguments: argparse.Namespace) -> int:
    with _depot(arguments) as depot:
        if arguments.write_schema:
            file = depot.options.model_manifests / "schema.json"
            file.write_text(json.dumps(manifest.json_schema(), indent=2) + "\n", encoding="utf-8")
        mistakes = [str(problem) for problem in depot.catalogue.snapshot().problems]
        mistakes += _wrong_files(depot, with_hashes=arguments.hash)
        models = sum(1 for _ in depot.catalogue)
    if arguments.json:
        _print_json({"models": models, "problems": mistakes})
    else:
        for mistake in mistakes:
            print(mistake)
        print(f"Models in the manifests: {models}. Mistakes: {len(mistakes)}.")
    return 1 if mistakes else 0


def _wrong_files(depot: Depot, *, with_hashes: bool) -> Iterator[str]:
    """Files on the disk that are not what the manifests say."""
    advice = "Remove the file to have it fetched again, or correct the manifest."
    for entry in depot.catalogue:
        path = depot.local_path(entry.folder, entry.name)
        if path is None:
            continue
        stamp = Stamp.of(os.stat(path))
        if entry.size is not None and stamp.size != entry.size:
            yield f"{path}: has {stamp.size} bytes, and the manifest says {entry.size}. {advice}"
        elif with_hashes and entry.sha256 is not None:
            found = hashing.sha256_file(Path(path))
            depot.digests.note(stamp, found)
            if found != entry.sha256:
                yield f"{path}: has sha256 {found}, and the manifest says {entry.sha256}. {advice}"


def _refresh(arguments: argparse.Namespace) -> int:
    with _depot(arguments) as depot:
        outcomes = depot.lists.refresh()
        problems = depot.catalogue.refresh().problems
        models = sum(1 for _ in depot.catalogue)
    if arguments.json:
        _print_json({"models": models, "lists": [asdict(outcome) for outcome in outcomes],
                     "problems": [str(problem) for problem in problems]})
    else:
        rows = [(one.name, one.state, one.message or "") for one in outcomes]
        _print_table(("list", "state", "reason"), rows)
        for problem in problems:
            print(problem, file=sys.stderr)
    return 1 if problems else 0


def _offers(arguments: argparse.Namespace) -> int:
    with _depot(arguments) as depot:
        for model in arguments.accept:
            depot.offers.accept(*_folder_and_name(model))
        for model in arguments.forget:
            depot.offers.forget(*_folder_and_name(model))
        if arguments.workflow is None:
            found = depot.offers.listed()
        else:
            found = depot.offers.offer(json.loads(arguments.workflow.read_text(encoding="utf-8")))
    if arguments.json:
        _print_json([asdict(offer) for offer in found])
    else:
        _print_table(("model", "state", "url", "reason"), [
            (f"{one.folder}/{one.name}", one.state, one.url or "", one.message or "") for one in found])
    return 1 if any(one.state == "refused" for one in found) else 0


def _import_templates(arguments: argparse.Namespace) -> int:
    from comfy_depot import templates

    file = arguments.output or _options(arguments).model_manifests / templates.FILE_NAME
    models, refused, is_current = templates.write(file, only_check=arguments.check)
    state = "current" if is_current else "not current" if arguments.check else "written"
    if arguments.json:
        _print_json({"file": str(file), "models": models, "state": state, "refused": refused})
    else:
        for reason in refused:
            print(f"Left out: {reason}", file=sys.stderr)
        print(f"{file}: {models} models, {state}.")
    if arguments.check and not is_current:
        print("To write it: python -m comfy_depot import-templates", file=sys.stderr)
        return 1
    return 0


def _log(arguments: argparse.Namespace) -> int:
    rows = access.read(_options(arguments).depot_dir, limit=arguments.limit)
    if arguments.json:
        _print_json([asdict(row) for row in rows])
    elif arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(access.COLUMNS)
        writer.writerows(astuple(row) for row in rows)
    else:
        shown = [(_moment(row.time), f"{row.folder}/{row.name}",
                  row.outcome, human_size(row.bytes), row.prompt or "", row.node or "", row.tenant or "")
                 for row in rows]
        _print_table(("time", "model", "outcome", "size", "prompt", "node", "tenant"), shown)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from comfy_depot.serve import Library, run

    if not arguments.directory.is_dir():
        raise ValueError(f"'{arguments.directory}' is no folder. Name the folder that holds the models.")
    token = None
    if arguments.token_env is not None:
        token = os.environ.get(arguments.token_env)
        if not token:
            raise ValueError(f"The variable {arguments.token_env} is empty. Put the token into it.")
    library = Library(arguments.directory, token=token, rate=arguments.rate)
    run(library, arguments.listen, arguments.port, on_start=lambda url: print(
        f"Serving {library.directory} at {url} (manifest: {url}/manifest.json). Ctrl+C stops.", flush=True))
    return 0


def human_size(size: int | None) -> str:
    """"4.2 GiB" of a number of bytes; empty when it is not known."""
    if size is None:
        return ""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{size} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)

"""`python -m comfy_depot`: the depot by hand.

    list      every known model and its tier
    search    models by name, hash or base model
    fetch     download models now
    verify    every mistake in the manifests; also whether files on the disk are what the manifests say
    refresh   fetch the lists of models that are kept elsewhere
    import-templates  write the manifest of the models that the official templates name
    offers    models that workflows name, and which of them are taken up
    clean     evict what was not used for long, or what is too much for a size
    evict     evict models by name
    pin       keep models on the disk, or in memory; without a name: show which are kept
    unpin     let pinned models go again when room is needed
    replay    what each eviction policy would have fetched, from a trace of uses
    warm      bring models that nobody waits for yet
    predict   how well the next model would have been foretold, from a trace of uses
    stats     counts and bytes: models, downloads ahead, predictions and their waste
    log       which model was used when
    serve     offer a folder of models over HTTP
    transfers what a running server downloads now; stop it

Exit status: 0 done, 1 something is wrong (it is printed), 2 the command line is wrong, 130 interrupted,
141 the reader of the output has gone.
Tables are for terminals; into a pipe go plain lines with tabs, and `--json` prints JSON everywhere.
The commands live in `commands/`, a module per topic.
"""

from __future__ import annotations

import argparse
import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Sequence

from comfy_depot import access, options
from comfy_depot.commands import ahead, eviction, lists, models, search, server, serving
from comfy_depot.errors import DepotError

TOPICS = (
    models,
    search,
    lists,
    eviction,
    ahead,
    serving,
    server,
)


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
        print(f"Error: {_reason(error)}", file=sys.stderr)
        return 1
    except sqlite3.Error as error:
        print(f"Error: the access log cannot be used ({error}). Look after {access.FILE_NAME} and its rights "
              "in the depot's folder (--depot-dir).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What has arrived is kept; the next fetch goes on from there.", file=sys.stderr)
        return 130


def _reason(error: Exception) -> str:
    """What is wrong; of the system's errors with the path, without their number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}. Correct the path or its rights."
    return str(error)


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
        usage="python -m comfy_depot COMMAND [options]; all of both: python -m comfy_depot --help",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", prog="python -m comfy_depot")

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    for topic in TOPICS:
        topic.add_commands(add)
    return parser

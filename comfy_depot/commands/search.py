"""The command that finds models: search."""

from __future__ import annotations

import argparse

from comfy_depot.commands import AddCommand
from comfy_depot.commands.opening import open_depot
from comfy_depot.commands.printing import human_size, print_json, print_table
from comfy_depot.search import DEFAULT_RESULTS, Wanted, search


def add_commands(add: AddCommand) -> None:
    """Add the commands of this topic."""
    command = add("search", _search, "find models by name, hash or base model")
    command.add_argument("words", nargs="*", metavar="WORD", help="words that stand in the name")
    command.add_argument("--hash", default="", metavar="DIGITS",
                         help="beginning of the sha256; the first ten digits are AutoV2")
    command.add_argument("--base-model", default="", metavar="NAME",
                         help='such as sdxl, "flux schnell", "wan 2.2", or the words of the file itself')
    command.add_argument("--folder", default="", metavar="TYPE", help="one folder type only, such as loras")
    command.add_argument("--limit", type=int, default=DEFAULT_RESULTS, metavar="N",
                         help=f"show so many (default: {DEFAULT_RESULTS})")
    command.add_argument("--offset", type=int, default=0, metavar="N", help="leave out the first N")
    command.add_argument("--metadata", action="store_true", help="with --json: the files' own metadata")


def _search(arguments: argparse.Namespace) -> int:
    with open_depot(arguments) as depot:
        wanted = Wanted(
            " ".join(arguments.words), arguments.hash, arguments.base_model, arguments.folder)
        if wanted.sha256 or wanted.base_model:
            depot.index.indexer.update()
        results = search(depot, wanted, limit=arguments.limit, offset=arguments.offset,
                         with_metadata=arguments.metadata)
    if arguments.json:
        print_json(results.as_json())
    else:
        print_table(("folder", "name", "tier", "size", "base model", "sha256"), [
            (one.folder, one.name, one.tier, human_size(one.size),
             " ".join(filter(None, (one.base_model, one.variant))), (one.sha256 or "")[:10])
            for one in results.models])
    return 0 if results.total else 1

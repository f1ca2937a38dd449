"""The command that asks a running server: transfers."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from comfy_depot.commands import AddCommand
from comfy_depot.commands.printing import human_size, print_json, print_table

SECONDS = 10.0
_MOST_BYTES = 16 << 20


def add_commands(add: AddCommand) -> None:
    """Add the command of this topic."""
    command = add("transfers", _transfers, "the downloads of a running server; stop some of them")
    command.add_argument("--stop", action="append", default=[], metavar="ID",
                         help="stop this one for everybody who waits; what has arrived is kept")
    command.add_argument("--server", default="http://127.0.0.1:8188", metavar="URL",
                         help="default: http://127.0.0.1:8188")


def _transfers(arguments: argparse.Namespace) -> int:
    errors = []
    for number in arguments.stop:
        answer = _ask(arguments.server, f"/depot/transfers/{quote(number, safe='')}", "DELETE")
        if "error" in answer:
            errors.append(str(answer["error"]["message"]))
    found = _ask(arguments.server, "/depot/transfers", "GET")
    if "error" in found:
        raise ValueError(found["error"]["message"])
    if arguments.json:
        print_json({"transfers": found["transfers"], "errors": errors})
    else:
        print_table(("id", "model", "state", "done", "of", "per second", "source"), [(
            one["id"], f"{one['folder']}/{one['name']}", one["state"], human_size(one["bytes_done"]),
            human_size(one["bytes_total"]), human_size(one["bytes_per_second"]), one["source"] or "",
        ) for one in found["transfers"]])
    for message in errors:
        print(f"Error: {message}", file=sys.stderr)
    return 1 if errors else 0


def _ask(server: str, path: str, method: str) -> dict[str, Any]:
    """The JSON of a route; ValueError when nothing of ours answers there."""
    if urlsplit(server).scheme not in ("http", "https") or not urlsplit(server).hostname:
        raise ValueError(f"'{server}' is no address of a server. Write --server http://127.0.0.1:8188.")
    request = urllib.request.Request(server.rstrip("/") + path, method=method)  # noqa: S310 - checked above
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        try:
            with opener.open(request, timeout=SECONDS) as response:
                answer = json.loads(response.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                answer = json.loads(error.read(_MOST_BYTES))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"No depot answers at {server} ({reason}). Start the server, or name another with "
                         "--server. Files that stand on the disk: python -m comfy_depot list") from None
    if not isinstance(answer, dict) or not answer.keys() & {"transfers", "cancelled", "error"}:
        raise ValueError(f"{server} answers, but not as a depot does. Name another with --server.")
    return answer

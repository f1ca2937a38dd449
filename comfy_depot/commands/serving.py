"""The command that offers a folder of models over HTTP: serve."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from comfy_depot import options
from comfy_depot.commands import AddCommand


def add_commands(add: AddCommand) -> None:
    """Add the command of this topic."""
    command = add("serve", _serve, "offer a folder of models over HTTP, read-only")
    command.add_argument("directory", type=Path, metavar="DIR", help="the folder, with one per type in it")
    command.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    command.add_argument("--port", type=options.parse_port, default=8189,
                         help="default: 8189; 0 takes a free one")
    command.add_argument("--rate", type=options.parse_size, default=0, metavar="BYTES",
                         help="bytes per second, all connections together")
    command.add_argument("--token-env", metavar="NAME", help="environment variable with the token to ask for")


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
    try:
        run(library, arguments.listen, arguments.port, on_start=lambda url: print(
            f"Serving {library.directory} at {url} (manifest: {url}/manifest.json). Ctrl+C stops.",
            flush=True))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ValueError(f"Port {arguments.port} of {arguments.listen} cannot be opened ({why}). "
                         "Choose others: --port 0 --listen 127.0.0.1.") from None
    return 0

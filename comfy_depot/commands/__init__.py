"""The commands of `python -m comfy_depot`, a module per topic.

A topic has `add_commands(add)`, which calls `add(name, function, summary)` once per command and gives the
parser that comes back its arguments. The function takes the parsed command line and returns the exit status;
what it raises as DepotError, OSError or ValueError is printed as "Error: ...", status 1. A new topic is one
line in `TOPICS` of `cli.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Protocol


class AddCommand(Protocol):
    """Adds a command: its parser."""

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], int], summary: str
    ) -> argparse.ArgumentParser: ...

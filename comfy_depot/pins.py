"""Models that somebody wants to stay on the disk, whatever happens: `pins.json` in the state folder.

Every process that shares the folder sees a change at once: the file is read again when it has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from comfy_depot.errors import DepotError
from comfy_depot.locks import file_lock
from comfy_depot.policies import Key
from comfy_depot.replacing import replace_file

FILE_NAME = "pins.json"


class PinsUnreadable(DepotError):
    """The file of pins is damaged; nothing may be evicted on a guess."""


class Pins:
    """The pins of one state folder. Every method may be called from any thread."""

    def __init__(self, state_directory: Path) -> None:
        self._file = state_directory / FILE_NAME

    def all(self) -> frozenset[Key]:
        """(folder type, name) of each pinned model; PinsUnreadable rather than too few of them."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return frozenset((str(folder), str(name)) for folder, name in content)
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError) as error:
            raise PinsUnreadable(
                f"The list of pinned models {self._file} cannot be read ({error}), so nothing is evicted. "
                "Correct it (JSON: a list of [folder, name]), or delete it and pin the models again."
            ) from error

    def change(self, *, add: Iterable[Key] = (), remove: Iterable[Key] = ()) -> None:
        """Pin and unpin; harmless where nothing changes."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(self._file.with_suffix(".lock"), on_wait=lambda: None, pause=0.01):
            before = self.all()
            after = before.union(add).difference(remove)
            if after == before:
                return
            replace_file(self._file, json.dumps(sorted(after), indent=1), durable=True)

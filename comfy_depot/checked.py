"""Which large manifests were found in order before, so that a start does not check 100,000 entries again.

`checked_manifests.json` in the state folder holds, by the sha256 of a manifest's bytes, the entries that were
refused. All others have passed every check, and need only be put into their form. It holds nothing else of
a manifest, so no url that may carry a token is written down twice. What was found out counts for the very
program that found it out: another version of the checks begins anew, and so does a file that is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path

from comfy_depot import layout, manifest, schemes
from comfy_depot.manifest import Refused
from comfy_depot.replacing import replace_file

log = logging.getLogger(__name__)

FILE_NAME = "checked_manifests.json"
MOST_KEPT = 64
MOST_REFUSED = 1000
"""A manifest with more mistakes is checked at each start."""


class CheckedManifests:
    """What was found out about manifests, in one state folder. Its owner holds a lock around every method."""

    def __init__(self, state_dir: Path) -> None:
        self.file = state_dir / FILE_NAME
        self._program = _program()
        self._known: dict[str, Refused] | None = None

    def refused_of(self, digest: str) -> Refused | None:
        """The entries, as (folder, name), that were refused of a manifest; None where it was not checked."""
        if self._known is None:
            self._known = self._read()
        return self._known.get(digest)

    def note(self, digest: str, refused: Refused) -> None:
        """A manifest was checked. A disk that cannot be written costs the time of checking again."""
        if self._program is None or len(refused) > MOST_REFUSED:
            return
        known = {**self._read(), digest: refused}
        self._known = dict(list(known.items())[-MOST_KEPT:])
        content = json.dumps({"program": self._program, "refused": {
            digest: sorted(refused) for digest, refused in self._known.items()}})
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.file, f"{_digest(content)}\n{content}\n", tag=str(os.getpid()))

    def _read(self) -> dict[str, Refused]:
        try:
            digest, _, content = self.file.read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read (%s). The manifests are checked again.", self.file, error)
            return {}
        if _digest(content.rstrip("\n")) != digest:
            log.warning("%s is damaged. The manifests are checked again, and it is written anew.", self.file)
            return {}
        found = json.loads(content)
        if found["program"] != self._program:
            return {}
        return {digest: frozenset((folder, name) for folder, name in refused)
                for digest, refused in found["refused"].items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _program() -> str | None:
    """What changes when any check changes: the source of the modules that check."""
    digest = hashlib.sha256()
    try:
        for module in (manifest, schemes, layout):
            digest.update(Path(str(module.__file__)).read_bytes())
    except OSError:  # a program without its sources
        return None
    return digest.hexdigest()

"""A model that is wanted may be on this machine already, under another name: then no byte of it is fetched.

The index knows files by their sha256 (`digests.py`), and that counts while the file has the stamp for which
it was noted. What is taken is a reflink or a copy, never a hard link: the file may be the user's own, and
whoever writes into one name of a hard link changes the other. It is read again and compared, unless it is a
reflink of a file to which nothing has happened since its sha256 was noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from comfy_depot import hashing
from comfy_depot.digests import Digests, KnownFile
from comfy_depot.errors import WrongContent
from comfy_depot.manifest import Entry


def find(digests: Digests, entry: Entry, destination: Path) -> Iterator[KnownFile]:
    """The files that hold what an entry promises, those on the disk of `destination` first."""
    if entry.sha256 is None:
        return
    device = os.stat(destination.parent).st_dev
    found = digests.files_with(entry.sha256)
    for file in sorted(found, key=lambda one: (one.stamp.device != device, one.path)):
        if entry.size in (None, file.stamp.size) and file.path != destination:
            yield file


def check(partial: Path, entry: Entry, source: KnownFile, how: str, *, digests: Digests,
          stop: Callable[[], None]) -> None:
    """Raise WrongContent unless the partial is what the entry promises; `stop` may raise to stop.

    A file that is not what was noted of it is forgotten: somebody has written to it under its old date.
    """
    if not (how == "reflink" and source.is_untouched):
        found = hashing.sha256_file(partial, check=stop)
        if found != (entry.sha256 or "").lower():
            digests.forget(source.stamp)
            raise WrongContent(f"'{entry.key}': {source.path} had the sha256 {entry.sha256} and has {found} "
                               "now.")
    if entry.name.endswith(".safetensors"):
        hashing.check_safetensors(partial, entry.key)

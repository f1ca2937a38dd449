"""Whether the files on the disk are what the manifests say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from comfy_depot import hashing
from comfy_depot.eviction import Stamp

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

_ADVICE = ("Remove the file to have it fetched again, or run python -m comfy_depot fetch --replace {}, or "
           "correct the manifest.")
_OUTDATED = ("is outdated: it was fetched, and the manifest names other bytes now. They are fetched when a "
             "node needs them, or by python -m comfy_depot fetch {}")


def wrong_files(
    depot: Depot, *, with_hashes: bool, on_file: Callable[[str, int], None] | None = None
) -> Iterator[str]:
    """A sentence per file that is not what its manifest says: the size, and with hashes the sha256.

    `on_file(path, size)` is told of each file before it is read.
    """
    for entry in depot.catalogue:
        path = depot.local_path(entry.folder, entry.name)
        if path is None:
            continue
        advice = _ADVICE.format(quote(entry.key))
        stamp = Stamp.of(os.stat(path))
        if depot.outdated.stamp_of(entry) is not None:
            yield f"{path}: {_OUTDATED.format(quote(entry.key))}"
        elif entry.size is not None and stamp.size != entry.size:
            yield f"{path}: has {stamp.size} bytes, and the manifest says {entry.size}. {advice}"
        elif with_hashes and entry.sha256 is not None:
            if on_file is not None:
                on_file(path, stamp.size)
            found = hashing.sha256_file(Path(path))
            depot.digests.note(stamp, found)
            if found != entry.sha256:
                yield f"{path}: has sha256 {found}, and the manifest says {entry.sha256}. {advice}"

"""The models on the disk as eviction sees them: last use, and why each one must stay, if it must.

A file may go only when a manifest can bring exactly it back: it stands where the depot puts what it fetches,
and has the size that the manifest (or, where that gives none, the log of its download) says. And it must
stay while it is in use. An unfinished download that nobody goes on with counts as a model of its own, because
the one that it belongs to may have left the manifests long ago.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_depot import access, inventory, layout, open_files, places
from comfy_depot.access import LastUse
from comfy_depot.errors import UnsafeName
from comfy_depot.eviction import LocalModel, Stamp
from comfy_depot.manifest import Entry
from comfy_depot.policies import Key

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

SECONDS_BETWEEN_LOOKS = 0.5
OUTDATED = "the manifest names other bytes now, and until these are here it is the only copy"
Entries = Mapping[str, Mapping[str, Entry]]


def local_models(depot: Depot) -> list[LocalModel]:
    """Every model file on the disk, once, with why it must stay."""
    depot.access.flush()
    uses = access.last_uses(depot.options.depot_dir)
    busy = Busy(depot)
    entries = depot.catalogue.snapshot().entries
    found = []
    for path, keys in _keys_by_path(depot).items():
        try:
            model = _judge(depot, entries, path, keys, uses)
        except OSError:  # gone since the folder was read
            continue
        found.append(model if model.kept else replace(model, kept=busy.reason(model)))
    found += [replace(partial, kept=busy.reason(partial)) for partial in _unfinished(depot)]
    return sorted(found, key=lambda model: model.key)


class Busy:
    """What is in use at one moment."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._coming = {os.path.realpath(transfer.destination) for transfer in depot.active_transfers()}
        self._named = depot.host.models_in_use()
        self._pinned = depot.pins.all()
        depot.hasher.stand_aside()  # what is read for its sha256 only is not in use
        self._open = open_files.look()

    def reason(self, model: LocalModel) -> str | None:
        """Why a model must stay because of what happens now, or None."""
        file = layout.owner_of(Path(model.path))
        lock = layout.Layout(self._depot.options.depot_dir).place(file).lock
        if os.path.realpath(file) in self._coming or self._open.holder(lock) is not None:
            return "it is being downloaded"
        if not self._pinned.isdisjoint({model.key, *model.aliases}):
            return "it is pinned"
        if not self._named.isdisjoint({model.key, *model.aliases}):
            return "a running or queued prompt names it"
        if self._depot.residents.is_resident(model.stamp):
            return "it is in memory"
        holder = self._open.holder(model.path)
        if holder is not None:
            return f"{open_files.name_of(holder)} has it open or mapped into memory"
        return None


def recheck(depot: Depot) -> Callable[[LocalModel], str | None]:
    """For the moment of deleting: why a model must stay, from a look that is at most half a second old."""
    looked_at = float("-inf")
    busy: Busy

    def why_busy(model: LocalModel) -> str | None:
        nonlocal looked_at, busy
        if time.monotonic() - looked_at > SECONDS_BETWEEN_LOOKS:
            busy, looked_at = Busy(depot), time.monotonic()
        return busy.reason(model)

    return why_busy


def _keys_by_path(depot: Depot) -> dict[str, list[Key]]:
    """Each model file with its (folder type, name) pairs: types can share a folder."""
    keys: dict[str, list[Key]] = {}
    real_paths: dict[str, str] = {}
    for kind in sorted(places.table()):
        if kind not in inventory.NOT_MODELS:
            for file in inventory.files_on_disk(depot, kind):
                directory, base = os.path.split(file.path)
                if directory not in real_paths:
                    real_paths[directory] = os.path.realpath(directory)
                keys.setdefault(os.path.join(real_paths[directory], base), []).append((kind, file.name))
    return keys


def _unfinished(depot: Depot) -> Iterator[LocalModel]:
    """Partials and bad copies, whether a manifest still names their model or not: nothing needs them.

    An archive is never more than a partial.
    """
    seen = set()
    archives = (layout.BUNDLES, ([str(depot.options.depot_dir / layout.BUNDLES)], ()))
    for kind, (directories, _) in [*sorted(places.table().items()), archives]:
        for directory in directories if kind not in inventory.NOT_MODELS else ():
            for path in _hidden_files(depot, directory):
                if layout.owner_of(path) != path and os.path.realpath(path) not in seen:
                    seen.add(os.path.realpath(path))
                    with contextlib.suppress(OSError):  # gone since
                        yield _unfinished_one(depot, kind, directory, path)


def _hidden_files(depot: Depot, directory: str) -> Iterator[Path]:
    """The files in the hidden folders below a model folder."""
    root, forest = places.same_directory(directory), depot.index.forest
    with forest.lock:
        prefixes = [folder.prefix for folder in forest.tree(root).root.with_all_below()]
    for prefix in prefixes:
        hidden = os.path.join(directory, prefix, layout.HIDDEN)
        with contextlib.suppress(OSError):  # most folders have none
            for name in os.listdir(hidden):
                if not os.path.isdir(os.path.join(hidden, name)):
                    yield Path(hidden, name)


def _unfinished_one(depot: Depot, kind: str, directory: str, path: Path) -> LocalModel:
    owner, status = layout.owner_of(path), os.lstat(path)
    place = layout.Layout(depot.options.depot_dir).place(owner)
    beside = (place.control, place.record) if path.suffix == ".part" else ()
    return LocalModel(
        kind, path.relative_to(directory).as_posix(), str(path), Stamp.of(status), status.st_mtime,
        aliases=frozenset({(kind, owner.relative_to(directory).as_posix())}),
        occupied=status.st_blocks * 512, beside=tuple(map(str, beside)),
    )


def _judge(
    depot: Depot, entries: Entries, path: str, keys: list[Key], uses: Mapping[Key, LastUse]
) -> LocalModel:
    """A file with why it must stay, apart from what happens now."""
    status = os.lstat(path)
    key: Key = keys[0]
    kept: str | None = "no manifest names it, so nothing could bring it back"
    for entry in _entries_of(entries, keys):
        key = (entry.folder, entry.name)
        is_outdated = depot.outdated.stamp_of(entry) == Stamp.of(status)
        kept = OUTDATED if is_outdated else _why_not_own(entry, path, status.st_size, uses.get(key))
        if kept in (None, OUTDATED):
            break
    if stat.S_ISLNK(status.st_mode):
        kept = "it is a symbolic link"
    times = [status.st_mtime, *(uses[alias].time for alias in keys if alias in uses)]
    return LocalModel(
        *key, path, Stamp.of(status), max(times), is_own=kept in (None, OUTDATED), kept=kept,
        occupied=0 if status.st_nlink > 1 else None,  # a library has it too: evicting it frees nothing
        aliases=frozenset(keys) - {key},
    )


def _entries_of(entries: Entries, keys: list[Key]) -> Iterator[Entry]:
    for folder, name in keys:
        entry = entries.get(folder, {}).get(name)
        if entry is not None:
            yield entry


def _why_not_own(entry: Entry, path: str, size: int, use: LastUse | None) -> str | None:
    """Why the depot could not bring back exactly this file, or None when it could."""
    directory = places.directory_for(entry.folder)
    try:
        destination = None if directory is None else layout.destination(Path(directory), entry.name)
    except UnsafeName:  # a link leads out of the folder
        destination = None
    if destination != Path(path):
        return f"it is not in the folder where the depot puts '{entry.folder}' files"
    if entry.size is not None:
        if size != entry.size:
            return f"it has {size} bytes and the manifest says {entry.size}, so it is another file"
        return None
    if use is None or use.bytes_fetched is None:
        return ('the manifest gives no size and the log no download of it, so it may be a file of yours. '
                'Add "size" to the manifest')
    if size != use.bytes_fetched:
        return f"it has {size} bytes and {use.bytes_fetched} were downloaded, so it is another file"
    return None

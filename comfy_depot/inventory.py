"""Every model that is known, with its tier: what `list`, `GET /depot/models` and `stats` show."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_depot import access, places, schemes
from comfy_depot.forest import Forest
from comfy_depot.manifest import Entry

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

TIERS = ("cloud", "downloading", "disk")
NOT_MODELS = frozenset({"custom_nodes", "datasets", "configs", "tokenizers"})


@dataclass(frozen=True)
class Model:
    """A known model. `size` is the file's size on the disk, else what the manifest says."""

    folder: str
    name: str
    tier: str
    size: int | None = None
    in_manifest: bool = False
    source: str | None = None
    """The host of its first url."""
    group: str | None = None
    license: str | None = None
    gated: bool = False


def as_json(model: Model) -> dict[str, Any]:
    """A model as the routes and `--json` give it."""
    return asdict(model)


def models(depot: Depot, *, folder: str | None = None, tier: str | None = None) -> list[Model]:
    """Every known model, sorted by folder type and name; ValueError for a type that is not known."""
    wanted = None if folder is None else folder_paths.map_legacy(folder)
    if wanted is not None and wanted not in places.table():
        raise ValueError(places.unknown_type(wanted))
    entries = depot.catalogue.snapshot().entries
    coming = {(one.entry.folder, one.entry.name) for one in depot.active_transfers()}
    found = []
    for kind in sorted(set(places.table()) | set(entries)):
        if kind in NOT_MODELS and kind not in entries or wanted not in (None, kind):
            continue
        found.extend(_models_of(depot, kind, entries.get(kind, {}).values(), coming))
    return [model for model in found if tier is None or model.tier == tier]


def _models_of(
    depot: Depot, kind: str, entries: Iterable[Entry], coming: set[tuple[str, str]]
) -> list[Model]:
    sizes = {file.name: file.size for file in files_on_disk(depot, kind)}
    named = {entry.name: entry for entry in entries}
    found = []
    for name in sorted(sizes.keys() | named.keys()):
        tier = "disk" if name in sizes else "downloading" if (kind, name) in coming else "cloud"
        entry = named.get(name)
        if entry is None:
            found.append(Model(kind, name, tier, sizes[name]))
        else:
            size, source = sizes.get(name, entry.size), schemes.host_of(entry.urls[0])
            found.append(Model(
                kind, name, tier, size, True, source, entry.group, entry.license, entry.gated
            ))
    return found


@dataclass(frozen=True)
class File:
    """A model file; `name` is written with "/"."""

    name: str
    path: str
    size: int


def files_on_disk(depot: Depot, kind: str) -> Iterator[File]:
    """Each file of a type, from memory. Where folders hold the same name, the one that counts comes last."""
    directories, extensions = places.table().get(kind, ([], ()))
    for directory in reversed(list(directories)):
        sizes = _sizes_below(depot.index.forest, places.same_directory(directory))
        for name in folder_paths.filter_files_extensions(list(sizes), extensions):
            yield File(name.replace(os.sep, "/"), os.path.join(directory, name), sizes[name])


def _sizes_below(forest: Forest, root: str) -> dict[str, int]:
    """{name: size} of the files below a folder; a link to nothing is none."""
    forest.learn_facts([root])
    with forest.lock:
        return {folder.prefix + name: facts.size for folder in forest.tree(root).root.with_all_below()
                for name, facts in folder.files.items() if facts is not None}


def stats(depot: Depot) -> dict[str, Any]:
    """Counts and bytes per tier, transfers, accesses, free disk space, models in memory."""
    tiers: dict[str, dict[str, int]] = {tier: {"models": 0, "bytes": 0} for tier in TIERS}
    for model in models(depot):
        tiers[model.tier]["models"] += 1
        tiers[model.tier]["bytes"] += model.size or 0
    depot.access.flush()
    return {
        "tiers": tiers,
        "transfers": len(depot.active_transfers()),
        "accesses": access.count(depot.options.depot_dir),
        "problems": len(depot.catalogue.snapshot().problems),
        "bytes_free": _bytes_free(Path(folder_paths.models_dir)),
        "resident": depot.residents.stats(),
        "memory": {**depot.residents.memory_stats(), "budget": depot.pinning.budget,
                   "devices": depot.host.memory_report(), "patched": dict(depot.host.patched_weights())},
        "preload": depot.preload.stats(),
        "warm": depot.warm.stats(),
        "predict": depot.warm.foresight.stats(time.time()),
        "hash": depot.hasher.stats(),
    }


def _bytes_free(directory: Path) -> int:
    """Free bytes on the disk of a folder that may not be there yet."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    return shutil.disk_usage(existing).free

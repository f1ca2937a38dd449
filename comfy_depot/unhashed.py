"""Which model files have no known sha256, and in which order it is worth to compute them.

Only files on disks of this machine: to read a library over the network costs others something.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import folder_paths
from comfy_depot import access, inventory, places
from comfy_depot.database import numbers_of
from comfy_depot.eviction import Stamp
from comfy_depot.inotify import LOCAL_FILE_SYSTEMS, file_system
from comfy_depot.policies import Key

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

ON_DISKS_HERE = LOCAL_FILE_SYSTEMS | frozenset(
    "apfs erofs exfat fuseblk hfsplus iso9660 jfs nilfs2 ntfs ntfs3 reiserfs squashfs udf ufs vfat".split())
"""Of these kinds of file systems the bytes are on a disk of this machine; "fuseblk" is NTFS mostly."""


@dataclass(frozen=True)
class ModelFile:
    """A model file, by one of its names."""

    folder: str
    name: str
    """With "/"."""
    path: str
    stamp: Stamp
    last_used: float = 0.0
    """Seconds since 1970; 0 when the access log does not know it."""


@dataclass
class Library:
    """The model files on local disks, each content once."""

    files_known: int
    bytes_known: int
    unhashed: dict[Stamp, ModelFile]
    """In the order in which they are to be read."""

    def learn(self, stamp: Stamp) -> None:
        """The sha256 of this content is known now."""
        if self.unhashed.pop(stamp, None) is not None:
            self.files_known += 1
            self.bytes_known += stamp.size


def version(depot: Depot) -> tuple[int, ...]:
    """Another value when model files came, went or changed, as far as the kernel tells."""
    forest = depot.index.forest
    with forest.lock:
        return tuple(forest.tree(root).facts_version for root in _roots())


def survey(depot: Depot) -> Library:
    """What there is now."""
    files: dict[Stamp, ModelFile] = {}
    names: set[Key] = set()
    is_here = _DisksHere()
    for file in _model_files(depot):
        names.add((file.folder, file.name))
        if file.stamp not in files and is_here(file):
            files[file.stamp] = file
    hashed = depot.index.database.with_any_sha256()
    known = [stamp.size for stamp in files if numbers_of(stamp) in hashed]
    depot.access.flush()
    uses = access.last_uses(depot.options.depot_dir)
    unhashed = [replace(file, last_used=uses[file.folder, file.name].time)
                if (file.folder, file.name) in uses else file
                for stamp, file in files.items() if numbers_of(stamp) not in hashed]
    wanted_sizes = {entry.size for entry in depot.catalogue
                    if entry.sha256 and entry.size and (entry.folder, entry.name) not in names}
    ordered = {file.stamp: file for file in in_order(unhashed, wanted_sizes)}
    return Library(len(known), sum(known), ordered)


def in_order(files: Iterable[ModelFile], wanted_sizes: Collection[int]) -> list[ModelFile]:
    """First those that have the size of a missing model whose sha256 a manifest gives: one of them may be
    that model, and save its download. Then those that are used, the latest first. Then the others, small ones
    first, so that most are known soon.
    """
    def place(file: ModelFile) -> tuple[int, float, str]:
        if file.stamp.size in wanted_sizes:
            return 0, file.stamp.size, file.path
        if file.last_used:
            return 1, -file.last_used, file.path
        return 2, file.stamp.size, file.path

    return sorted(files, key=place)


def _roots() -> list[str]:
    return [places.same_directory(directory) for kind, (directories, _) in sorted(places.table().items())
            if kind not in inventory.NOT_MODELS for directory in directories]


def _model_files(depot: Depot) -> Iterator[ModelFile]:
    """All that the lists of models show and that is on a disk."""
    forest = depot.index.forest
    for kind, (directories, extensions) in sorted(places.table().items()):
        for root in map(places.same_directory, directories) if kind not in inventory.NOT_MODELS else ():
            forest.learn_facts([root])
            with forest.lock:
                stamps = {folder.prefix + name: facts.stamp
                          for folder in forest.tree(root).root.with_all_below()
                          for name, facts in folder.files.items() if facts is not None}
            for name in folder_paths.filter_files_extensions(list(stamps), extensions):
                yield ModelFile(kind, name.replace(os.sep, "/"), os.path.join(root, name), stamps[name])


class _DisksHere:
    """Tells whether a file is on a disk of this machine; each device is asked once."""

    def __init__(self, kind_of: Callable[[str], str | None] = file_system) -> None:
        self._kind_of = kind_of
        self._devices: dict[int, bool] = {}

    def __call__(self, file: ModelFile) -> bool:
        device = file.stamp.device
        if device not in self._devices:
            self._devices[device] = self._kind_of(file.path) in ON_DISKS_HERE
        return self._devices[device]

"""Find models by name, hash and base model, on the disk and in the manifests.

Names come from the lists, which are right at every question. What is known of contents comes from the
database of the index, and counts only where the file on the disk still has the stamp that it was noted for.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_depot import inventory, places, schemes
from comfy_depot.base_models import Asked, Model, asked_for, by_words
from comfy_depot.database import Details, Numbers, numbers_of
from comfy_depot.errors import DepotError
from comfy_depot.eviction import Stamp
from comfy_depot.manifest import Entry
from comfy_depot.policies import Key

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

FEWEST_DIGITS = 4
MOST_RESULTS = 1000
DEFAULT_RESULTS = 100
FROM_GROUP = "group"


class BadSearch(DepotError):
    """A search that cannot be carried out; the message says what to write."""


@dataclass(frozen=True)
class Wanted:
    """What to look for; a model must be all that is given."""

    name: str = ""
    """Words that stand in the name, in any order, whatever their case."""
    sha256: str = ""
    """The first digits; the first ten are what others call AutoV2."""
    base_model: str = ""
    """A family such as "sdxl", perhaps with a variant ("flux schnell"), or words that the file itself uses.
    """
    folder: str = ""

    def __post_init__(self) -> None:
        if not (self.name.split() or self.sha256 or self.base_model.strip()):
            raise BadSearch("Nothing to search for. Give a name, a hash, a base model, or several of them.")
        if self.sha256 and not re.fullmatch(rf"[0-9a-fA-F]{{{FEWEST_DIGITS},64}}", self.sha256):
            raise BadSearch(f"'{self.sha256[:80]}' is no beginning of a sha256. Write {FEWEST_DIGITS} to 64 "
                            "hexadecimal digits; AutoV2 is the first ten.")
        if self.folder and folder_paths.map_legacy(self.folder) not in places.table():
            raise BadSearch(f"There is no folder type '{self.folder[:80]}'. "
                            f"Known: {', '.join(sorted(places.table()))}.")


@dataclass(frozen=True)
class Found:
    """A model that was found. What is not known is None."""

    folder: str
    name: str
    tier: str
    size: int | None = None
    sha256: str | None = None
    base_model: str | None = None
    variant: str | None = None
    """What of the family."""
    base_model_from: str | None = None
    """The field of the file's metadata, "shapes" of its tensors, or the manifest's "group"."""
    architecture: str | None = None
    tensors: int | None = None
    dtypes: str | None = None
    problem: str | None = None
    """Why the file's header cannot be read."""
    in_manifest: bool = False
    source: str | None = None
    """The host of its first url."""
    metadata: Mapping[str, str] | None = None
    """`__metadata__` of a safetensors file, long values cut; only where it is asked for."""


@dataclass(frozen=True)
class Results:
    """A page of what was found."""

    models: tuple[Found, ...]
    total: int
    is_complete: bool
    """Whether the index has looked at all files by now; names are always complete."""

    def as_json(self) -> dict[str, Any]:
        """The results as the route and `--json` give them."""
        return {"models": [asdict(model) for model in self.models], "total": self.total,
                "is_complete": self.is_complete}


def search(
    depot: Depot, wanted: Wanted, *, limit: int = DEFAULT_RESULTS, offset: int = 0,
    with_metadata: bool = False,
) -> Results:
    """The models that are all that is wanted, by folder type and name."""
    if not 1 <= limit <= MOST_RESULTS:
        raise BadSearch(f"limit is {limit}. Give 1 to {MOST_RESULTS}, and offset for the next ones.")
    if offset < 0:
        raise BadSearch(f"offset is {offset}. Give 0 or more.")
    disk = _Disk(depot)
    keys = _Search(depot, wanted, disk).keys()
    models = tuple(_found(depot, disk, keys[offset:offset + limit], with_metadata=with_metadata))
    is_complete = depot.index.indexer.is_complete or not (wanted.sha256 or wanted.base_model)
    return Results(models, len(keys), is_complete)


class _Disk:
    """The files of all types as they are now."""

    def __init__(self, depot: Depot) -> None:
        self._forest = depot.index.forest
        roots = {kind: [places.same_directory(directory) for directory in directories]
                 for kind, (directories, _) in list(places.table().items())}
        self._trees = {kind: [self._forest.tree(root) for root in found]
                       for kind, found in roots.items() if kind not in inventory.NOT_MODELS}
        self._roots = roots
        self._others = {kind: found for kind, found in roots.items() if kind in inventory.NOT_MODELS}

    def types_of(self, folder: str) -> list[tuple[str, str]]:
        """The types to which the files of a folder belong, and what stands before their names there."""
        return [(kind, folder[len(root) + 1:].replace(os.sep, "/") + "/" if folder != root else "")
                for kind, roots in self._roots.items() for root in roots
                if folder == root or folder.startswith(root + os.sep)]

    def stamp(self, kind: str, name: str) -> Stamp | None:
        """The stamp of the file that counts for a model; None where it is on no disk."""
        local = name.replace("/", os.sep)
        for tree in self._trees.get(kind, ()):
            with self._forest.lock:
                place = tree.place(local)
                facts = None if place is None else place[0].files[place[1]]
            stamp = facts.stamp if facts else None if place is None else _stamp_at(tree.root.path, local)
            if stamp is not None:
                return stamp
        stamps = (_stamp_at(root, local) for root in self._others.get(kind, ()))
        return next(filter(None, stamps), None)


def _stamp_at(root: str, local: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(os.path.join(root, local)))
    except OSError:  # gone, or a link to nothing
        return None


class _Search:
    """One search under way."""

    def __init__(self, depot: Depot, wanted: Wanted, disk: _Disk) -> None:
        self._depot, self._wanted, self._disk = depot, wanted, disk
        self._entries = depot.catalogue.snapshot().entries
        kinds = [folder_paths.map_legacy(wanted.folder)] if wanted.folder else sorted(
            set(places.table()) | set(self._entries))
        self._kinds = [kind for kind in kinds
                       if kind not in inventory.NOT_MODELS or kind in self._entries]

    def keys(self) -> list[Key]:
        """All that was found, sorted."""
        wanted, database = self._wanted, self._depot.index.database
        found = self._named() if wanted.name.split() else None
        if wanted.sha256:
            digits = wanted.sha256.lower()
            same = self._keys_of(database.with_sha256(digits)) | self._cloud(
                lambda entry: (entry.sha256 or "").startswith(digits))
            found = same if found is None else found & same
        words = wanted.base_model.strip()
        if words:
            asked = asked_for(words)
            same = self._keys_of(database.of_base_model(words, asked)) | self._cloud(
                lambda entry: _is_of_group(entry.group, words, asked))
            found = same if found is None else found & same
        return sorted(found or ())

    def _named(self) -> set[Key]:
        found: set[Key] = set()
        for kind in self._kinds:
            names = _names(self._depot, kind, self._entries.get(kind, {}))
            for word in self._wanted.name.lower().split():
                names = [name for name in names if word in name.lower()]
            found.update((kind, name) for name in names)
        return found

    def _cloud(self, is_wanted: Callable[[Entry], bool]) -> set[Key]:
        """What the manifests say counts where no file on the disk has the name."""
        return {(kind, name) for kind in self._kinds for name, entry in self._entries.get(kind, {}).items()
                if is_wanted(entry) and self._disk.stamp(kind, name) is None}

    def _keys_of(self, files: Mapping[str, Numbers]) -> set[Key]:
        """The models that these files are, where they still are what was noted."""
        found: set[Key] = set()
        above: dict[str, list[tuple[str, str]]] = {}  # {folder: [(type, what stands before the names in it)]}
        for path, numbers in files.items():
            folder, _, base = path.rpartition(os.sep)
            if folder not in above:
                above[folder] = [one for one in self._disk.types_of(folder) if one[0] in self._kinds]
            for kind, prefix in above[folder]:
                stamp = self._disk.stamp(kind, prefix + base)
                if stamp is not None and numbers_of(stamp) == numbers:
                    found.add((kind, prefix + base))
        return found


def _names(depot: Depot, kind: str, entries: Mapping[str, Entry]) -> Iterable[str]:
    """The names of a type, with "/"."""
    if kind in inventory.NOT_MODELS or kind not in places.table():
        return entries
    names = depot.index.listings.current(kind)[0]
    return names if os.sep == "/" else [name.replace(os.sep, "/") for name in names]


def _is_of_group(group: str | None, words: str, asked: Asked | None) -> bool:
    if group is None:
        return False
    if asked is None:
        return words.lower() in group.lower()
    said = by_words(group) or Model()
    return said.family == asked.family and (asked.variants is None or said.variant in asked.variants)


def _found(depot: Depot, disk: _Disk, keys: Sequence[Key], *, with_metadata: bool) -> Iterator[Found]:
    stamps = {key: disk.stamp(*key) for key in keys}
    details = depot.index.database.details_of(stamp for stamp in stamps.values() if stamp is not None)
    entries = depot.catalogue.snapshot().entries
    coming = {(one.entry.folder, one.entry.name) for one in depot.active_transfers()}
    for key, stamp in stamps.items():
        entry = entries.get(key[0], {}).get(key[1])
        if stamp is not None:
            found = _local(key, stamp, details.get(numbers_of(stamp)), with_metadata=with_metadata)
        elif entry is not None:
            found = _remote(key, "downloading" if key in coming else "cloud", entry)
        else:  # a link to nothing, or gone since
            continue
        source = None if entry is None else schemes.host_of(entry.urls[0])
        yield replace(found, in_manifest=entry is not None, source=source)


def _local(key: Key, stamp: Stamp, known: Details | None, *, with_metadata: bool) -> Found:
    if known is None:
        return Found(*key, "disk", stamp.size)
    header = known.header
    return Found(
        *key, "disk", stamp.size, known.sha256, header.base_model, header.variant, header.base_model_from,
        header.architecture, header.tensors, header.dtypes, header.problem,
        metadata=json.loads(header.metadata) if with_metadata and header.metadata else None,
    )


def _remote(key: Key, tier: str, entry: Entry) -> Found:
    family, variant = by_words(entry.group or "") or Model()
    return Found(*key, tier, entry.size, entry.sha256, family, variant, FROM_GROUP if family else None)

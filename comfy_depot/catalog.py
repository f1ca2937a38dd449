"""The catalogue: every model that the manifests name, in memory, ready for lists and look-ups.

The manifest folder is looked at again at most once a second, and a file that changed is read again. Readers
get an immutable `Snapshot`, so a list is never half old and half new.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import folder_paths
from comfy_depot import places
from comfy_depot.manifest import (
    Checked,
    Entry,
    Mistake,
    Problem,
    Reading,
    extension_of,
    locate,
    read_manifest,
    told,
)

log = logging.getLogger(__name__)

NOT_MANIFESTS = frozenset({"schema.json", "model_versions.json"})
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_SETTLE = 2.0
MOST_LOGGED = 20

_Stamp = tuple[int, int, int, int]
_NO_GUESTS: Mapping[Path, bool] = MappingProxyType({})


@dataclass(frozen=True)
class Snapshot:
    """The catalogue at one moment."""

    entries: Mapping[str, Mapping[str, Entry]] = field(default_factory=dict)
    """{folder type: {name with "/": entry}}"""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """{folder on disk: names with the separator of this system, sorted}"""
    problems: tuple[Problem, ...] = ()


class Catalogue:
    """Manifests of one folder, kept current. Every method may be called from any thread."""

    def __init__(
        self, directory: Path, *, allow_pickle: bool = False, guests: Mapping[Path, bool] = _NO_GUESTS,
        checked: Checked | None = None,
    ) -> None:
        """`guests` are manifests of models that workflows have named, and whether these get no token.

        They count after all others, in this order, and are silent where a model has a manifest already.
        """
        self.directory = directory
        self._checked = checked
        self._guests = dict(guests)
        self._reported: tuple[Problem, ...] = ()
        self.allow_pickle = allow_pickle
        self.changed_at = time.perf_counter()
        """When the answer of some list last became another one (`time.perf_counter()`)."""
        self._lock = threading.RLock()
        self._snapshot = Snapshot()
        self._readings: dict[Path, tuple[_Stamp, Reading]] = {}
        self._table_seen: object = None
        self._looked_at = float("-inf")

    def snapshot(self) -> Snapshot:
        """The catalogue of now (at most a second old)."""
        with self._lock:
            if time.perf_counter() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
                self.refresh()
            elif self._table_seen != _table_fingerprint():
                self._assemble()
            return self._snapshot

    def refresh(self) -> Snapshot:
        """Look at the manifest folder now, read what changed, and return the catalogue."""
        with self._lock:
            self._looked_at = time.perf_counter()
            stamps = self._stamps()
            changed = [file for file, stamp in stamps.items() if self._stamp_read(file) != stamp]
            gone = self._readings.keys() - stamps.keys()
            for file in gone:
                del self._readings[file]
            for file in changed:
                self._readings[file] = (stamps[file], self._read(file))
            self._readings = {file: self._readings[file] for file in stamps}
            if changed or gone or self._table_seen != _table_fingerprint():
                self._assemble()
            return self._snapshot

    def read_guest(self, file: Path) -> None:
        """Take in what a guest's file has gained, without putting the whole catalogue together again."""
        with self._lock:
            if self._table_seen != _table_fingerprint():
                self.refresh()
                return
            stamp, reading = _stamp_of(file.stat()), self._read(file)
            entries = dict(self._snapshot.entries)
            names = dict(self._snapshot.names)
            canonical = _canonical(is_anonymous=self._guests[file])
            for written in reading.entries:
                entry = canonical(written)
                known = entries.get(entry.folder, {})
                directory = places.directory_for(entry.folder)
                if entry.name in known or directory is None:
                    continue
                if places.why_refused(entry, allow_pickle=self.allow_pickle) is None:
                    entries[entry.folder] = {**known, entry.name: entry}
                    place = places.same_directory(directory)
                    listed = list(names.get(place, ()))
                    bisect.insort(listed, entry.name.replace("/", os.sep))
                    names[place] = tuple(dict.fromkeys(listed))  # two types may share a folder
            self._readings[file] = (stamp, reading)
            self._publish(Snapshot(entries, names, self._snapshot.problems))

    def report(self, problems: tuple[Problem, ...]) -> None:
        """Show these mistakes beside those of the manifests, in place of the ones reported before."""
        with self._lock:
            if problems != self._reported:
                self._reported = problems
                self._assemble()

    def find(self, folder: str, name: str) -> Entry | None:
        """The entry of a model; a name may be written with this system's separator or with "/"."""
        plain = name.replace(os.sep, "/")
        return self.snapshot().entries.get(folder_paths.map_legacy(folder), {}).get(plain)

    def names_in(self, directory: str) -> tuple[str, ...]:
        """The names to show in a folder on disk, with this system's separator."""
        return self.snapshot().names.get(places.same_directory(directory), ())

    def is_fresh(self, listed_at: float) -> bool:
        """Whether a list made at `listed_at` would be the same now."""
        self.snapshot()
        if listed_at < self.changed_at:
            return False
        # A list made while the catalogue changed may hold both states; it is made once more afterwards.
        settled_at = self.changed_at + SECONDS_TO_SETTLE
        return not listed_at < settled_at <= time.perf_counter()

    def __iter__(self) -> Iterator[Entry]:
        for models in self.snapshot().entries.values():
            yield from models.values()

    def _stamps(self) -> dict[Path, _Stamp]:
        """Each manifest file with what tells that it changed, in the order in which they count."""
        stamps: dict[Path, _Stamp] = {}
        try:
            with os.scandir(self.directory) as files:
                for file in files:
                    if file.name.endswith(".json") and file.name not in NOT_MANIFESTS:
                        with contextlib.suppress(OSError):  # gone since, or a link to itself
                            stamps |= _stamp(file)
        except FileNotFoundError:
            log.debug("There are no manifests: %s is not there.", self.directory)
        except OSError as error:
            log.warning("The manifests in %s cannot be looked at now (%s); those read before go on counting.",
                        self.directory, error)
            stamps = {file: stamp for file, (stamp, _) in self._readings.items()}
        ordered = dict(sorted(stamps.items()))
        for guest in self._guests:
            ordered.pop(guest, None)
            with contextlib.suppress(OSError):
                ordered[guest] = _stamp_of(guest.stat())
        return ordered

    def _stamp_read(self, file: Path) -> _Stamp | None:
        return self._readings[file][0] if file in self._readings else None

    def _read(self, file: Path) -> Reading:
        """Read a file; one that has become unreadable keeps the entries that it had."""
        reading = read_manifest(file, checked=self._checked)
        if not reading.is_readable and file in self._readings:
            return replace(reading, entries=self._readings[file][1].entries)
        return reading

    def _assemble(self) -> None:
        self._table_seen = _table_fingerprint()
        entries: dict[str, dict[str, Entry]] = {}
        problems: list[Problem] = []
        first: dict[str, dict[str, str]] = {}  # {folder type: {name: the file that counts}}
        why_refused = self._gate()
        for file, (_, reading) in self._readings.items():
            mistakes: list[Mistake] = []
            is_guest, canonical = file in self._guests, _canonical(is_anonymous=self._guests.get(file, False))
            for written in reading.entries:
                entry = canonical(written)
                files = first.setdefault(entry.folder, {})
                known = entries[entry.folder].get(entry.name) if entry.folder in entries else None
                if known is not None and (is_guest or _agree(known, entry)):
                    continue
                named_by = files.setdefault(entry.name, file.name)
                reason = why_refused(entry)
                if reason is None and known is not None:
                    reason = f"{named_by} names it already, and the first one counts. Take one of the two out"
                if reason is None:
                    entries.setdefault(entry.folder, {})[entry.name] = entry
                else:
                    path = (written.folder, written.name)
                    where = f"'{written.name}' in '{told(written.folder)}'"
                    mistakes.append((path, f"{where}: {told(reason, 1500)}."))
            problems.extend((*reading.problems, *_located(file, mistakes)))
        self._publish(Snapshot(entries, _names_by_directory(entries), (*problems, *self._reported)))

    def _gate(self) -> Callable[[Entry], str | None]:
        """`places.why_refused`, which says the same of all entries of one type and extension."""
        known: dict[tuple[str, str], str | None] = {}

        def why_refused(entry: Entry) -> str | None:
            kind = (entry.folder, extension_of(entry.name))
            if kind not in known:
                known[kind] = places.why_refused(entry, allow_pickle=self.allow_pickle)
            return known[kind]

        return why_refused

    def _publish(self, snapshot: Snapshot) -> None:
        known = set(self._snapshot.problems)
        news = [problem for problem in snapshot.problems if problem not in known]
        for problem in news[:MOST_LOGGED]:
            log.warning("Refused in a manifest: %s", problem)
        if len(news) > MOST_LOGGED:
            log.warning("%d more mistakes in manifests; python -m comfy_depot verify lists them all.",
                        len(news) - MOST_LOGGED)
        if snapshot.names != self._snapshot.names:
            self.changed_at = time.perf_counter()
        self._snapshot = snapshot


def _agree(one: Entry, other: Entry) -> bool:
    """Whether two lists name the same file."""
    return bool(set(one.urls) & set(other.urls)) and one.bundle == other.bundle


def _stamp(file: os.DirEntry[str]) -> dict[Path, _Stamp]:
    """What tells that a file changed; its rights count, since they may be why it could not be read."""
    if not file.is_file():
        return {}
    return {Path(file.path): _stamp_of(file.stat())}


def _stamp_of(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _table_fingerprint() -> object:
    return {
        folder: (tuple(directories), frozenset(extensions))
        for folder, (directories, extensions) in list(places.table().items())
    }


def _names_by_directory(entries: Mapping[str, Mapping[str, Entry]]) -> dict[str, tuple[str, ...]]:
    names: dict[str, set[str]] = {}
    for folder, models in entries.items():
        directory = places.directory_for(folder)
        if directory is not None:
            names.setdefault(places.same_directory(directory), set()).update(models)
    return {
        directory: tuple(sorted(name.replace("/", os.sep) for name in found))
        for directory, found in names.items()
    }


def _canonical(*, is_anonymous: bool) -> Callable[[Entry], Entry]:
    """What gives entries of one file the present name of their folder type."""
    folders: dict[str, str] = {}

    def canonical(entry: Entry) -> Entry:
        folder = folders.get(entry.folder)
        if folder is None:
            folder = folders[entry.folder] = folder_paths.map_legacy(entry.folder)
        if folder == entry.folder and not is_anonymous:
            return entry
        return replace(entry, folder=folder, is_anonymous=is_anonymous)

    return canonical


def _located(file: Path, mistakes: list[Mistake]) -> list[Problem]:
    if not mistakes:
        return []
    try:
        return locate(file.name, file.read_text(encoding="utf-8-sig"), mistakes)
    except (OSError, ValueError, IndexError):  # changed since it was read; the messages name the entries
        return [Problem(file.name, None, message) for _, message in mistakes]

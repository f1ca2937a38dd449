"""The files below the model folders, in memory, right at every question.

A `Tree` is a model folder with all its subfolders. Where the kernel tells of changes (`inotify.py`), a
question costs what has changed since the last one. Folders that cannot be watched are looked at by their time
of change, and their files one by one when sizes are asked for. What can change without a trace in the folder
itself is looked at always: the model folder (somebody may have put another one in its place) and links.

Not told by any file system, and not seen: bytes that are written through a memory map or through a hard link
in another folder.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from comfy_depot import layout
from comfy_depot.eviction import Stamp
from comfy_depot.inotify import Overflow, Watcher

log = logging.getLogger(__name__)

EXCLUDED = frozenset({".git", layout.HIDDEN})
NANOSECONDS_TO_SETTLE = 2_000_000_000
"""The coarsest clock of a file system (FAT): what changed since may have changed again with the same time."""
MOST_CHANGES_KEPT = 4096
FACTS_AT_ONCE = 2000
"""Files whose facts are asked for before others get their turn: about 10 ms."""


class Facts(NamedTuple):
    """What a file's status says; another file under the same name has other facts."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int

    @property
    def stamp(self) -> Stamp:
        """The key of what is known about the file's content."""
        return Stamp(self.device, self.inode, self.size, self.modified_ns)


class Journal:
    """Names to which something happened, the last few thousand of them."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._before = 0

    @property
    def version(self) -> int:
        """Another number whenever something was noted."""
        return self._before + len(self._names)

    def note(self, names: Iterable[str]) -> None:
        """Something happened to these."""
        self._names.extend(names)
        if len(self._names) > MOST_CHANGES_KEPT:
            gone = len(self._names) - MOST_CHANGES_KEPT // 2
            del self._names[:gone]
            self._before += gone

    def since(self, version: int) -> list[str] | None:
        """What was noted after a version; None when that is not known any more."""
        start = version - self._before
        return None if start < 0 else self._names[start:]


class Folder:
    """One folder of a tree. Equal to itself only."""

    __slots__ = ("device", "files", "folders", "inode", "is_link", "is_settled", "links", "mtime", "mtime_ns",
                 "parent", "path", "prefix", "unknown", "watch")

    def __init__(self, path: str, prefix: str, parent: Folder | None, *, is_link: bool = False) -> None:
        self.path, self.prefix, self.parent, self.is_link = path, prefix, parent, is_link
        self.device = self.inode = self.mtime_ns = -1
        self.mtime = 0.0
        self.is_settled = True
        self.watch: int | None = None
        self.files: dict[str, Facts | None] = {}
        self.folders: dict[str, Folder] = {}
        self.links: set[str] = set()
        self.unknown: set[str] = set()
        """Files whose facts are to be asked for."""

    @property
    def is_there(self) -> bool:
        return self.inode != -1

    def with_all_below(self) -> Iterator[Folder]:
        """This folder and those below it."""
        waiting = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting.extend(folder.folders.values())

    def is_inside(self, device: int, inode: int) -> bool:
        """Whether the folder is that one or lies in it: a link back up would be followed for ever."""
        above: Folder | None = self
        while above is not None and (above.device, above.inode) != (device, inode):
            above = above.parent
        return above is not None


class Tree:
    """A model folder with everything below it. The forest's lock is held around every method."""

    def __init__(self, forest: Forest, path: str) -> None:
        self._forest = forest
        self.root = Folder(path, "", None)
        self._changes = Journal()
        self._facts = Journal()
        self._doubtful: set[Folder] = {self.root}  # what no event tells of: looked at by every question
        self._with_links: set[Folder] = set()
        self._leading_nowhere: set[tuple[Folder, str]] = set()
        self._with_unknown: set[Folder] = set()

    @property
    def version(self) -> int:
        """Another number whenever a name came or went."""
        return self._changes.version

    def changes_since(self, version: int) -> list[str] | None:
        """The names that came or went since then; None when that is not known any more."""
        return self._changes.since(version)

    @property
    def facts_version(self) -> int:
        """Another number whenever a name came or went, or the facts of a file became others."""
        return self._facts.version

    def facts_since(self, version: int) -> list[str] | None:
        """The names that came, went or have other facts since then; None when that is not known any more."""
        return self._facts.since(version)

    def names(self) -> Iterator[str]:
        """Every file by its name relative to the tree, in no order."""
        for folder in self.root.with_all_below():
            prefix = folder.prefix
            yield from (prefix + name for name in folder.files) if prefix else folder.files

    def times(self) -> dict[str, float]:
        """The time of change of each folder."""
        return {folder.path: folder.mtime for folder in self.root.with_all_below() if folder.is_there}

    def place(self, name: str) -> tuple[Folder, str] | None:
        """The folder that holds a file, and the file's name in it; None when there is no such file."""
        *above, base = name.split(os.sep)
        folder: Folder | None = self.root
        for part in above:
            folder = folder.folders.get(part) if folder else None
        return (folder, base) if folder and base in folder.files else None

    def look(self) -> None:
        """Take in what no event tells of."""
        for folder in list(self._doubtful):
            if folder in self._doubtful:
                self._look_at(folder)
        for folder, name in list(self._leading_nowhere):
            self._leading_nowhere.discard((folder, name))
            if name in folder.links:
                self.examine(folder, name)  # it may lead somewhere by now

    def doubt(self) -> None:
        """Let the facts of which no event tells be asked for again."""
        for folder in self._doubtful | self._with_links:
            folder.unknown |= folder.links if folder.watch is not None else folder.files.keys()
            if folder.unknown:
                self._with_unknown.add(folder)

    def learn_facts(self, *, at_most: int | None = None) -> bool:
        """Ask for the facts of files whose facts are not known or not reliable; whether all are known now."""
        if at_most is None:
            self.doubt()
        left = sys.maxsize if at_most is None else at_most
        while self._with_unknown and left > 0:
            folder = next(iter(self._with_unknown))
            names = [folder.unknown.pop() for _ in range(min(len(folder.unknown), left))]
            if not folder.unknown:
                self._with_unknown.discard(folder)
            self._learn(folder, names)
            left -= len(names)
        return not self._with_unknown

    def _learn(self, folder: Folder, names: list[str]) -> None:
        above, device, files, links = folder.path + os.sep, folder.device, folder.files, folder.links
        changed = []
        for name in names:
            if name in links:
                self.examine(folder, name)
            elif name in files:
                try:
                    status = os.stat(above + name)
                    facts = _facts(status, device)
                except OSError:  # gone, which an event or the folder's time will tell
                    facts = None
                if files[name] != facts:
                    files[name] = facts
                    changed.append(folder.prefix + name)
        self._facts.note(changed)

    def examine(self, folder: Folder, name: str) -> None:
        """Something happened to a name of a folder: take in what it is now."""
        path = os.path.join(folder.path, name)
        try:
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            status = _status(path) or status if is_link else status
        except OSError:  # it is gone, or out of reach
            self._remove(folder, name)
            return
        if stat.S_ISDIR(status.st_mode):
            known = folder.folders.get(name)
            if known is None or (known.device, known.inode) != (status.st_dev, status.st_ino):
                self._remove(folder, name)
                self._list_below(self._subfolders(folder, {name: is_link}))
            return
        if name in folder.folders:
            self._remove(folder, name)
        self._add_file(folder, name, is_link=is_link)
        folder.unknown.discard(name)
        leads_nowhere = is_link and stat.S_ISLNK(status.st_mode)
        if leads_nowhere:
            self._leading_nowhere.add((folder, name))
        facts = None if leads_nowhere else _facts(status, folder.device)
        if folder.files[name] != facts:
            folder.files[name] = facts
            self._facts.note([folder.prefix + name])

    def list_again(self, folder: Folder) -> None:
        """Look through a folder, and those that are new in it."""
        self._list_below([folder])

    def drop_all(self) -> None:
        """Forget everything; the next look begins anew."""
        self._empty(self.root)

    def _look_at(self, folder: Folder) -> None:
        status = _status(folder.path)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            status = None
        if status is None or (folder.device, folder.inode) != (status.st_dev, status.st_ino):
            if folder.parent is not None:
                self.examine(folder.parent, os.path.basename(folder.path))
                return
            if folder.is_there:
                self._empty(folder)
            if status is not None:
                self.list_again(folder)
        elif folder.watch is None and (folder.mtime_ns != status.st_mtime_ns or not folder.is_settled):
            self.list_again(folder)

    def _list_below(self, waiting: list[Folder]) -> None:
        while waiting:
            folder = waiting.pop()
            waiting.extend(self._list(folder))

    def _list(self, folder: Folder) -> list[Folder]:
        """Read a folder; its subfolders that are new."""
        status = _status(folder.path)
        if status is None:
            self._empty(folder)
            return []
        folder.device, folder.inode = status.st_dev, status.st_ino
        folder.mtime, folder.mtime_ns = status.st_mtime, status.st_mtime_ns
        folder.is_settled = time.time_ns() - status.st_mtime_ns > NANOSECONDS_TO_SETTLE
        self._forest.watch(folder)
        if folder.watch is None or folder.is_link or folder.parent is None:
            self._doubtful.add(folder)
        files, folders, links = self._read(folder)
        for name in [*(folder.files.keys() - files), *(folder.folders.keys() - folders)]:
            self._remove(folder, name)
        folder.links = links
        if links:
            self._with_links.add(folder)
        self._take_files(folder, files)
        return self._subfolders(folder, {name: name in links for name in folders - folder.folders.keys()})

    def _read(self, folder: Folder) -> tuple[set[str], set[str], set[str]]:
        """(files, folders, links among both)"""
        files, folders, links = set(), set(), set()
        try:
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    name = entry.name
                    if not _leads_to_folder(entry):
                        files.add(name)
                    elif name not in EXCLUDED:
                        folders.add(name)
                    if entry.is_symlink():
                        links.add(name)
        except OSError as error:
            log.warning("Folder %s cannot be read and is left out: %s", folder.path, error)
            return set(), set(), set()
        return files, folders, links

    def _take_files(self, folder: Folder, files: set[str]) -> None:
        news = files - folder.files.keys() if folder.files else files
        folder.files = {**folder.files, **dict.fromkeys(news)}
        folder.unknown = files
        self._with_unknown.add(folder)
        self._note(folder.prefix + name for name in news)

    def _subfolders(self, folder: Folder, names: dict[str, bool]) -> list[Folder]:
        made = []
        for name, is_link in names.items():
            path = os.path.join(folder.path, name)
            if is_link:
                folder.links.add(name)
                self._with_links.add(folder)
                status = _status(path)
                if status is not None and folder.is_inside(status.st_dev, status.st_ino):
                    log.debug("%s leads back to a folder above it and is not followed.", path)
                    self._leading_nowhere.add((folder, name))
                    continue
            made.append(Folder(path, folder.prefix + name + os.sep, folder, is_link=is_link))
            folder.folders[name] = made[-1]
        return made

    def _add_file(self, folder: Folder, name: str, *, is_link: bool) -> None:
        if is_link:
            folder.links.add(name)
            self._with_links.add(folder)
        else:
            folder.links.discard(name)
        if name not in folder.files:
            folder.files[name] = None
            self._note([folder.prefix + name])

    def _remove(self, folder: Folder, name: str) -> None:
        folder.links.discard(name)
        folder.unknown.discard(name)
        if name in folder.files:
            del folder.files[name]
            self._note([folder.prefix + name])
        below = folder.folders.pop(name, None)
        if below is not None:
            self._empty(below)

    def _empty(self, top: Folder) -> None:
        """Forget what is in a folder and below it."""
        for folder in top.with_all_below():
            self._forest.unwatch(folder)
            self._note(folder.prefix + name for name in folder.files)
            folder.files, folder.unknown, folder.links = {}, set(), set()
            for kept in (self._doubtful, self._with_links, self._with_unknown):
                kept.discard(folder)
            folder.device = folder.inode = folder.mtime_ns = -1
        top.folders = {}
        if top.parent is None:
            self._doubtful.add(top)

    def _note(self, names: Iterable[str]) -> None:
        names = list(names)
        self._changes.note(names)
        self._facts.note(names)


class Forest:
    """All trees, with one queue of events. `lock` is held while a tree is read."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._watcher = Watcher()
        self._trees: dict[str, Tree] = {}
        self._watched: dict[int, set[Folder]] = {}

    def tree(self, directory: str) -> Tree:
        """The tree of a model folder as it is now."""
        with self.lock:
            self.take_events()
            tree = self._trees.get(directory)
            if tree is None:
                tree = self._trees[directory] = Tree(self, directory)
            tree.look()
            return tree

    def take_events(self) -> None:
        """Take in what the kernel has told since the last time."""
        with self.lock:
            try:
                events = self._watcher.drain()
            except Overflow:
                log.debug("So many files changed that all model folders are read again.")
                for tree in self._trees.values():
                    tree.drop_all()
                self._watcher.wake()
                return
            if events:
                self._watcher.wake()
            names: dict[Folder, set[str]] = {}
            for event in events:
                for folder in self._watched.get(event.watch, ()):
                    names.setdefault(folder, set()).add(event.name)
                    if event.is_last:
                        folder.watch = None
                if event.is_last:
                    self._watched.pop(event.watch, None)
            for folder, touched in names.items():
                self._apply(folder, touched)

    def learn_facts(self, directories: Iterable[str]) -> None:
        """Have the facts of all files below some model folders known; others are answered in between."""
        for directory in directories:
            with self.lock:
                tree = self.tree(directory)
                tree.doubt()
            is_done = False
            while not is_done:  # without another look, which may find the same folders anew for two seconds
                with self.lock:
                    is_done = tree.learn_facts(at_most=FACTS_AT_ONCE)

    def wait(self, *, seconds: float) -> bool:
        """Sleep until something changes or somebody wakes; whether it did. For one thread."""
        return self._watcher.wait(seconds=seconds)

    def wake(self) -> None:
        """Let the one who waits go on."""
        self._watcher.wake()

    def close(self) -> None:
        """Watch nothing any more; questions go on, at the price of looking."""
        with self.lock:
            self._watcher.close()
            self._watched.clear()
            self._trees.clear()

    def watch(self, folder: Folder) -> None:
        """Have the kernel tell of a folder's changes, where it can."""
        if folder.watch is None:
            folder.watch = self._watcher.add(folder.path, folder.device)
            if folder.watch is not None:
                self._watched.setdefault(folder.watch, set()).add(folder)

    def unwatch(self, folder: Folder) -> None:
        """Hear no more of a folder; one that stands in several trees is told to the others."""
        if folder.watch is None:
            return
        others = self._watched.get(folder.watch, set())
        others.discard(folder)
        if not others and self._watched.pop(folder.watch, None) is not None:
            self._watcher.remove(folder.watch)
        folder.watch = None

    def _apply(self, folder: Folder, names: set[str]) -> None:
        tree = self._tree_of(folder)
        if tree is None or not folder.is_there:  # dropped by an event before
            return
        status = _status(folder.path)
        if status is None or "" in names:
            tree.list_again(folder)
            return
        folder.mtime, folder.mtime_ns = status.st_mtime, status.st_mtime_ns
        for name in names - EXCLUDED:
            tree.examine(folder, name)

    def _tree_of(self, folder: Folder) -> Tree | None:
        top = folder
        while top.parent is not None:
            top = top.parent
        tree = self._trees.get(top.path)
        return tree if tree is not None and tree.root is top else None


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that is shut
        return False


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # gone, out of reach, or no path at all
        return None


def _facts(status: os.stat_result, device: int) -> Facts:
    # one number object for all files of a folder
    at = device if status.st_dev == device else status.st_dev
    return Facts(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, at)

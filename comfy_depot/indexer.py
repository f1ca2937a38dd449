"""Keeps the database of the index current: a thread that follows the forest.

It begins a moment after the start, so that the server answers first, and works in small portions. At its
first pass it compares all files with the database; after that it looks at what the kernel tells, and now and
then at what the kernel does not tell. The headers of files that are new are read once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from comfy_depot import model_headers
from comfy_depot.database import MOST_AT_ONCE, Database
from comfy_depot.eviction import Stamp
from comfy_depot.forest import Forest, Tree

log = logging.getLogger(__name__)

SECONDS_AFTER_START = 1.0
SECONDS_BETWEEN_LOOKS = 0.05
"""At least, however much happens."""
SECONDS_BETWEEN_FULL_LOOKS = 5.0
"""For what no notice of the kernel tells of: links, network file systems."""
SECONDS_TO_SETTLE = 60.0
"""A file that cannot be read is remembered as such when it is so old; a younger one may still be written."""
FILES_AT_ONCE = MOST_AT_ONCE
HEADERS_AT_ONCE = 1000
HEADERS_IN_A_ROW = 20
SHORTEST_REST, LONGEST_REST = 0.002, 0.05
"""Seconds. The thread rests as long as it has worked: Python runs one thread at a time, and others have more
urgent work.
"""


class Closed(Exception):
    """The indexer is to stop."""


class Indexer:
    """Follows the forest below the folders that `roots` names."""

    def __init__(self, forest: Forest, database: Database, roots: Callable[[], Sequence[str]]) -> None:
        self._forest, self._database, self._roots = forest, database, roots
        self._seen: dict[str, tuple[Tree, int]] = {}
        self._closing = threading.Event()
        self._is_gentle, self._rested_at = False, 0.0
        self._updating = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="depot-index", daemon=True)
        self.waiting = 0
        """Files that the pass under way has still to look at."""
        self.is_complete = False
        """Whether all files were looked at once."""

    def start(self) -> None:
        """Follow from now on."""
        self._thread.start()

    def close(self) -> None:
        """Follow no more."""
        self._closing.set()
        self._forest.wake()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def update(self) -> None:
        """Bring the database up to date with the disk, now."""
        with self._updating, self._database.kept_open():
            for root in dict.fromkeys(self._roots()):
                self._forest.learn_facts([root])
                self._update_tree(root)
            self.is_complete = True

    def _follow(self) -> None:
        if self._closing.wait(SECONDS_AFTER_START):
            return
        self._is_gentle, looked_at = True, float("-inf")
        self._database.is_sound()
        self._database.forget_old()
        while not self._closing.is_set():
            has_news = self._forest.wait(seconds=SECONDS_BETWEEN_FULL_LOOKS if self.is_complete else 0)
            is_time = time.monotonic() - looked_at >= SECONDS_BETWEEN_FULL_LOOKS
            if has_news or is_time:
                with suppress(Closed):
                    if is_time:
                        self.update()
                        looked_at = time.monotonic()
                    else:
                        self._update_what_is_told()
            self._closing.wait(SECONDS_BETWEEN_LOOKS)

    def _update_what_is_told(self) -> None:
        with self._updating:
            self._forest.take_events()
            for root in list(self._seen):
                self._update_tree(root)

    def _update_tree(self, root: str) -> None:
        with self._forest.lock:
            tree = self._forest.tree(root)
            version = tree.facts_version
            seen = self._seen.get(root)
            changed = tree.facts_since(seen[1]) if seen is not None and seen[0] is tree else None
            names = list(tree.names()) if changed is None else list(dict.fromkeys(changed))
        self.waiting, self._rested_at = len(names), time.perf_counter()
        for start in range(0, len(names), FILES_AT_ONCE):
            self._note(tree, names[start:start + FILES_AT_ONCE])
        if changed is None and tree.root.is_there:  # a disk that is not there keeps its place in the index
            self._note_gone(tree)
        self.waiting = 0
        self._seen[root] = (tree, version)

    def _note_gone(self, tree: Tree) -> None:
        """Files that went while nobody looked."""
        paths, length = self._database.paths_below(tree.root.path), len(tree.root.path) + len(os.sep)
        for start in range(0, len(paths), FILES_AT_ONCE):
            with self._forest.lock:
                gone = [path for path in paths[start:start + FILES_AT_ONCE]
                        if tree.place(path[length:]) is None]
            if gone:
                self._database.note_files(dict.fromkeys(gone))
            self._rest()

    def _note(self, tree: Tree, names: Sequence[str]) -> None:
        stamps: dict[str, Stamp | None] = {}
        above = os.path.join(tree.root.path, "")
        with self._forest.lock:
            for name in names:
                place = tree.place(name)
                facts = None if place is None else place[0].files[place[1]]
                stamps[above + name] = None if facts is None else facts.stamp
        unread = [path for path in self._database.note_files(stamps)
                  if path.lower().endswith(model_headers.EXTENSIONS)]
        for start in range(0, len(unread), HEADERS_AT_ONCE):
            self._database.note_headers(self._headers(unread[start:start + HEADERS_AT_ONCE]))
        self.waiting = max(0, self.waiting - len(names))
        self._rest()

    def _headers(self, paths: Sequence[str]) -> Iterator[tuple[Stamp, model_headers.Header]]:
        for number, path in enumerate(paths):
            if number % HEADERS_IN_A_ROW == 0:
                self._rest()
            with suppress(OSError):  # gone since, or out of reach
                stamp, header = model_headers.read(path)
                age = time.time() - stamp.changed_ns / 1e9
                if header.problem is None or age > SECONDS_TO_SETTLE:
                    yield stamp, header

    def _rest(self) -> None:
        worked = time.perf_counter() - self._rested_at
        if self._closing.wait(min(max(worked, SHORTEST_REST), LONGEST_REST) if self._is_gentle else 0):
            raise Closed
        self._rested_at = time.perf_counter()

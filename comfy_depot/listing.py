"""The list of each folder type, kept in memory and corrected by what changed.

With 100,000 models even sorting them is felt, so a list that exists is never made anew for a few files: the
names that came or went are put in or taken out. The lists have the form and the content of
`folder_paths.get_filename_list_`; whoever has got one may keep it, since a change makes another one.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import folder_paths
from comfy_depot import places
from comfy_depot.forest import Forest, Tree

MOST_CORRECTIONS = 1000
"""Above so many changes, sorting all names takes less time."""

FileList = tuple[list[str], dict[str, float], float]
"""The form of `folder_paths`: names, the time of change of each folder, `time.perf_counter()`."""


@dataclass(frozen=True)
class _State:
    """All that a list depends on."""

    trees: tuple[Tree, ...]
    versions: tuple[int, ...]
    cloud: tuple[tuple[str, ...], ...]
    extensions: frozenset[str]

    def holds(self, name: str) -> bool:
        """Whether some folder or some manifest has the name."""
        is_local = any(tree.place(name) for tree in self.trees)
        return is_local or is_among_any(name, self.cloud)


class Listings:
    """One list per folder type. Every method may be called from any thread."""

    def __init__(self, forest: Forest, names_in: Callable[[str], tuple[str, ...]]) -> None:
        self._forest = forest
        self._names_in = names_in  # the names that manifests add to a folder, sorted
        self._lists: dict[str, tuple[_State, FileList]] = {}

    def current(self, kind: str) -> FileList:
        """The list of a folder type as it is now: the same object while nothing has changed."""
        directories, extensions = places.table()[kind]
        roots = [places.same_directory(directory) for directory in directories]
        cloud = tuple(self._names_in(root) for root in roots)
        with self._forest.lock:
            trees = tuple(self._forest.tree(root) for root in roots)
            state = _State(trees, tuple(tree.version for tree in trees), cloud, frozenset(extensions))
            kept = self._lists.get(kind)
            if kept is not None and kept[0] == state:
                return kept[1]
            names = None if kept is None else _corrected(kept[1][0], kept[0], state)
            if names is None:
                names = _made_anew(state)
            times = {path: seen for tree in trees for path, seen in tree.times().items()}
            self._lists[kind] = (state, (names, times, time.perf_counter()))
            return self._lists[kind][1]


def _made_anew(state: _State) -> list[str]:
    sources: list[Collection[str]] = [list(tree.names()) for tree in state.trees]
    sources = [source for source in (*sources, *state.cloud) if source]
    names: Iterable[str] = sources[0] if len(sources) == 1 else set().union(*sources)
    return folder_paths.filter_files_extensions(list(names), state.extensions)


def _corrected(names: list[str], before: _State, now: _State) -> list[str] | None:
    """The list with what changed between two states; None where it must be made anew."""
    if before.trees != now.trees or before.cloud != now.cloud or before.extensions != now.extensions:
        return None
    touched: set[str] = set()
    for tree, version in zip(before.trees, before.versions, strict=True):
        changes = tree.changes_since(version)
        if changes is None or len(changes) > MOST_CORRECTIONS:
            return None
        touched.update(changes)
    names = list(names)
    for name in folder_paths.filter_files_extensions(touched, now.extensions):
        place = bisect.bisect_left(names, name)
        is_listed = place < len(names) and names[place] == name
        if is_listed and not now.holds(name):
            del names[place]
        elif not is_listed and now.holds(name):
            names.insert(place, name)
    return names


def is_among_any(name: str, lists: Iterable[Sequence[str]]) -> bool:
    """Whether one of some sorted lists has the name."""
    for names in lists:
        place = bisect.bisect_left(names, name)
        if place < len(names) and names[place] == name:
            return True
    return False

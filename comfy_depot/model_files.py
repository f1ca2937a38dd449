"""Size and dates of the models of a type, from memory: what the web page's model library shows.

With 100,000 models asking the disk for each takes a second. The forest knows them; what it cannot know (names
that a node pack made up) is asked from the disk as ever.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from typing import NamedTuple

from comfy_depot import places
from comfy_depot.forest import Facts, Forest, Tree
from comfy_depot.listing import is_among_any

MOST_CORRECTIONS = 1000
"""Above so many changes, making all lines anew takes less time."""


class ModelFile(NamedTuple):
    """A line of the model library. `path_index` is the number of its folder among those of the type."""

    name: str
    path_index: int
    size: int | None = None
    """None where the file is not on the disk, as is each date."""
    modified: float | None = None
    created: float | None = None
    """The time of the last change of its status, as ComfyUI gives it."""


Describe = Callable[[str, list[str]], list[ModelFile]]
"""(folder type, names) -> the files, asked from the disk."""


class _Kept(NamedTuple):
    """Lines with what they were made from."""

    trees: tuple[Tree, ...]
    versions: tuple[int, ...]
    names: list[str]
    lines: list[ModelFile]


class ModelFiles:
    """The lines of each folder type. Every method may be called from any thread."""

    def __init__(self, forest: Forest, names_in: Callable[[str], Sequence[str]]) -> None:
        self._forest = forest
        self._names_in = names_in  # the names that manifests add to a folder
        self._kept: dict[str, _Kept] = {}

    def describe(self, ask_disk: Describe, kind: str, names: list[str]) -> list[ModelFile]:
        """A line for each name; the same list while nothing has changed."""
        roots = [places.same_directory(directory) for directory in places.table()[kind][0]]
        cloud = tuple(self._names_in(root) for root in roots)
        self._forest.learn_facts(roots)
        with self._forest.lock:
            trees = tuple(self._forest.tree(root) for root in roots)
            versions = tuple(tree.facts_version for tree in trees)
            kept = self._kept.get(kind)
            if kept is not None and kept.trees == trees:
                if kept.versions == versions and kept.names == names:
                    return kept.lines
                lines = _corrected(kept, names, cloud)
                if lines is not None:
                    self._kept[kind] = _Kept(trees, versions, names, lines)
                    return lines
            found = _by_name(trees)
            rest = [name for name in names if name not in found and not is_among_any(name, cloud)]
            foreign = [name for name in rest if not any(tree.place(name) for tree in trees)]
        asked = {file.name: file for file in ask_disk(kind, foreign)} if foreign else {}
        lines = [_line(name, *found[name]) if name in found else asked.get(name) or ModelFile(name, 0)
                 for name in names]
        if not foreign:
            self._kept[kind] = _Kept(trees, versions, names, lines)
        return lines


def _corrected(
    kept: _Kept, names: list[str], cloud: tuple[Sequence[str], ...]
) -> list[ModelFile] | None:
    """The lines with what changed on the disk since; None where they must be made anew."""
    touched: set[str] = set()
    for tree, version in zip(kept.trees, kept.versions, strict=True):
        changes = tree.facts_since(version)
        if changes is None or len(changes) > MOST_CORRECTIONS:
            return None
        touched.update(changes)
    lines = list(kept.lines)
    for name in touched:
        place = bisect.bisect_left(lines, name, key=lambda line: line.name)
        is_there = place < len(lines) and lines[place].name == name
        now = _line_of(name, kept.trees) or ([ModelFile(name, 0)] if is_among_any(name, cloud) else [])
        lines[place:place + is_there] = now if is_among_any(name, (names,)) else []
    return lines if [line.name for line in lines] == names else None


def _line_of(name: str, trees: tuple[Tree, ...]) -> list[ModelFile]:
    """The line of a file; nothing where no folder has the name."""
    places_of = [tree.place(name) for tree in trees]
    for index, place in enumerate(places_of):
        facts = None if place is None else place[0].files[place[1]]
        if facts is not None:
            return [_line(name, index, facts)]
    return [ModelFile(name, 0)] if any(places_of) else []  # a link to nothing


def _by_name(trees: tuple[Tree, ...]) -> dict[str, tuple[int, Facts]]:
    """Each file that is there; where folders hold the same name, the first counts."""
    found: dict[str, tuple[int, Facts]] = {}
    for index in range(len(trees) - 1, -1, -1):
        for folder in trees[index].root.with_all_below():
            prefix = folder.prefix
            found.update((prefix + name, (index, facts)) for name, facts in folder.files.items() if facts)
    return found


def _line(name: str, path_index: int, facts: Facts) -> ModelFile:
    return ModelFile(name, path_index, facts.size, _seconds(facts.modified_ns), _seconds(facts.changed_ns))


def _seconds(nanoseconds: int) -> float:
    """As `os.stat` makes its floats."""
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    return whole + 1e-9 * rest

"""Three versions of a file that has lines of ours, merged as if it had none, and the lines put in again.

A line of ours is known by what it belongs to: the function (for a decorator, and for a call inside of it) or
the module, and its text. So it is the same line wherever the file has moved it. Which lines the result has is
decided as for the members of a set: what both sides have, and what one side has added; what a side has taken
out stays out. The import of our hooks is there as long as another line needs it.

A line that looks like ours and is in no place of the series, which happens when the series was an older one,
is left out, as `apply` leaves it out, and a warning names it: nobody knows any more where it should stand.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weaving import sources, woven
from weaving.anchors import FUNCTIONS, find_first
from weaving.errors import AnchorError, Refused, SourceError
from weaving.fingerprints import FUNCTION_ANCHORS
from weaving.patch_files import Hunk, Patch, form_of
from weaving.sources import Source
from weaving.woven import Insertion

MODULE = ""
"""The scope of what is inside of no function."""
Line = tuple[str, str]
"""(scope, text) of a line of ours: ("PromptServer.add_routes", "depot.add_routes(self.routes)")."""


@dataclass(frozen=True)
class Sides:
    """The files that git hands to a merge driver. What is merged goes into `ours`."""

    base: Path
    ours: Path
    theirs: Path
    path: str
    """Where the file is in the repository."""
    marker_size: str = "7"
    names: tuple[str, str, str] = ("base", "ours", "theirs")
    """What the markers of a conflict call the three."""


@dataclass(frozen=True)
class Merged:
    """How it went: whether git takes it as merged, and what the user should read."""

    is_clean: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """The lines that the result has, and those that have no place in the series."""

    insertions: list[tuple[str, Insertion]] = field(default_factory=list)
    """Each with the name of its patch."""
    homeless: list[Line] = field(default_factory=list)

    def without_place(self, path: str, data: bytes) -> list[str]:
        """The names of the patches that have a line for which a file has no place."""
        names: dict[str, None] = {}
        for name, insertion in self.insertions:
            try:
                find_first(sources.read(path, data), insertion.anchors)
            except AnchorError:
                names[name] = None
            except Refused:
                return []
        return list(names)


def merge(sides: Sides, patches: Sequence[Patch]) -> Merged:
    """Merge, and write the result into `sides.ours`."""
    try:
        base, ours, theirs = (
            sources.read(sides.path, file.read_bytes()) for file in (sides.base, sides.ours, sides.theirs))
        wanted = _wanted(base, ours, theirs, [(patch.name, hunk) for patch in patches
                                              for hunk in patch.hunks if sides.path in hunk.files])
        bare = [woven.strip(source) for source in (base, ours, theirs)]
    except SourceError as error:
        warning = f"{error} So git merged {sides.path} as it is, with our lines in it."
        return Merged(_merge_files(sides), (warning,))
    for file, source in zip((sides.base, sides.ours, sides.theirs), bare, strict=True):
        file.write_bytes(source.data)
    warnings = tuple(f"{sides.path}: `{text}` is in no place of the series, and is left out."
                     for _, text in wanted.homeless)
    if not _merge_files(sides):
        return Merged(False, (*warnings, f"{sides.path}: git cannot merge what the two sides changed. None "
                              "of our lines is in the file now."))
    try:
        merged = sources.read(sides.path, sides.ours.read_bytes())
        made = woven.weave(merged, [insertion for _, insertion in wanted.insertions])
    except Refused as refusal:
        lacking = "".join(f" (Patch {name}; `weave.py --without {name} apply` goes on without it.)"
                          for name in wanted.without_place(sides.path, sides.ours.read_bytes()))
        reason = f"{refusal}{lacking}\n{sides.path}: git merged the rest; our lines are not in it."
        return Merged(False, (*warnings, reason))
    sides.ours.write_bytes(made.data)
    return Merged(True, warnings)


def _merge_files(sides: Sides) -> bool:
    """`git merge-file`, with the style of conflicts that git's configuration says; True for no conflict."""
    base, ours, theirs = sides.names
    done = subprocess.run(["git", "merge-file", "-q", f"--marker-size={sides.marker_size}",
                           "-L", ours, "-L", base, "-L", theirs,
                           str(sides.ours), str(sides.base), str(sides.theirs)])
    return done.returncode == 0


def _wanted(base: Source, ours: Source, theirs: Source, hunks: Sequence[tuple[str, Hunk]]) -> _Wanted:
    before, here, there = (set(lines_of(source)) for source in (base, ours, theirs))
    wanted, placed = _Wanted(), set()
    imports = []
    for name, hunk in hunks:
        kept = []
        for text in hunk.lines:
            if form_of(text) == "import":
                imports.append((name, hunk, text))
                placed.add((MODULE, text))
                continue
            same = {(anchor.name if anchor.kind in FUNCTION_ANCHORS else MODULE, text)
                    for anchor in hunk.anchors}
            placed |= same
            if _stays(bool(same & before), bool(same & here), bool(same & there)):
                kept.append(text)
        if kept:
            wanted.insertions.append((name, Insertion(hunk.anchors, tuple(kept))))
    used = {text.lstrip("@").partition(".")[0]
            for _, insertion in wanted.insertions for text in insertion.lines}
    wanted.insertions[:0] = [(name, Insertion(hunk.anchors, (text,))) for name, hunk, text in imports
                             if text.rpartition(" ")[2] in used]
    wanted.homeless.extend(sorted((here | there) - placed))
    return wanted


def _stays(in_base: bool, in_ours: bool, in_theirs: bool) -> bool:
    """Whether what the three sides have of a thing is kept."""
    return in_ours and in_theirs if in_base else in_ours or in_theirs


def lines_of(source: Source) -> Iterator[Line]:
    """Each line of ours in a file."""
    ours = {index + 1 for index in woven.our_lines(source)}
    if ours:
        yield from _lines_in(source, source.tree.body, MODULE, MODULE, ours)


def _lines_in(
    source: Source, body: Sequence[ast.stmt], prefix: str, scope: str, ours: set[int]
) -> Iterator[Line]:
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            name = f"{prefix}{node.name}"
            for mark in node.decorator_list:
                if mark.lineno in ours:
                    yield name, source.line(mark.lineno).strip()
            inner = MODULE if isinstance(node, ast.ClassDef) else name
            yield from _lines_in(source, node.body, f"{name}.", inner, ours)
        elif node.lineno in ours:
            yield scope, source.line(node.lineno).strip()
        else:
            for part in ast.iter_child_nodes(node):
                inside = getattr(part, "body", None) if not isinstance(part, ast.stmt) else [part]
                if isinstance(inside, list):
                    yield from _lines_in(source, inside, prefix, scope, ours)

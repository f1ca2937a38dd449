"""`matrix`: the series tried on many versions, straight from git's objects.

A file that did not change from one version to the next is woven once. For each version and patch the answer
is

    ok          each place is there; woven, the files compile; taking our lines out gives the same bytes;
                weaving again changes nothing
    ok*         the same, and the body of a hooked function is none that the feature tests have run with
    -           the patch is not for this version
    missing, signature changed, ambiguous, unsuited, refused      why it would not be woven
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from weaving import sources, woven
from weaving.errors import AnchorError, Refused
from weaving.fingerprints import Tested, hooked_bodies, untested
from weaving.history import Candidate, CommitFiles
from weaving.patch_files import Hunk, Patch, Version
from weaving.planning import Files, Target, locate
from weaving.sources import Source
from weaving.trees import core_version
from weaving.woven import Insertion

OK, UNTESTED, NOT_FOR = "ok", "ok*", "-"
GOOD = (OK, UNTESTED, NOT_FOR)


@dataclass(frozen=True)
class Row:
    """One version, and how each patch does there."""

    date: str
    commit: str
    version: Version
    is_release: bool
    states: dict[str, str]
    reasons: tuple[str, ...] = ()
    """A sentence for each state that is not good."""

    @property
    def is_good(self) -> bool:
        return all(state in GOOD for state in self.states.values())


@dataclass(frozen=True)
class _Place:
    """What was found for the lines of one place."""

    path: str = ""
    insertion: Insertion | None = None
    state: str = OK
    reason: str = ""


@dataclass
class _SharedFiles(Files):
    """The files of a version; what the last version had as well is not read again."""

    last: dict[str, tuple[str, Source, Source]] = field(default_factory=dict)
    """Path -> object name, file, file without our lines: those of the last version that was looked at."""

    def get(self, path: str) -> Source | None:
        assert isinstance(self.tree, CommitFiles)
        name = self.tree.object_name(path)
        if path not in self.bare and self.last.get(path, ("",))[0] == name != "":
            _, self.before[path], self.bare[path] = self.last[path]
        bare = super().get(path)
        if bare is not None:
            self.last[path] = (name, self.before[path], bare)
        return bare


class Matrix:
    """Tries patches on versions, and remembers what it found for each content of a file."""

    def __init__(self, patches: Sequence[Patch], tested: Tested) -> None:
        self.patches = [patch for patch in patches if patch.core != "depot"]
        self._tested = tested
        self._places: dict[tuple[Hunk, tuple[str, ...]], _Place] = {}
        self._woven: dict[tuple[str, str, tuple[Insertion, ...]], str] = {}
        self._last: dict[str, tuple[str, Source, Source]] = {}

    @property
    def files_woven(self) -> int:
        """How many different files were woven so far."""
        return len(self._woven)

    def rows(self, candidates: Sequence[Candidate]) -> Iterator[Row]:
        """A row for each, in the same order."""
        for candidate in candidates:
            yield self.row(candidate)

    def row(self, candidate: Candidate) -> Row:
        """How each patch does in one version."""
        tree = CommitFiles(candidate)
        files = _SharedFiles(tree, last=self._last)
        version = core_version(tree) or candidate.version
        found = {patch.name: [self._place(files, tree, patch, hunk) for hunk in patch.hunks]
                 for patch in self.patches if patch.is_for("upstream", version)}
        good = {name: places for name, places in found.items() if all(place.insertion for place in places)}
        errors = self._weave(files, tree, [place for places in good.values() for place in places])
        states, reasons = {}, []
        for patch in self.patches:
            states[patch.name], why = _state(found.get(patch.name), errors)
            reasons += [f"{patch.name}: {reason}" for reason in why]
        return Row(candidate.date, candidate.commit, version, candidate.is_release, states, tuple(reasons))

    def _place(self, files: Files, tree: CommitFiles, patch: Patch, hunk: Hunk) -> _Place:
        key = (hunk, tuple(map(tree.object_name, hunk.files)))
        if key not in self._places:
            try:
                path, anchor = locate(files, hunk)
                bodies = hooked_bodies(files, [Target(patch, path, anchor, hunk.lines)])
                state = UNTESTED if untested(self._tested, bodies) else OK
                self._places[key] = _Place(path, Insertion((anchor,), hunk.lines), state)
            except AnchorError as error:
                self._places[key] = _Place(state=error.state, reason=str(error))
            except Refused as refusal:
                self._places[key] = _Place(state="refused", reason=str(refusal))
        return self._places[key]

    def _weave(self, files: Files, tree: CommitFiles, places: Sequence[_Place]) -> dict[str, str]:
        """Path -> what is wrong with the woven file, "" for nothing."""
        errors = {}
        for path in dict.fromkeys(place.path for place in places):
            insertions = tuple(place.insertion for place in places if place.path == path and place.insertion)
            key = (path, tree.object_name(path), insertions)
            if key not in self._woven:
                data = tree.read(path) or b""
                self._woven[key] = prove(files.get(path) or sources.read(path, data), data, insertions)
            errors[path] = self._woven[key]
        return errors


def prove(bare: Source, data: bytes, insertions: Sequence[Insertion]) -> str:
    """What is wrong with a file that is woven, freed and woven again; "" for nothing. `data` is the file as
    it stands.
    """
    try:
        made = woven.weave(bare, insertions)
        freed = woven.strip(made)
        if freed.data != data:
            return f"{bare.path}: taking our lines out does not give back the same bytes."
        if woven.weave(made, insertions, made).data != made.data:
            return f"{bare.path}: weaving again changes it."
    except Refused as refusal:
        return str(refusal)
    return ""


def _state(places: Sequence[_Place] | None, errors: dict[str, str]) -> tuple[str, list[str]]:
    """The state of a patch, and why it is not good."""
    if places is None:
        return NOT_FOR, []
    bad = [place for place in places if place.insertion is None]
    if bad:
        return bad[0].state, [place.reason for place in bad]
    wrong = [errors[path] for path in dict.fromkeys(place.path for place in places) if errors[path]]
    if wrong:
        return "refused", wrong
    return UNTESTED if any(place.state == UNTESTED for place in places) else OK, []

"""What the series does to a tree: worked out whole before anything is written.

    plan_weaving(tree, patches) -> Plan(files before and after), or Refused with every reason
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from weaving import anchors, sources, woven
from weaving.errors import AnchorError, Missing, Refused
from weaving.patch_files import Anchor, Hunk, Patch
from weaving.sources import Source
from weaving.trees import Tree, core_of, core_version, version_text
from weaving.woven import Insertion


@dataclass(frozen=True)
class Target:
    """Where a hunk goes in a tree."""

    patch: Patch
    path: str
    anchor: Anchor
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """The files of a tree that the series concerns."""

    patches: tuple[Patch, ...]
    before: Mapping[str, Source]
    """As they stand, perhaps woven."""
    bare: Mapping[str, Source]
    """Without our lines."""
    after: Mapping[str, Source]
    """With them."""
    targets: tuple[Target, ...]

    @property
    def line_count(self) -> int:
        """How many lines of ours there are then."""
        return sum(len(self.after[path].lines) - len(bare.lines) for path, bare in self.bare.items())

    @property
    def changes(self) -> dict[str, bytes]:
        """Path -> new content of each file that changes."""
        return {path: source.data for path, source in self.after.items()
                if source.text != self.before[path].text}


@dataclass
class Files:
    """The files of a tree, each read, and freed of our lines, once."""

    tree: Tree
    before: dict[str, Source] = field(default_factory=dict)
    bare: dict[str, Source] = field(default_factory=dict)
    _absent: set[str] = field(default_factory=set)

    def get(self, path: str) -> Source | None:
        """A file without our lines, or None."""
        if path not in self.bare and path not in self._absent:
            data = self.tree.read(path)
            if data is None:
                self._absent.add(path)
                return None
            self.before[path] = sources.read(path, data)
            self.bare[path] = woven.strip(self.before[path])
        return self.bare.get(path)


def patches_for(tree: Tree, patches: Sequence[Patch]) -> tuple[Patch, ...]:
    """Those that belong into this core and version; Refused when there are none."""
    core, version = core_of(tree), core_version(tree)
    found = tuple(patch for patch in patches if patch.is_for(core, version))
    if not found:
        ranges = sorted({patch.headers["Upstream"] for patch in patches if "Upstream" in patch.headers})
        raise Refused(f"No patch is for {tree.name}, {version_text(version)}: the series is for "
                      f"{', '.join(ranges)}. Take a newer ComfyUI.")
    return found


def left_out(tree: Tree, patches: Iterable[Patch]) -> list[str]:
    """The names of those for this core that its version does not get."""
    core, version = core_of(tree), core_version(tree)
    return [patch.name for patch in patches
            if patch.core in ("both", core) and not patch.is_for(core, version)]


def locate(files: Files, hunk: Hunk) -> tuple[str, Anchor]:
    """The file and the anchor of a hunk: the first that exist. AnchorError says why there is none."""
    errors = []
    for path in hunk.files:
        source = files.get(path)
        if source is None:
            errors.append(f"{path} is not there.")
            continue
        try:
            anchor, _ = anchors.find_first(source, hunk.anchors)
        except Missing as error:
            errors.append(str(error))
            continue
        return path, anchor
    raise Missing(" ".join(errors))


def weave_files(files: Files, targets: Sequence[Target]) -> dict[str, Source]:
    """Each file of the targets with the lines of these."""
    made = {}
    for path in dict.fromkeys(target.path for target in targets):
        insertions = [Insertion((target.anchor,), target.lines) for target in targets if target.path == path]
        made[path] = woven.weave(files.bare[path], insertions, files.before[path])
    return made


def plan_weaving(tree: Tree, patches: Sequence[Patch], files: Files | None = None) -> Plan:
    """The whole series on a tree; Refused, with all reasons at once, when any place is not as it must be."""
    files = Files(tree) if files is None else files
    chosen = patches_for(tree, patches)
    targets, reasons = [], []
    for patch in chosen:
        for hunk in patch.hunks:
            try:
                path, anchor = locate(files, hunk)
            except AnchorError as error:
                reasons.append(f"{patch.name}: {error}")
            else:
                targets.append(Target(patch, path, anchor, hunk.lines))
    if reasons:
        raise Refused("\n".join(reasons))
    after = weave_files(files, targets)
    return Plan(chosen, {path: files.before[path] for path in after},
                {path: files.bare[path] for path in after}, after, tuple(targets))


def plan_removal(tree: Tree, patches: Sequence[Patch]) -> dict[str, bytes]:
    """Path -> content without our lines, of each file that has some."""
    files = Files(tree)
    for path in dict.fromkeys(path for patch in patches for hunk in patch.hunks for path in hunk.files):
        files.get(path)
    return {path: bare.data for path, bare in files.bare.items() if bare.text != files.before[path].text}

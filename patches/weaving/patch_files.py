"""Patches as they stand in the folder: headers, files, anchors, and lines to add.

    Subject: One line, which becomes the subject of a commit
    Why: Any text, which may go on
      in indented lines.
    Upstream: v0.3.28..

    --- folder_paths.py
    @@ before def get_full_path(folder_name, filename)
    +@depot.fetches_in_nodes

`|` between two files or two anchors: the first that exists. There are no context lines and no lines to take
away, so no text of a core stands in a patch.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weaving.errors import PatchFileError

PACKAGES = {"depot": "comfy_depot", "fleet": "comfy_fleet"}
"""What a line may call, by the name that it has in the core's files."""
REQUIRED = ("Subject", "Why", "Drop-when")
HEADERS = (*REQUIRED, "Why-not-a-node", "Upstream", "For")
CORES = ("both", "upstream", "depot")
_ANCHOR = re.compile(
    r"(?P<fixed>after imports|end of module)"
    r"|(?P<kind>before def|enter|leave) (?P<name>[A-Za-z_][\w.]*)\((?P<parameters>[\w, ]*)\)"
    r"|(?P<around>before|after) (?P<assigned>[A-Za-z_]\w*)"
)
Version = tuple[int, ...]


@dataclass(frozen=True)
class Anchor:
    """A place in a file: "before def", "enter" and "leave" name a definition with parameters that it must
    have, "before" and "after" an assignment; "after imports" and "end of module" name nothing.
    """

    kind: str
    name: str = ""
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.name:
            return self.kind
        ends = f"({', '.join(self.parameters)})" if self.kind not in ("before", "after") else ""
        return f"{self.kind} {self.name}{ends}"


@dataclass(frozen=True)
class Hunk:
    """Lines for one place; of several files and anchors the first that exists."""

    files: tuple[str, ...]
    anchors: tuple[Anchor, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Patch:
    """One feature: what it is for, and its lines."""

    name: str
    subject: str
    headers: dict[str, str]
    hunks: tuple[Hunk, ...] = ()
    since: Version = ()
    until: Version | None = None
    core: str = "both"

    @property
    def body(self) -> str:
        """The text of its commit, without the subject."""
        return "\n".join(f"{key}: {text}" for key, text in self.headers.items() if key != "Subject")

    def is_for(self, core: str, version: Version) -> bool:
        """Whether it belongs into a core ("depot" or "upstream") of a version."""
        if self.core not in ("both", core):
            return False
        return core == "depot" or (self.since <= version and (self.until is None or version <= self.until))


@dataclass
class _Reader:
    """Reads one patch, line by line."""

    where: str
    headers: dict[str, str] = field(default_factory=dict)
    hunks: list[Hunk] = field(default_factory=list)
    number: int = 0
    _files: tuple[str, ...] = ()
    _anchors: tuple[Anchor, ...] = ()
    _lines: list[str] = field(default_factory=list)

    def error(self, what: str) -> PatchFileError:
        return PatchFileError(f"{self.where}:{self.number}: {what}")

    def read(self, text: str) -> None:
        for self.number, line in enumerate(text.splitlines(), start=1):
            if line.startswith("--- "):
                self._end_hunk()
                self._files, self._anchors = _alternatives(line[4:]), ()
            elif line.startswith("@@ "):
                self._end_hunk()
                if not self._files:
                    raise self.error("a place comes before the first file. Write `--- FILE` above it.")
                self._anchors = tuple(map(self._anchor, _alternatives(line[3:])))
            elif line.startswith("+"):
                self._lines.append(self._added(line[1:]))
            elif line.strip() and not self._files:
                self._header(line)
            elif line.strip():
                raise self.error(f"`{line}` is no line to add. A patch holds only files (---), places (@@) "
                                 "and added lines (+): no context, and nothing that is taken away.")
        self._end_hunk()

    def _header(self, line: str) -> None:
        if line[0].isspace() and self.headers:
            key = next(reversed(self.headers))
            self.headers[key] += f"\n  {line.strip()}"
            return
        key, colon, text = line.partition(":")
        if not colon or key not in HEADERS or key in self.headers:
            raise self.error(f"`{line}` is no header. These are: {', '.join(HEADERS)}, each once.")
        self.headers[key] = text.strip()

    def _anchor(self, text: str) -> Anchor:
        match = _ANCHOR.fullmatch(text)
        if match is None:
            raise self.error(f"`{text}` is no place. See the table in patches/README.md.")
        if match["fixed"]:
            return Anchor(match["fixed"])
        if match["around"]:
            return Anchor(match["around"], match["assigned"])
        return Anchor(match["kind"], match["name"], _parameters(match["parameters"]))

    def _added(self, line: str) -> str:
        if not self._anchors:
            raise self.error("a line to add comes before its place. Write `@@ PLACE` above it.")
        form = form_of(line)
        kinds = {anchor.kind for anchor in self._anchors}
        if form is None:
            raise self.error(f"`{line}` is not one call of our package. A line is `@depot.name`, "
                             "`depot.name(...)` or `from comfy_depot import hooks as depot`.")
        if form == "decorator" and kinds != {"before def"}:
            raise self.error("a decorator stands at `before def` only.")
        if form != "decorator" and "before def" in kinds:
            raise self.error("`before def` takes decorators only.")
        if (form == "import") != (kinds == {"after imports"}):
            raise self.error("`after imports` is the place of imports, and of nothing else.")
        return line

    def _end_hunk(self) -> None:
        if self._anchors and not self._lines:
            raise self.error("a place without a line to add.")
        if self._lines:
            self.hunks.append(Hunk(self._files, self._anchors, tuple(self._lines)))
        self._lines = []

    def patch(self, name: str) -> Patch:
        for key in REQUIRED:
            if not self.headers.get(key):
                raise PatchFileError(f"{self.where}: the header {key} is missing.")
        core = self.headers.get("For", "both")
        if core not in CORES:
            raise PatchFileError(f"{self.where}: For is one of {', '.join(CORES)}, not {core!r}.")
        if ("Upstream" in self.headers) == (core == "depot"):
            raise PatchFileError(f"{self.where}: the header Upstream names the versions (v0.3.28..) of a "
                                 "patch that upstream gets, and of no other.")
        if not self.hunks:
            raise PatchFileError(f"{self.where}: it adds nothing.")
        since, until = self._versions()
        return Patch(name, self.headers["Subject"], self.headers, tuple(self.hunks), since, until, core)

    def _versions(self) -> tuple[Version, Version | None]:
        text = self.headers.get("Upstream", "v0..")
        match = re.fullmatch(r"(v[\d.]*\d)\.\.(v[\d.]*\d)?", text)
        if match is None:
            raise PatchFileError(f"{self.where}: Upstream is a range such as v0.3.28.. or v0.3.28..v0.9, "
                                 f"not {text!r}.")
        return version_of(match[1]), version_of(match[2]) if match[2] else None


def _alternatives(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


def _parameters(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def version_of(text: str) -> Version:
    """(0, 3, 28) of "v0.3.28"."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


def form_of(line: str) -> str | None:
    """"decorator", "call" or "import" of a line that calls our package and does nothing else, else None."""
    if line != line.strip():
        return None
    try:
        tree = ast.parse(f"{line}\ndef f(): pass" if line.startswith("@") else line)
    except SyntaxError:
        return None
    node = tree.body[0]
    if isinstance(node, ast.FunctionDef):
        is_ours = len(tree.body) == len(node.decorator_list) == 1 and root_of(node.decorator_list[0])
        return "decorator" if is_ours else None
    if len(tree.body) != 1:
        return None
    if isinstance(node, ast.ImportFrom):
        return "import" if alias_of(node) else None
    return "call" if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and root_of(node.value) \
        else None


def root_of(node: ast.expr) -> str | None:
    """"depot" or "fleet" where an expression is an attribute of it, or a call of one."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in PACKAGES:
        return node.value.id
    return None


def alias_of(node: ast.stmt) -> str | None:
    """"depot" or "fleet" where a statement imports our hooks under that name."""
    if not isinstance(node, ast.ImportFrom) or node.level or len(node.names) != 1:
        return None
    name = node.names[0]
    is_ours = name.name == "hooks" and name.asname is not None and PACKAGES.get(name.asname) == node.module
    return name.asname if is_ours else None


def parse_patch(text: str, name: str, where: str = "") -> Patch:
    """The patch that a text is; PatchFileError says in which line it is none."""
    reader = _Reader(where or f"{name}.patch")
    reader.read(text)
    return reader.patch(name)


def read_series(folder: Path) -> tuple[Patch, ...]:
    """The patches of a folder, in the order of its file `series`."""
    series = folder / "series"
    try:
        names = [line.strip() for line in series.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise PatchFileError(f"{series} cannot be read: {error.strerror}.") from error
    names = [name for name in names if name and not name.startswith("#")]
    return tuple(_read_patch(folder / name) for name in names)


def _read_patch(file: Path) -> Patch:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise PatchFileError(f"{file}, which the series names, cannot be read: {error.strerror}.") from error
    return parse_patch(text, file.name.removesuffix(".patch"), str(file))


def choose(patches: Sequence[Patch], without: Sequence[str]) -> tuple[Patch, ...]:
    """All patches but those that are named."""
    unknown = sorted(set(without) - {patch.name for patch in patches})
    if unknown:
        raise PatchFileError(f"There is no patch {', '.join(unknown)}. The patches are: "
                             f"{', '.join(patch.name for patch in patches)}.")
    return tuple(patch for patch in patches if patch.name not in without)

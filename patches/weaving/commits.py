"""`apply REF --commit`: the series as commits of a branch, one for each patch.

Only git's objects are written, through an index of our own: nothing is checked out, so a bare repository
will do. The branch moves once, at the end, from what it was to the last commit; when anything fails before
that, it stays as it was.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weaving.errors import Refused
from weaving.packages import GIVEN_ONCE, PACKAGES
from weaving.patch_files import Patch
from weaving.planning import Files, Plan, plan_removal, plan_weaving, weave_files
from weaving.trees import Commit, Repository

FILE, PROGRAM = "100644", "100755"
PACKAGES_SUBJECT = "Add ComfyUI Depot's packages"
REMOVAL_SUBJECT = "Take ComfyUI Depot's lines out"
REMOVAL_BODY = "The commits that follow put them in again, as the series is now."


@dataclass(frozen=True)
class Step:
    """What one commit does."""

    message: str
    changes: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """The commits that were made: (object name, subject), oldest first; none when nothing was to be done."""

    branch: str
    commits: tuple[tuple[str, str], ...]


def commit_series(
    tree: Commit, patches: Sequence[Patch], *, series: Sequence[Patch],
    branch: str = "depot", is_replacing: bool = False, home: Path | None = None,
) -> Made:
    """Put a branch with these patches on top of a commit; lines that it has of others of the series go. With
    `home`, the project's folder, a first commit has our packages.

    Raises Refused when a place is missing, the branch is there already, or git does not know who commits; the
    branch is then as it was.
    """
    repository, steps = tree.repository, list(plan_steps(tree, patches, series))
    before = _free_branch(repository, branch, is_replacing)
    identity = _identity(repository)
    with _Index(repository, tree.id) as index:
        commits: list[tuple[str, str]] = []
        if home is not None:
            index.put_packages(home)
            commits += index.commit(Step(PACKAGES_SUBJECT), identity)
        for step in steps:
            index.put(step.changes)
            commits += index.commit(step, identity)
    if commits:
        last = commits[-1][0]
        reason = f"weave.py apply {tree.name}"
        repository.git("update-ref", "-m", reason, f"refs/heads/{branch}", last, before)
    return Made(branch, tuple(commits))


def plan_steps(tree: Commit, patches: Sequence[Patch], series: Sequence[Patch]) -> Iterator[Step]:
    """A step for each patch that is for this version, after one that takes other lines of ours out, if there
    are any. No step for a tree that the series is woven into already.
    """
    files = Files(tree)
    plan = plan_weaving(tree, patches, files)
    removal = plan_removal(tree, series)
    is_there = not plan.changes and set(removal) <= set(plan.after)
    if is_there:
        return
    if removal:
        yield Step(f"{REMOVAL_SUBJECT}\n\n{REMOVAL_BODY}\n", removal)
    for number, patch in enumerate(plan.patches, start=1):
        yield Step(f"{patch.subject}\n\n{patch.body}\n", _woven_until(plan, files, number))


def _woven_until(plan: Plan, files: Files, number: int) -> dict[str, bytes]:
    """The files of a patch, with the lines of all patches up to it. `number` counts from 1."""
    chosen = plan.patches[:number]
    paths = {target.path for target in plan.targets if target.patch is chosen[-1]}
    targets = [target for target in plan.targets if target.patch in chosen and target.path in paths]
    return {path: made.data for path, made in weave_files(files, targets).items()}


def _free_branch(repository: Repository, branch: str, is_replacing: bool) -> str:
    """What the branch is now, zeros when there is none; Refused when it may not be moved."""
    try:
        repository.git("check-ref-format", "--branch", branch)
    except Refused:
        raise Refused(f"'{branch}' cannot be the name of a branch. Choose another with --branch.") from None
    name = f"refs/heads/{branch}"
    folder = _checked_out(repository).get(name)
    if folder is not None:
        raise Refused(f"The branch {branch} is checked out in {folder}, whose files would no longer fit it. "
                      "Check out another one there, or choose another name with --branch.")
    try:
        found = repository.git("rev-parse", "--verify", "--quiet", name)
    except Refused:
        return "0" * len(repository.git("hash-object", "--stdin", data=b""))
    if not is_replacing:
        raise Refused(f"The branch {branch} is there already, at {found[:12]}. To put new commits in its "
                      "place add --replace; to keep it choose another name with --branch.")
    return found


def _checked_out(repository: Repository) -> dict[str, str]:
    """Full name of a branch -> the work tree that has it."""
    found, folder = {}, ""
    for line in repository.git("worktree", "list", "--porcelain").splitlines():
        word, _, rest = line.partition(" ")
        if word == "worktree":
            folder = rest
        elif word == "branch":
            found[rest] = folder
    return found


def _identity(repository: Repository) -> dict[str, str]:
    """The environment that names author and committer of all commits, at one moment; Refused when git's
    configuration names nobody.
    """
    found = {}
    for who in ("AUTHOR", "COMMITTER"):
        try:
            text = repository.git("-c", "user.useConfigOnly=true", "var", f"GIT_{who}_IDENT")
        except Refused:
            raise Refused("git does not know who makes the commits. Tell it:\n"
                          '  git config --global user.name "Your Name"\n'
                          '  git config --global user.email "you@example.org"') from None
        name, _, rest = text.rpartition(" <")
        address, _, date = rest.partition("> ")
        found.update({f"GIT_{who}_NAME": name, f"GIT_{who}_EMAIL": address, f"GIT_{who}_DATE": f"@{date}"})
    return found


class _Index:
    """An index of our own, and the last commit that was made of it."""

    def __init__(self, repository: Repository, commit: str) -> None:
        self._repository = repository
        self._folder = tempfile.TemporaryDirectory(prefix="weave-")
        self._environment = {"GIT_INDEX_FILE": str(Path(self._folder.name) / "index")}
        self._commit = commit
        self._tree = self._git("rev-parse", f"{commit}^{{tree}}")

    def __enter__(self) -> _Index:
        self._git("read-tree", self._tree)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _git(self, *words: str, data: bytes = b"", identity: dict[str, str] | None = None) -> str:
        environment = {**self._environment, **(identity or {})}
        return self._repository.git(*words, data=data, environment=environment)

    def put(self, changes: Mapping[str, bytes]) -> None:
        """Give files a new content; each keeps its mode."""
        lines = []
        for path, content in changes.items():
            mode = self._git("ls-files", "--stage", "--", f":(top,literal){path}").split(" ", 1)[0]
            blob = self._git("hash-object", "-w", "--stdin", data=content)
            lines.append(f"{mode} {blob}\t{path}")
        self._update(lines)

    def put_packages(self, home: Path) -> None:
        """Make our packages what they are in the project's folder."""
        files: dict[str, Path] = {}
        outdated: set[str] = set()
        for name in (*PACKAGES, *GIVEN_ONCE):
            listed = self._git("ls-files", "-z", "--", f":(top,literal){name}")
            there = listed.rstrip("\0").split("\0") if listed else []
            if name in GIVEN_ONCE and there:
                continue
            outdated.update(there)
            files.update(_files_of(home, name))
        nothing = "0" * len(self._tree)
        self._update([f"0 {nothing}\t{path}" for path in sorted(outdated - set(files))])
        paths = "".join(f"{file}\n" for file in files.values()).encode()
        blobs = self._git("hash-object", "-w", "--no-filters", "--stdin-paths", data=paths).split()
        self._update([f"{PROGRAM if os.access(file, os.X_OK) else FILE} {blob}\t{path}"
                      for (path, file), blob in zip(files.items(), blobs, strict=True)])

    def _update(self, lines: Sequence[str]) -> None:
        self._git("update-index", "-z", "--index-info", data="".join(f"{line}\0" for line in lines).encode())

    def commit(self, step: Step, identity: dict[str, str]) -> list[tuple[str, str]]:
        """Commit what the index has; no commit when it is what the last one has."""
        tree = self._git("write-tree", "--missing-ok")  # a partial clone has not all of the files
        if tree == self._tree:
            return []
        self._tree = tree
        words = ("commit-tree", tree, "-p", self._commit, "-F", "-")
        self._commit = self._git("-c", "i18n.commitEncoding=UTF-8", *words, data=step.message.encode(),
                                 identity=identity)
        return [(self._commit, step.message.splitlines()[0])]


def _files_of(home: Path, name: str) -> Iterator[tuple[str, Path]]:
    """(path in the core, file) of a package; Refused where the project's folder does not have it."""
    if not (home / name).is_dir():
        raise Refused(f"{home / name} is not there, so it cannot be committed. Run the weave.py of a whole "
                      "checkout of ComfyUI Depot.")
    for folder, subfolders, names in os.walk(home / name):
        subfolders[:] = sorted(sub for sub in subfolders if sub != "__pycache__")
        for file in sorted(Path(folder) / name for name in names):
            if not file.is_symlink() and file.suffix not in (".pyc", ".pyo"):
                yield file.relative_to(home).as_posix(), file.resolve()

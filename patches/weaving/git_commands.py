"""The commands of `weave.py` that need git: `apply REF --commit`, `install-driver`, `matrix`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from weaving import commits, compatibility, driver, history, merging
from weaving.errors import Refused
from weaving.fingerprints import read_tested
from weaving.matrix import Matrix
from weaving.patch_files import Patch
from weaving.planning import left_out
from weaving.sources import many_trees
from weaving.trees import Commit, Repository, core_version, version_text

Command = Callable[[argparse.Namespace, Path, "tuple[Patch, ...]"], int]
Maker = Callable[[str, Command, "str | None"], argparse.ArgumentParser]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def add_apply_options(parser: argparse.ArgumentParser) -> None:
    """The options of `apply` for commits."""
    parser.add_argument("--commit", action="store_true",
                        help="commits on top of a commit, a patch each, instead of a changed folder")
    parser.add_argument("--branch", default="depot", help="the branch that gets them (default: depot)")
    parser.add_argument("--replace", action="store_true", help="put them in place of what the branch has")
    parser.add_argument("--with-packages", action="store_true", help="a first commit has our packages")
    parser.add_argument("--repo", type=Path, default=Path(), help="the git repository (default: here)")


def add_commands(command: Maker) -> None:
    """The commands that need git."""
    made = command("install-driver", _install_driver, "From now on git merges and rebases past our lines.")
    made.add_argument("repo", type=Path, nargs="?", default=Path(), help="a clone of ComfyUI (default: here)")
    made.add_argument("--uninstall", action="store_true", help="take the driver out again")
    made = command("matrix", _matrix, "Try the series on many versions of upstream.")
    made.add_argument("repos", type=Path, nargs="+", metavar="REPO", help="clones of upstream, bare ones too")
    made.add_argument("--tags", default="", metavar="A..B", help="only the releases of this range")
    made.add_argument("--since", default="", metavar="DATE", help="from this day (default: 18 months)")
    made.add_argument("--every", type=int, default=25, metavar="N",
                      help="also each Nth commit between releases; 0: none (default: 25)")
    made.add_argument("--output", type=Path, metavar="FILE", help="write the page there")
    made.add_argument("--check", action="store_true", help="compare with the page instead")
    made = command("merge-driver", _merge_driver, None)
    made.add_argument("files", type=Path, nargs=3)
    made.add_argument("marker_size")
    made.add_argument("path")
    made.add_argument("names", nargs="*", default=[])


def commit(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    """`apply REF --commit`."""
    tree = _commit_of(Repository(arguments.repo), arguments.folder)
    with many_trees():
        made = commits.commit_series(
            tree, patches, series=arguments.series, branch=arguments.branch, is_replacing=arguments.replace,
            home=home.parent if arguments.with_packages else None)
    for name, subject in made.commits:
        _say(f"  {name[:12]} {subject}")
    if made.commits:
        _say(f"{len(made.commits)} commits; the branch {made.branch} ends with the last.")
        if missing := left_out(tree, patches):
            _say(f"Not for {version_text(core_version(tree))}: {', '.join(missing)}.")
    else:
        _say(f"{tree.name} has the series already: there is nothing to do, and no branch was made.")
    return 0


def _commit_of(repository: Repository, folder: Path) -> Commit:
    ref = "HEAD" if folder == Path() else folder.as_posix()
    try:
        return Commit(repository, ref)
    except Refused:
        if not folder.is_dir():
            raise
        raise Refused(f"{ref} is a folder, and commits are made on top of a commit. Name one, and its "
                      f"repository: weave.py apply HEAD --commit --repo {ref}") from None


def _install_driver(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    repository = Repository(arguments.repo)
    if arguments.uninstall:
        driver.uninstall(repository)
        _say("git merges here as it did before.")
        return 0
    folder = driver.install(repository, home, patches)
    _say("git rebase, git merge and git cherry-pick go past our lines from now on. The driver is in "
         f"{folder}. Install it again after an update of ComfyUI Depot; --uninstall takes it out.")
    return 0


def _matrix(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    repositories = [Repository(folder) for folder in arguments.repos]
    started, rows = time.process_time(), []
    found = history.candidates(
        repositories, tags=arguments.tags, since=arguments.since, every=arguments.every)
    matrix = Matrix(patches, read_tested(home / "tested.json"))
    with many_trees():
        for row in matrix.rows(found):
            rows.append(row)
            _say(compatibility.line_of(row))
            for reason in row.reasons:
                _say(f"    {reason}")
    seconds = (time.process_time() - started) / len(rows)
    _say(f"{compatibility.summary_of(rows)} {matrix.files_woven} different files; {seconds:.2f} s of "
         "computing for each version.")
    is_same = _keep_page(arguments, home, compatibility.page_of(rows, patches, arguments.every))
    return 0 if is_same and all(row.is_good for row in rows) else 1


def _keep_page(arguments: argparse.Namespace, home: Path, page: str) -> bool:
    """Write the page, or compare it; False when it is another."""
    file = arguments.output or home / "COMPATIBILITY.md"
    try:
        if arguments.output and not arguments.check:
            file.write_text(page, encoding="utf-8")
        there = file.read_text(encoding="utf-8") if arguments.check else page
    except OSError as error:
        raise Refused(f"{file} cannot be used: {error.strerror}. Name another file with --output.") from error
    if there != page:
        _say(f"{file} is not what this history gives:\n{compatibility.difference(there, page)}")
    return there == page


def _merge_driver(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    """What git calls for a file that both sides changed: exit status 0 merged, 1 a conflict."""
    base, ours, theirs = arguments.files
    names = [name for name in arguments.names if name and not name.startswith("%")]
    sides = merging.Sides(base, ours, theirs, arguments.path, arguments.marker_size)
    if len(names) == 3:
        sides = replace(sides, names=(names[0], names[1], names[2]))
    with many_trees():
        done = merging.merge(sides, patches)
    for warning in done.warnings:
        sys.stderr.write(f"ComfyUI Depot: {warning}\n")
    if not done.is_clean:
        words = (sys.executable, str(home / "weave.py"), "apply", "--lines-only")
        again = " ".join(map(shlex.quote, words))
        sys.stderr.write("ComfyUI Depot: solve it, put our lines in again, then go on as git says:\n"
                         f"  {again}\n")
    return 0 if done.is_clean else 1

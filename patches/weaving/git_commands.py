"""The commands of `weave.py` that need git: `apply REF --commit`, `install-driver`, `matrix`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from weaving import commits, driver, merging
from weaving.patch_files import Patch, read_series
from weaving.trees import Repository

Command = Callable[[argparse.Namespace, Path, "tuple[Patch, ...]"], int]
Maker = Callable[[str, Command, "str | None"], argparse.ArgumentParser]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def add_apply_options(parser: argparse.ArgumentParser) -> None:
    """The options of `apply` for commits."""
    parser.add_argument("--commit", action="store_true",
                        help="commits on top of a commit, one for each patch, instead of a changed folder")
    parser.add_argument("--branch", default="depot", help="the branch that gets them (default: depot)")
    parser.add_argument("--replace", action="store_true", help="put them in place of what the branch has")
    parser.add_argument("--with-packages", action="store_true", help="a first commit has our packages")
    parser.add_argument("--repo", type=Path, default=Path(), help="the git repository (default: here)")


def add_commands(command: Maker) -> None:
    """The commands that need git."""
    made = command("install-driver", _install_driver, "From now on git merges and rebases past our lines.")
    made.add_argument("repo", type=Path, nargs="?", default=Path(), help="a clone of ComfyUI (default: here)")
    made.add_argument("--uninstall", action="store_true", help="take the driver out again")
    made = command("merge-driver", _merge_driver, None)
    made.add_argument("files", type=Path, nargs=3)
    made.add_argument("marker_size")
    made.add_argument("path")
    made.add_argument("names", nargs="*", default=[])


def commit(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    """`apply REF --commit`."""
    ref, repository = str(arguments.folder), Repository(arguments.repo)
    try:
        made = commits.commit_series(
            repository, "HEAD" if ref == "." else ref, patches, branch=arguments.branch,
            is_replacing=arguments.replace, home=home.parent if arguments.with_packages else None)
    finally:
        repository.close()
    for name, subject in made.commits:
        _say(f"  {name[:12]} {subject}")
    if made.commits:
        _say(f"{len(made.commits)} commits; the branch {made.branch} ends with the last.")
    else:
        _say(f"{ref} has the series already: there is nothing to do, and no branch was made.")
    return 0


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


def _merge_driver(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    """What git calls for a file that both sides changed: exit status 0 merged, 1 a conflict."""
    base, ours, theirs = arguments.files
    names = [name for name in arguments.names if name and not name.startswith("%")]
    sides = merging.Sides(base, ours, theirs, arguments.path, arguments.marker_size)
    if len(names) == 3:
        sides = replace(sides, names=(names[0], names[1], names[2]))
    done = merging.merge(sides, read_series(home))
    for warning in done.warnings:
        sys.stderr.write(f"ComfyUI Depot: {warning}\n")
    if not done.is_clean:
        words = (sys.executable, str(home / "weave.py"), "apply", "--lines-only")
        again = " ".join(map(shlex.quote, words))
        sys.stderr.write("ComfyUI Depot: solve it, put our lines in again, then go on as git says:\n"
                         f"  {again}\n")
    return 0 if done.is_clean else 1

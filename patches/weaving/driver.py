"""`install-driver`: a git merge driver for the files that have lines of ours.

    .git/config            [merge "comfyui-depot"] driver = ... merge-driver ...
    .git/info/attributes   /folder_paths.py merge=comfyui-depot     between two lines that name us
    .git/comfyui-depot/    weave.py, weaving/, series, *.patch: a copy, since a rebase may check out a
                           commit that has no patches/ of its own

All three belong to one clone and are in no commit. The linked work trees of a clone share them.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from weaving.errors import Refused
from weaving.patch_files import Patch
from weaving.trees import Commit, Repository, core_of

NAME = "comfyui-depot"
BEGIN, END = f"# {NAME}: begin", f"# {NAME}: end"
PLACEHOLDERS = ("%O", "%A", "%B", "%L", "%P", "%S", "%X", "%Y")
"""What git puts in: the three files, the size of a marker, the path, and (git 2.44 and newer) the names of
the sides. An older git leaves the last three as they are.
"""
OWN_FILES = ("weave.py", "weaving/*.py", "series", "*.patch")


def install(repository: Repository, home: Path, patches: Sequence[Patch]) -> Path:
    """Install or bring up to date; returns the folder of the copy. `home` is the folder of the patches."""
    _refuse_own_core(repository)
    common = _common_folder(repository)
    copy = common / NAME
    try:
        _copy(home, copy)
        _write_block(common, _block(patches))
    except OSError as error:
        raise Refused(f"The driver cannot be put into {common}: {error}. Make room or correct the rights, "
                      "then run the same command again.") from error
    repository.git("config", f"merge.{NAME}.name", "ComfyUI Depot: merges past its own lines")
    repository.git("config", f"merge.{NAME}.driver", command_of(Path(sys.executable), copy / "weave.py"))
    return copy


def uninstall(repository: Repository) -> None:
    """Take it out again; nothing happens where there is none."""
    common = _common_folder(repository)
    try:
        _write_block(common, [])
        shutil.rmtree(common / NAME, ignore_errors=True)
    except OSError as error:
        raise Refused(f"{error.filename} cannot be written: {error.strerror}. Correct the rights.") from error
    if repository.git("config", "--default", "", "--get", f"merge.{NAME}.driver"):
        repository.git("config", "--remove-section", f"merge.{NAME}")


def command_of(python: Path, script: Path) -> str:
    """The command line for git's shell. When Python or the copy is gone, git merges as it always does."""
    program, file = (shlex.quote(path.as_posix()).replace("%", "%%") for path in (python, script))
    return (f"if test -x {program} && test -f {file}; "
            f"then {program} -I -S {file} merge-driver {' '.join(PLACEHOLDERS)}; "
            "else git merge-file --marker-size=%L %A %O %B; fi")


def _refuse_own_core(repository: Repository) -> None:
    try:
        core = core_of(Commit(repository, "HEAD"))
    except Refused:
        return  # a clone without a commit, or of another branch than ComfyUI's: the driver waits there
    finally:
        repository.close()
    if core == "depot":
        raise Refused("This is a clone of ComfyUI Depot itself, whose lines are part of its own files. The "
                      "driver is for a clone of ComfyUI.")


def _common_folder(repository: Repository) -> Path:
    """The git folder that all work trees of a clone share."""
    found = Path(repository.git("rev-parse", "--git-common-dir"))
    return (repository.folder / found).resolve()


def _copy(home: Path, copy: Path) -> None:
    """Put our files in place of those of an earlier time, in one step."""
    if copy == home:
        raise Refused("This is the installed copy itself. Run the weave.py of ComfyUI Depot's folder.")
    new = copy.with_name(f"{NAME}.{os.getpid()}")
    try:
        for pattern in OWN_FILES:
            for file in home.glob(pattern):
                target = new / file.relative_to(home)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        if copy.exists():
            shutil.rmtree(copy)
        new.rename(copy)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _block(patches: Sequence[Patch]) -> list[str]:
    hunks = [hunk for patch in patches if patch.core != "depot" for hunk in patch.hunks]
    files = sorted({file for hunk in hunks for file in hunk.files})
    return [BEGIN, *(f"/{file} merge={NAME}" for file in files), END]


def _write_block(common: Path, block: Sequence[str]) -> None:
    """Put our lines into `info/attributes`, in place of those that are there; the user's stay."""
    file = common / "info" / "attributes"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if BEGIN in lines and END in lines:
        del lines[lines.index(BEGIN):lines.index(END) + 1]
    lines += block
    file.parent.mkdir(exist_ok=True)
    if lines or file.exists():
        beside = file.with_name(f"attributes.{os.getpid()}")
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(beside, file)

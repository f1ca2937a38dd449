"""Our packages, put beside the files of a core."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from weaving.errors import Refused

PACKAGES = ("comfy_depot", "comfy_fleet", "web/depot")
"""What is ours alone: it is brought up to date at each `apply`."""
GIVEN_ONCE = ("model_manifests",)
"""What users change: it is put there once."""
REQUIREMENTS = "patches/requirements.txt"
NOT_LOOKED_AT = {".git", ".venv", "venv", "__pycache__", "custom_nodes", "models", "node_modules", "tests"}


def put_beside(home: Path, core: Path, say: Callable[[str], None]) -> None:
    """Copy our packages from the project's folder into the core's."""
    if home == core:
        return
    try:
        for name in PACKAGES:
            _mirror(home / name, core / name)
        for name in GIVEN_ONCE:
            if not (core / name).exists():
                shutil.copytree(home / name, core / name, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise Refused(f"Our packages cannot be put into {core}: {error}. Make room, correct the rights or "
                      "move away what is in their place, then run the same command again.") from error
    say(f"Beside the core's files: {', '.join((*PACKAGES, *GIVEN_ONCE))}. What they need: "
        f"pip install -r {home / REQUIREMENTS}")


def _mirror(source: Path, target: Path) -> None:
    """Make a folder the same as ours; files of earlier versions go."""
    wanted = set(_files(source))
    for file in set(_files(target)) - wanted:
        (target / file).unlink()
    for file in wanted:
        if not ((target / file).exists() and filecmp.cmp(source / file, target / file, shallow=False)):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / file, target / file)


def _files(folder: Path) -> Iterator[Path]:
    for path, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        for name in files:
            yield (Path(path) / name).relative_to(folder)


def python_files(folder: Path) -> list[str]:
    """Each Python file of the core in a folder, our own packages left out."""
    found = []
    for path, subfolders, files in os.walk(folder):
        relative = Path(path).relative_to(folder)
        subfolders[:] = sorted(name for name in subfolders if name not in NOT_LOOKED_AT
                               and (relative / name).as_posix() not in PACKAGES and not name.startswith("."))
        found += [(relative / name).as_posix() for name in sorted(files) if name.endswith(".py")]
    return found

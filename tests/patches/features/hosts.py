"""The cores that the feature tests run on: ours, and upstream's with our lines in it.

    COMFY_UPSTREAM              checkouts of upstream ComfyUI, several as in PATH
    COMFY_UPSTREAM_PYTHON       an interpreter with what upstream and comfy_depot need (default: this one)
    COMFY_UPSTREAM_PYTHONPATH   further module folders, such as stubs of packages that are not there

A checkout is never changed: it is copied. `woven` has the lines in its files and our packages beside them,
`unwoven` is started by `weave.py run` and stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.server_process import ROOT, ServerProcess

HERE = Path(__file__).resolve().parent
WEAVE = ROOT / "patches/weave.py"
NOT_COPIED = {".git", "output", "temp", "user"}
SECONDS_TO_START = 240
"""A busy machine takes long for upstream's imports."""
LARGE = 1 << 20
"""A file of this size in models/ or input/ is the user's."""
FOLDERS = ("custom_nodes", "models/checkpoints", "models/loras", "input", "output", "temp", "user",
           "model_manifests")  # fmt: skip


@dataclass
class Core:
    """A core and how its server is started."""

    name: str
    main: Path
    python: str = sys.executable
    paths: list[str] = field(default_factory=list)
    is_ours: bool = False
    is_woven: bool = True
    checkout: Path = ROOT
    """What it is a copy of."""

    def server(self, base: Path, *options: str) -> FeatureServer:
        """A server that is not started yet, on a base directory."""
        return FeatureServer(self, base, *options)

    def digests(self) -> dict[str, str]:
        """{file: digest} of the core's Python files."""
        root = self.main.parent
        files = (file for file in root.rglob("*.py") if "custom_nodes" not in file.relative_to(root).parts)
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class FeatureServer(ServerProcess):
    """A server of a core, with the pack of the tests, whose hooks tell when they did something."""

    def __init__(self, core: Core, base: Path, *options: str) -> None:
        self.core = core
        self.fired = base / "hooks_fired"
        paths = [str(HERE / "counting"), *core.paths]
        super().__init__(base, *options, main=core.main, python=core.python,
                         environment={"PYTHONPATH": os.pathsep.join(paths), "HOOKS_FIRED": str(self.fired)})
        if not core.is_woven:
            self.command[1:2] = [str(WEAVE), "run", str(core.main)]
        for folder in FOLDERS:
            (base / folder).mkdir(parents=True, exist_ok=True)
        shutil.copytree(HERE / "pack", base / "custom_nodes/feature_pack", dirs_exist_ok=True)

    def start(self, *, seconds: float = SECONDS_TO_START) -> FeatureServer:
        super().start(seconds=seconds)
        return self

    @property
    def main_folder(self) -> str:
        return str(self.core.main.parent)

    def hooks_fired(self) -> set[str]:
        """"name place" of each hook that did something while the depot was started, or before it was."""
        lines = self.fired.read_text().splitlines() if self.fired.exists() else []
        return {line.rpartition(" ")[0] for line in lines}


def ours() -> Core:
    """The tree that this test is part of."""
    return Core("ours", ROOT / "main.py", is_ours=True)


def checkouts() -> list[Path]:
    """The checkouts of upstream that the environment names."""
    named = os.environ.get("COMFY_UPSTREAM", "").split(os.pathsep)
    return [Path(path).resolve() for path in named if path]


def copy_of(checkout: Path, folder: Path) -> Path:
    """A checkout's files in a folder that tests may change."""

    def left_out(path: str, names: list[str]) -> set[str]:
        found, first = {"__pycache__"} & set(names), Path(path).relative_to(checkout).parts[:1]
        if not first:
            found |= NOT_COPIED & set(names)
        elif first == ("custom_nodes",):
            found |= {name for name in names if os.path.isdir(os.path.join(path, name))}
        elif first[0] in ("models", "input"):
            found |= {name for name in names if os.path.getsize(os.path.join(path, name)) >= LARGE}
        return found

    return Path(shutil.copytree(checkout, folder, ignore=left_out, symlinks=True))


def upstream(checkout: Path, folder: Path, *, is_woven: bool) -> Core:
    """A copy of a checkout below `folder`: woven, or as it is and woven while it is imported."""
    copy = copy_of(checkout, folder / checkout.name)
    if is_woven:
        weave("apply", str(copy))
    extra = os.environ.get("COMFY_UPSTREAM_PYTHONPATH", "").split(os.pathsep)
    return Core(
        name=f"{'woven' if is_woven else 'unwoven'} {checkout.name}",
        main=copy / "main.py",
        python=os.environ.get("COMFY_UPSTREAM_PYTHON") or sys.executable,
        paths=[path for path in extra if path],
        is_woven=is_woven,
        checkout=checkout,
    )


def weave(*words: str) -> str:
    """What `weave.py` says; CalledProcessError with its output where it refuses."""
    done = subprocess.run([sys.executable, str(WEAVE), *words], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"weave.py {' '.join(words)} ended with {done.returncode}:\n"
                             f"{done.stdout}{done.stderr}")
    return done.stdout

"""`git apply` and GNU `patch` must refuse our patches: they would put the lines anywhere."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.small_core import FILES, write_small_core

PATCHES = sorted((Path(__file__).resolve().parents[2] / "patches").glob("*.patch"))
TOOLS = [
    *(("git", "apply", *options) for options in ([], ["-p0"], ["-p0", "--unidiff-zero", "--recount", "-C0"])),
    *(
        ("patch", "-f", *options, "-i")
        for options in (["-p1"], ["-p0"], ["-p0", "-u"], ["-p0", "-n"], ["-p0", "-e"])
    ),
]


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    folder = write_small_core(tmp_path_factory.mktemp("core"))
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


@pytest.mark.parametrize("tool", TOOLS, ids=" ".join)
def test_another_tool_refuses_each_of_our_patches(core, tool):
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed")
    assert PATCHES
    for patch in PATCHES:
        done = subprocess.run(
            [*tool, patch], cwd=core, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode != 0, f"{patch.name}: {done.stdout}"
    assert {path: (core / path).read_text() for path in FILES} == FILES
    assert not [file for file in core.rglob("*") if file.suffix in (".rej", ".orig")]

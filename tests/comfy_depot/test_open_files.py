"""Open and mapped files are found, in this process and in others, without opening them."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_depot import open_files

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a model.safetensors"
    path.write_bytes(b"x" * 10_000)
    return path


def test_a_file_that_nobody_has_open_has_no_holder(file: Path) -> None:
    assert open_files.look().holder(file) is None


def test_an_open_file_is_found(file: Path) -> None:
    with file.open("rb"):
        assert open_files.look().holder(file) == os.getpid()
    assert open_files.look().holder(file) is None


def test_a_mapping_is_found_when_its_descriptor_is_closed(file: Path) -> None:
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    # Python keeps a descriptor of its own; the mapping must be found without it.
    mappings = dict.fromkeys((path for path, _ in open_files._mapped(open_files.PROC / "self")), os.getpid())
    assert open_files.OpenFiles(mappings).holder(file) == os.getpid()
    assert open_files.look().holder(file) == os.getpid()
    mapped.close()
    assert open_files.look().holder(file) is None


def test_a_file_is_found_through_a_link_to_its_folder_and_under_its_other_name(file: Path) -> None:
    (file.parent / "link").symlink_to(file.parent)
    os.link(file, file.parent / "twin")
    with file.open("rb"):
        found = open_files.look()
        assert found.holder(file.parent / "link" / file.name) == os.getpid()
        assert found.holder(file.parent / "twin") == os.getpid()


def test_a_file_that_another_process_has_open_is_found_with_its_name(file: Path) -> None:
    code = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        assert open_files.look().holder(file) == process.pid
        assert open_files.name_of(process.pid).startswith(f"process {process.pid} (")
        process.stdin.close()
    assert open_files.name_of(process.pid) == f"process {process.pid}"
    assert open_files.name_of(os.getpid()) == "this process"


def test_without_proc_nothing_is_known_and_nothing_breaks(file: Path, tmp_path: Path) -> None:
    with file.open("rb"):
        assert open_files.look(tmp_path / "no-proc").holder(file) is None


def test_a_file_that_is_not_there_has_no_holder(tmp_path: Path) -> None:
    assert open_files.look().holder(tmp_path / "none") is None

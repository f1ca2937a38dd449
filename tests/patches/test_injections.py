"""What upstream may do to a place of ours, done to it: the whole series is refused, and says where."""

import os
from pathlib import Path

import pytest

from tests.fakes.small_core import write_small_core
from tests.fakes.small_history import weave
from tests.patches.injections import accepted, injections
from weaving.patch_files import read_series
from weaving.trees import Commit, Folder, Repository

ROOT = Path(__file__).resolve().parents[2]
SERIES = read_series(ROOT / "patches")
LEAST = {"rename": 21, "second": 20, "move": 10, "lost": 10}


def content(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_each_change_is_refused_by_file_and_name_and_nothing_is_written(tmp_path):
    tree = Folder(write_small_core(tmp_path / "ComfyUI"))
    wrong, counts = accepted(tree, SERIES)
    assert not wrong, "\n".join(wrong)
    assert all(counts[kind] >= least for kind, least in LEAST.items()), counts
    for number, altered in enumerate(injections(tree, SERIES)):
        if number % 5:
            continue
        folder = write_small_core(tmp_path / str(number))
        if altered.data is None:
            (folder / altered.path).unlink()
        else:
            (folder / altered.path).write_bytes(altered.data)
        before = content(folder)
        done = weave(ROOT / "patches", "apply", folder)
        assert done.returncode == 1 and "nothing was changed" in done.stderr, altered.name
        assert altered.path in done.stderr and altered.named in done.stderr
        assert content(folder) == before, altered.name


def trees():
    """The newest commit of each history that the environment names, and an old release where it has tags."""
    folders = [folder for folder in os.environ.get("COMFY_UPSTREAM_HISTORY", "").split(os.pathsep) if folder]
    if not folders:
        pytest.skip("COMFY_UPSTREAM_HISTORY names no clone of upstream ComfyUI")
    for folder in folders:
        repository = Repository(Path(folder))
        yield Commit(repository, "HEAD")
        if repository.git("tag", "--list", "v0.3.28"):
            yield Commit(repository, "v0.3.28")


@pytest.mark.upstream
@pytest.mark.timeout(900)
def test_each_change_of_real_files_is_refused_by_file_and_name():
    for tree in trees():
        wrong, counts = accepted(tree, SERIES)
        assert not wrong, "\n".join(wrong)
        assert all(counts[kind] >= least for kind, least in LEAST.items()), counts

"""A plain `git rebase` over a year of upstream's real history; see `rebase_upstream.py`."""

import os

import pytest

from tests.patches.rebase_upstream import (
    bases_before,
    fresh_clone,
    git,
    lean_line,
    rebase,
    run,
    weave,
)

BASES = 10


@pytest.fixture(scope="module")
def repository():
    """The newest of the histories that the environment names."""
    folders = [folder for folder in os.environ.get("COMFY_UPSTREAM_HISTORY", "").split(os.pathsep) if folder]
    if not folders:
        pytest.skip("COMFY_UPSTREAM_HISTORY names no clone of upstream ComfyUI")
    return max(folders, key=lambda folder: int(git(folder, "log", "-1", "--format=%ct", "HEAD")))


@pytest.mark.upstream
@pytest.mark.timeout(1800)
def test_ten_rebases_over_a_year_never_stop_on_our_lines(repository):
    found = list(run(repository, count=BASES))
    assert [each for each in found if not each.is_good] == []
    assert len(found) == BASES
    assert sum(each.clean_without_driver for each in found) < BASES  # or the driver would be of no use


OWN = """import functools


def of_mine():
    return functools
"""


@pytest.fixture
def clone(repository, tmp_path):
    """A clone half a year behind, with the driver, whose branch depot is checked out; and the new head."""
    base = bases_before(repository, "HEAD", 2)[1][0]
    line = tmp_path / "line.git"
    base, head = lean_line(repository, [base, git(repository, "rev-parse", "HEAD")], line)
    fresh_clone(line, base, tmp_path / "clone", with_driver=True)
    return tmp_path / "clone", head


def commit(folder, subject):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", subject)


def edit(folder, path, old, new):
    text = (folder / path).read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old, text.count(old))
    (folder / path).write_text(text.replace(old, new), encoding="utf-8", newline="")


def fresh(folder, head):
    """The files that a fresh apply on the head gives."""
    weave("apply", head, "--commit", "--branch", "fresh", "--repo", folder)
    return lambda path: git(folder, "show", f"fresh:{path}")


@pytest.mark.upstream
def test_users_own_commits_survive(clone):
    folder, head = clone
    edit(folder, "folder_paths.py", "@depot.fetches_in_nodes\n", "@noted\n@depot.fetches_in_nodes\n")
    edit(
        folder,
        "folder_paths.py",
        "import os\n",
        "import os\n\n\ndef noted(function):\n    return function\n\n\n",
    )
    (folder / "of_mine.py").write_text(OWN, encoding="utf-8")
    commit(folder, "Mine")
    clean, text = rebase(folder, head)
    assert clean, text
    wanted = fresh(folder, head)("folder_paths.py")
    wanted = wanted.replace("@depot.fetches_in_nodes\n", "@depot.fetches_in_nodes\n@noted\n")
    found = (folder / "folder_paths.py").read_text(encoding="utf-8")
    assert "def noted(function)" in found and "@depot.fetches_in_nodes\n@noted\n" in found
    assert sorted(found.split("\n")) == sorted(
        (wanted + "\n\n\ndef noted(function):\n    return function\n\n\n").split("\n")
    )
    assert (folder / "of_mine.py").read_text(encoding="utf-8") == OWN
    assert git(folder, "log", "-1", "--format=%s") == "Mine"
    weave("verify", folder)


@pytest.mark.upstream
def test_a_real_conflict_stops_as_git_does_and_apply_makes_the_tree_right(clone):
    folder, head = clone
    ours = git(folder, "show", "depot:execution.py")
    theirs = git(folder, "show", f"{head}:execution.py").splitlines()
    gone = next(line for line in ours.splitlines() if is_gone(line, ours, theirs))
    edit(folder, "execution.py", gone, f"{gone}  # mine")  # upstream has changed this very line
    commit(folder, "Mine")
    clean, text = rebase(folder, head)
    assert not clean and "put our lines in again" in text
    stopped = (folder / "execution.py").read_text(encoding="utf-8")
    assert "<<<<<<<" in stopped and "depot" not in stopped
    solved = git(folder, "show", f"{head}:execution.py") + "\n# mine\n"
    (folder / "execution.py").write_text(solved, encoding="utf-8", newline="")
    weave("apply", "--lines-only", folder)
    git(folder, "add", "-A")
    git(folder, "-c", "core.editor=true", "rebase", "--continue")
    assert git(folder, "log", "-1", "--format=%s") == "Mine"
    assert git(folder, "show", "HEAD:execution.py") == fresh(folder, head)("execution.py") + "\n# mine"
    assert git(folder, "diff", "--name-only", "fresh", "HEAD") == "execution.py"
    weave("verify", folder)


def is_gone(line, ours, theirs):
    return line.strip() and "depot" not in line and ours.count(line) == 1 and line not in theirs

"""`matrix`: the series on every version of a history, and the page that is written of it."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.fakes.small_history import (
    FILES,
    IMPORT,
    PATCHES,
    PATHS,
    SERVER,
    History,
    patch_text,
    run,
    weave,
    write_series,
)
from weaving import compatibility, fingerprints, history, matrix, sources
from weaving.errors import Refused
from weaving.patch_files import Anchor, parse_patch, read_series
from weaving.planning import Files, plan_weaving
from weaving.trees import Repository
from weaving.woven import Insertion

ROOT = Path(__file__).resolve().parents[2]
SERIES = [parse_patch(patch_text(name, places), name) for name, places in PATCHES.items()]
NOTHING_TESTED = fingerprints.Tested({}, {})


def version(number, **files):
    return {"comfyui_version.py": f'__version__ = "{number}"\n', **files}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """Versions 0.2 (too old), 0.4, 0.5 (a text changed), 0.6 (a name is gone), 0.7 (again, with a copy)."""
    made = History(tmp_path_factory.mktemp("matrix") / "ComfyUI", {**FILES, **version("0.2.0")})
    steps = {
        "0.4.0": {},
        "0.5.0": {"server.py": SERVER.replace("Mount", "Add")},
        "0.6.0": {"folder_paths.py": PATHS.replace("def get_full_path(", "def get_path(")},
        "0.7.0": {"folder_paths.py": PATHS + "\n\ndef get_full_path(folder_name, filename):\n    pass\n"},
    }
    for number, files in steps.items():
        made.commit({"notes.txt": number}, "Between")
        made.commit({**version(number), **files}, f"v{number}")
    return made


def rows_of(repository, tested=NOTHING_TESTED, patches=SERIES, **options):
    found = history.candidates([Repository(repository.folder)], **options)
    return list(matrix.Matrix(patches, tested).rows(found))


def test_without_tags_each_new_number_is_a_release_and_every_nth_commit_is_tried(upstream):
    rows = rows_of(upstream, every=3)
    assert [row.version for row in rows if row.is_release] == [
        (0, 2, 0), (0, 4, 0), (0, 5, 0), (0, 6, 0), (0, 7, 0)]  # fmt: skip
    between = [row.commit for row in rows if not row.is_release]
    line = upstream.git("rev-list", "master").splitlines()
    assert set(between) <= set(line) and len(rows) == len({row.commit for row in rows})
    assert len(rows_of(upstream, every=1)) == len(line) == 9
    assert len(rows_of(upstream, every=0)) == 5


def test_the_state_of_each_patch_in_each_version(upstream):
    states = {row.version: list(row.states.values()) for row in rows_of(upstream, every=0)}
    assert states == {
        (0, 2, 0): ["-", "-", "-"],
        (0, 4, 0): ["ok*", "ok*", "ok*"],
        (0, 5, 0): ["ok*", "ok*", "ok*"],
        (0, 6, 0): ["ok*", "missing", "ok*"],
        (0, 7, 0): ["ok*", "ambiguous", "ok*"],
    }
    reasons = [reason for row in rows_of(upstream, every=0) for reason in row.reasons]
    assert "`before def get_full_path(folder_name, filename)` is not there. Near: get_path" in reasons[0]
    assert reasons[0].startswith("fetch: folder_paths.py") and "lines 4" not in reasons[1]
    assert "several places" in reasons[1]


def test_what_changed_its_form_is_named(upstream, tmp_path):
    made = upstream.copy(tmp_path / "ComfyUI")
    made.commit(version("0.8.0", **{
        "folder_paths.py": PATHS.replace("(folder_name, filename):", "(folder_name):"),
        "server.py": SERVER.replace("class PromptServer:", "class PromptServer"),
    }))  # fmt: skip
    row = rows_of(made, every=0)[-1]
    assert row.states == {"lists": "ok*", "fetch": "signature changed", "routes": "refused"}
    assert any("server.py:4 is not valid Python" in reason for reason in row.reasons)


def test_a_body_that_was_tested_has_no_star(upstream):
    found = history.candidates([Repository(upstream.folder)], every=0)[1]
    files = Files(history.CommitFiles(found))
    plan = plan_weaving(files.tree, SERIES, files)
    bodies = fingerprints.hooked_bodies(files, plan.targets)
    tested = fingerprints.accept(NOTHING_TESTED, bodies, "v0.4.0")
    rows = rows_of(upstream, tested, every=0)
    assert list(rows[1].states.values()) == ["ok", "ok", "ok"]
    assert list(rows[2].states.values()) == ["ok", "ok", "ok"]  # a docstring is no part of a body


def test_an_unchanged_file_is_woven_once(upstream):
    tries = matrix.Matrix(SERIES, NOTHING_TESTED)
    found = history.candidates([Repository(upstream.folder)], every=1)
    assert len(list(tries.rows(found))) == 9
    # folder_paths.py: two patches on the first text, one on each of two later; server.py: two texts.
    assert tries.files_woven == 5


def test_tags_are_the_releases_where_there_are_some(upstream, tmp_path):
    made = upstream.copy(tmp_path / "ComfyUI")
    line = made.git("rev-list", "--reverse", "master").splitlines()
    made.git("tag", "v0.4.0", line[2])
    made.git("tag", "-a", "-m", "An annotated one", "v0.5.0", line[4])
    made.git("tag", "latest", line[8])
    rows = rows_of(made, every=0)
    assert [(row.version, row.commit) for row in rows] == [((0, 4, 0), line[2]), ((0, 5, 0), line[4])]
    assert [row.version for row in rows_of(made, tags="v0.4.1..")] == [(0, 5, 0)]
    assert [row.version for row in rows_of(made, tags="..v0.4")] == [(0, 4, 0)]
    both = history.candidates([Repository(made.folder), Repository(upstream.folder)], every=0)
    assert [found.version for found in both] == [(0, 2, 0), (0, 4, 0), (0, 5, 0), (0, 6, 0), (0, 7, 0)]


@pytest.mark.parametrize("tags", ["v0.4", "0.4..0.5", "v0.4..v", "a..b"])
def test_a_range_that_is_none_is_refused(upstream, tags):
    with pytest.raises(Refused, match="--tags is a range such as"):
        rows_of(upstream, tags=tags)


def test_a_range_without_a_version_and_a_day_that_is_none_are_refused(upstream):
    with pytest.raises(Refused, match="no version in this range"):
        rows_of(upstream, since="2999-01-01")
    with pytest.raises(Refused, match="--since is a day such as 2025-03-01, not 'March'"):
        rows_of(upstream, since="March")


def test_a_file_that_does_not_come_back_is_no_success():
    bare = sources.read("server.py", SERVER.encode())
    lines = [
        Insertion(
            (Anchor("enter", "PromptServer.add_routes", ("self",)),), ("depot.add_routes(self.routes)",)
        )
    ]
    head = [Insertion((Anchor("after imports"),), (IMPORT.strip(),)), *lines]
    assert matrix.prove(bare, bare.data, head) == ""
    other = SERVER.replace('"status"', '"state"').encode()
    assert "does not give back the same bytes" in matrix.prove(bare, other, head)
    assert "server.py" in matrix.prove(bare, bare.data, lines)  # a call without the import would be nobody's


def test_the_command_writes_the_page_and_compares_it(upstream, tmp_path):
    home = write_series(tmp_path / "Depot")
    done = weave(home, "matrix", upstream.folder, "--every", 2, "--output", home / "COMPATIBILITY.md")
    assert done.returncode == 1  # two versions are refused
    assert re.search(r"\d+ versions, \d+ pairs .* s of computing for each version\.", done.stdout)
    assert re.search(r"v0\.6\.0 +2 ok\*; fetch: missing", done.stdout)
    page = (home / "COMPATIBILITY.md").read_text()
    assert "| version | date | commit | lists | fetch | routes |" in page
    assert re.search(r"\| v0\.7\.0 \| \d{4}-\d\d-\d\d \| [0-9a-f]{10} \| ok\* \| ambiguous \| ok\* \|", page)
    assert "- v0.6.0, " in page and str(upstream.folder) not in page
    assert page.index("v0.7.0") < page.index("v0.4.0")
    again = weave(home, "matrix", upstream.folder, "--every", 2, "--check")
    assert again.returncode == 1 and "is not what this history gives" not in again.stdout
    (home / "COMPATIBILITY.md").write_text(page.replace("ambiguous", "ok"))
    again = weave(home, "matrix", upstream.folder, "--every", 2, "--check")
    assert "is not what this history gives" in again.stdout and "+| v0.7.0" in again.stdout
    (home / "COMPATIBILITY.md").unlink()
    done = weave(home, "matrix", upstream.folder, "--check")
    assert done.returncode == 1 and "cannot be used" in done.stderr


def test_all_good_ends_with_zero(upstream, tmp_path):
    home = write_series(tmp_path / "Depot")
    made = upstream.copy(tmp_path / "ComfyUI")
    made.git("tag", "v0.4.0", "master~6")
    done = weave(home, "matrix", made.folder, "--tags", "v0.4..v0.5")
    assert done.returncode == 0, done.stdout
    assert "1 versions, 3 pairs of a version and a patch for it: 3 ok (100.0 %)" in done.stdout


def test_the_page_has_a_column_for_each_patch_of_the_series():
    page = (ROOT / "patches/COMPATIBILITY.md").read_text(encoding="utf-8")
    names = [patch.name for patch in read_series(ROOT / "patches") if patch.core != "depot"]
    assert f"| version | date | commit | {' | '.join(names)} |" in page
    assert "(100.0 %)" in page and "0 refused" in page


def histories():
    """The repositories with upstream's history that the environment names."""
    folders = [folder for folder in os.environ.get("COMFY_UPSTREAM_HISTORY", "").split(os.pathsep) if folder]
    if not folders:
        pytest.skip("COMFY_UPSTREAM_HISTORY names no clone of upstream ComfyUI")
    return folders


@pytest.mark.upstream
@pytest.mark.timeout(1200)
def test_the_page_is_what_upstreams_history_gives():
    words = ("patches/weave.py", "matrix", *histories(), "--check")
    done = run(sys.executable, *words, folder=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    seconds = float(re.search(r"([\d.]+) s of computing", done.stdout)[1])
    assert seconds <= 1  # about a third of one on an idle machine; a loaded one counts more


@pytest.mark.upstream
def test_a_page_row_is_a_real_commit():
    page = (ROOT / "patches/COMPATIBILITY.md").read_text(encoding="utf-8")
    commits = re.findall(r"\| ([0-9a-f]{10}) \|", page)
    known = set()
    for folder in histories():
        found = run("git", "-C", folder, "log", "--format=%H", "--all")
        known |= {name[:10] for name in found.stdout.split()}
    assert commits and set(commits) <= known
    assert compatibility.difference(page, page) == ""

"""A patch holds headers, files, places and lines of ours: everything else is refused, with its line."""

import subprocess
from pathlib import Path

import pytest

from weaving.errors import PatchFileError
from weaving.patch_files import Anchor, choose, form_of, parse_patch, read_series, version_of

PATCHES = Path(__file__).resolve().parents[2] / "patches"
HEADERS = "Subject: Try\nWhy: to see\nDrop-when: seen\nUpstream: v0.3.28..\n\n"
IMPORT = "from comfy_depot import hooks as depot"


def parse(text):
    return parse_patch(HEADERS + text, "try")


def test_a_patch_is_read_with_its_alternatives():
    patch = parse(
        "--- a.py | b/c.py\n@@ after imports\n+" + IMPORT + "\n"
        '@@ before def Class.name(p, q) | before def name()\n+@depot.one\n+@depot.two("x")\n'
    )
    assert (patch.subject, patch.since, patch.until, patch.core) == ("Try", (0, 3, 28), None, "both")
    first, second = patch.hunks
    assert first.files == ("a.py", "b/c.py") and first.anchors == (Anchor("after imports"),)
    assert second.anchors == (Anchor("before def", "Class.name", ("p", "q")), Anchor("before def", "name"))
    assert second.lines == ("@depot.one", '@depot.two("x")')
    assert str(second.anchors[0]) == "before def Class.name(p, q)"


def test_a_header_goes_on_in_indented_lines():
    patch = parse_patch(
        "Subject: Try\nWhy: to\n  see\nDrop-when: seen\nFor: depot\n--- a.py\n@@ enter f(x)\n+depot.run()\n",
        "try",
    )
    assert patch.headers["Why"] == "to\n  see"
    assert patch.body == "Why: to\n  see\nDrop-when: seen\nFor: depot"


WRONG = [
    ("--- a.py\n@@ enter f()\n context\n", "no line to add", "a context line"),
    ("--- a.py\n@@ enter f()\n-depot.run()\n", "no line to add", "a line to take away"),
    ("--- a.py\n@@ enter f()\n+if x: depot.run()\n", "not one call of our package", "a condition"),
    ("--- a.py\n@@ enter f()\n+x = depot.run()\n", "not one call of our package", "a value that is kept"),
    ("--- a.py\n@@ enter f()\n+return depot.run()\n", "not one call of our package", "a return"),
    ("--- a.py\n@@ enter f()\n+depot.run(); other()\n", "not one call of our package", "two statements"),
    ("--- a.py\n@@ enter f()\n+other.run()\n", "not one call of our package", "somebody else's call"),
    ("--- a.py\n@@ enter f()\n+    depot.run()\n", "not one call of our package", "its own indentation"),
    ("--- a.py\n@@ enter f()\n+@depot.run\n", "at `before def` only", "a decorator inside"),
    ("--- a.py\n@@ before def f()\n+depot.run()\n", "takes decorators only", "a call above a definition"),
    ("--- a.py\n@@ after imports\n+depot.run()\n", "the place of imports", "a call among imports"),
    ("--- a.py\n@@ enter f()\n+" + IMPORT + "\n", "the place of imports", "an import in a function"),
    ("--- a.py\n@@ near f\n+depot.run()\n", "is no place", "an anchor that is none"),
    ("--- a.py\n@@ before def f\n+@depot.run\n", "is no place", "a definition without parentheses"),
    ("--- a.py\n@@ enter f()\n@@ enter g()\n+depot.run()\n", "without a line to add", "an empty hunk"),
    ("@@ enter f()\n+depot.run()\n", "before the first file", "a place without a file"),
    ("--- a.py\n+depot.run()\n", "before its place", "a line without a place"),
    ("Colour: red\n--- a.py\n@@ enter f()\n+depot.run()\n", "is no header", "an unknown header"),
    ("", "it adds nothing", "no hunk at all"),
]


@pytest.mark.parametrize(("text", "words", "why"), WRONG, ids=[case[2] for case in WRONG])
def test_what_is_no_patch_is_refused(text, words, why):
    with pytest.raises(PatchFileError, match=words) as caught:
        parse(text)
    assert "try.patch" in str(caught.value)


def test_an_error_names_the_line():
    with pytest.raises(PatchFileError, match=r"^try\.patch:8: "):
        parse("--- a.py\n@@ enter f()\n context\n")


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ("Why: w\nDrop-when: d\nUpstream: v1..\n", "header Subject is missing"),
        ("Subject: s\nDrop-when: d\nUpstream: v1..\n", "header Why is missing"),
        ("Subject: s\nWhy: w\nUpstream: v1..\n", "header Drop-when is missing"),
        ("Subject: s\nWhy: w\nDrop-when: d\n", "header Upstream names the versions"),
        (
            "Subject: s\nWhy: w\nDrop-when: d\nFor: depot\nUpstream: v1..\n",
            "header Upstream names the versions",
        ),
        ("Subject: s\nWhy: w\nDrop-when: d\nFor: me\n", "For is one of both, upstream, depot"),
        ("Subject: s\nWhy: w\nDrop-when: d\nUpstream: new\n", "Upstream is a range"),
    ],
)
def test_headers_are_checked(headers, words):
    with pytest.raises(PatchFileError, match=words):
        parse_patch(headers + "--- a.py\n@@ enter f()\n+depot.run()\n", "try")


@pytest.mark.parametrize(
    ("upstream", "version", "is_in"),
    [
        ("v0.3.28..", "0.3.27", False),
        ("v0.3.28..", "0.3.28", True),
        ("v0.3.28..", "0.33.0", True),
        ("v0.3.28..v0.9.1", "0.9.1", True),
        ("v0.3.28..v0.9.1", "0.9.2", False),
        ("v0.3.28..", "", False),
    ],
)
def test_a_patch_is_for_a_range_of_versions(upstream, version, is_in):
    patch = parse_patch(
        f"Subject: s\nWhy: w\nDrop-when: d\nUpstream: {upstream}\n--- a.py\n@@ enter f()\n+depot.run()\n",
        "try",
    )
    assert patch.is_for("upstream", version_of(version)) is is_in
    assert patch.is_for("depot", version_of(version))


@pytest.mark.parametrize(
    ("line", "form"),
    [
        (IMPORT, "import"),
        ("from comfy_fleet import hooks as fleet", "import"),
        ("from comfy_fleet import hooks as depot", None),
        ("from comfy_depot import hooks", None),
        ("import comfy_depot", None),
        ("@depot.x", "decorator"),
        ('@depot.x("a", b=1)', "decorator"),
        ("@other.x", None),
        ("@depot", None),
        ("@depot.x\n@y", None),
        ("depot.x()", "call"),
        ("fleet.x(self, y)", "call"),
        ("depot.x", None),
        ("depot.x.y()", None),
        ("await depot.x()", None),
        ("depot.", None),
    ],
)
def test_a_line_is_one_call_of_our_package(line, form):
    assert form_of(line) == form


def test_patches_can_be_left_out_by_name():
    series = read_series(PATCHES)
    assert [patch.name for patch in choose(series, ["force"])] == [
        patch.name for patch in series if patch.name != "force"
    ]
    with pytest.raises(PatchFileError, match="no patch colour. The patches are: start"):
        choose(series, ["colour"])


def test_a_series_that_names_a_missing_patch_says_so(tmp_path):
    with pytest.raises(PatchFileError, match="series cannot be read"):
        read_series(tmp_path)
    (tmp_path / "series").write_text("# comment\nlost.patch\n")
    with pytest.raises(PatchFileError, match=r"lost\.patch, which the series names, cannot be read"):
        read_series(tmp_path)


def test_every_patch_of_the_folder_is_in_the_series_and_small():
    series = read_series(PATCHES)
    assert {patch.name for patch in series} == {file.stem for file in PATCHES.glob("*.patch")}
    for patch in series:
        lines = [line for hunk in patch.hunks for line in hunk.lines if form_of(line) != "import"]
        assert 1 <= len(lines) <= 5, patch.name


@pytest.mark.parametrize(
    "command",
    [
        ["git", "apply", "--check"],
        ["git", "apply", "--check", "-p0", "--unidiff-zero"],
        ["patch", "--dry-run", "-p0", "-i"],
        ["patch", "--dry-run", "-p1", "-i"],
    ],
    ids=" ".join,
)
def test_git_and_patch_refuse_our_files_rather_than_misread_them(tmp_path, command):
    for name in ("folder_paths.py", "server.py", "execution.py"):
        (tmp_path / name).write_text("import os\n\n\ndef get_full_path(folder_name, filename):\n    pass\n")
    for file in PATCHES.glob("*.patch"):
        done = subprocess.run([*command, str(file)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode, file.name
    assert "depot" not in (tmp_path / "folder_paths.py").read_text()

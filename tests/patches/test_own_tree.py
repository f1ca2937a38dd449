"""Our own core has the lines of the series in their places and no others: there is one source of truth."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import comfy_depot.hooks
from weaving import checks, planning
from weaving.errors import Refused
from weaving.packages import python_files
from weaving.patch_files import form_of, read_series
from weaving.trees import Folder, core_of

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "patches"


@pytest.fixture(scope="module")
def series():
    return read_series(PATCHES)


@pytest.fixture(scope="module")
def plan(series):
    return checks.verify(Folder(ROOT), series, python_files(ROOT))


def test_the_command_says_that_our_tree_is_the_series():
    done = subprocess.run(
        [sys.executable, "patches/weave.py", "verify", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "are the series" in done.stdout


def test_our_core_is_told_from_upstreams(tmp_path):
    assert core_of(Folder(ROOT)) == "depot"
    with pytest.raises(Refused, match=r"is no ComfyUI: it has no folder_paths\.py"):
        core_of(Folder(tmp_path))


def copy_of(plan, folder):
    for path, source in plan.before.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(source.data)
    (folder / "pyproject.toml").write_text('name = "comfyui-depot"\n')
    return Folder(folder)


def test_a_lost_line_is_found(plan, series, tmp_path):
    tree = copy_of(plan, tmp_path)
    text = (tmp_path / "server.py").read_text()
    (tmp_path / "server.py").write_text(text.replace("        depot.queue_changed()\n", ""))
    with pytest.raises(Refused, match=r"server\.py: line \d+ is .* and would be `depot\.queue_changed\(\)`"):
        checks.verify(tree, series)


def test_a_line_in_another_place_is_found(plan, series, tmp_path):
    tree = copy_of(plan, tmp_path)
    text = (tmp_path / "server.py").read_text()
    text = text.replace("        depot.queue_changed()\n        if not", "        if not")
    (tmp_path / "server.py").write_text(text + "\n\ndef other():\n    depot.queue_changed()\n    return 1\n")
    with pytest.raises(Refused, match=r"server\.py: line"):
        checks.verify(tree, series)


def test_a_line_that_no_patch_has_is_found(plan, series, tmp_path):
    tree = copy_of(plan, tmp_path)
    (tmp_path / "protocol.py").write_text(
        "from comfy_depot import hooks as depot\n\ndepot.free_idle_models()\n"
    )
    with pytest.raises(Refused, match=r"protocol\.py:3: `depot\.free_idle_models\(\)` is in no patch"):
        checks.verify(tree, series, ["protocol.py"])


def test_without_our_lines_no_core_file_names_us(plan, series, tmp_path):
    tree = copy_of(plan, tmp_path)
    tree.write(planning.plan_removal(tree, series))
    for path in plan.before:
        text = (tmp_path / path).read_text()
        assert "import hooks" not in text, path
        names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        assert "depot" not in names, f"{path} uses a name that goes with the lines"
    tree.write(planning.plan_weaving(tree, series).changes)
    for path, source in plan.before.items():
        assert (tmp_path / path).read_bytes() == source.data, path


def test_every_line_calls_a_hook_that_exists(series):
    for patch in series:
        for line in (line for hunk in patch.hunks for line in hunk.lines if form_of(line) != "import"):
            name = line.lstrip("@").removeprefix("depot.").partition("(")[0]
            assert callable(getattr(comfy_depot.hooks, name, None)), f"{patch.name}: {line}"


def test_every_hook_stands_in_a_patch(series):
    lines = [line for patch in series for hunk in patch.hunks for line in hunk.lines]
    not_woven = {"arm", "disarm", "armed"}
    hooks = {
        name
        for name, value in vars(comfy_depot.hooks).items()
        if callable(value) and not name.startswith("_") and value.__module__ == "comfy_depot.hooks"
    }
    unused = {
        name
        for name in hooks - not_woven
        if not any(line.lstrip("@").startswith((f"depot.{name}(", f"depot.{name}")) for line in lines)
    }
    assert not unused

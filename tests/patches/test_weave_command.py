"""`weave.py` as a user runs it: what it writes, what it refuses, and how it ends."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.small_core import FILES, write_small_core

ROOT = Path(__file__).resolve().parents[2]
WEAVE = ROOT / "patches" / "weave.py"


@pytest.fixture
def core(tmp_path):
    return write_small_core(tmp_path / "ComfyUI")


def weave(*words, cwd=None, script=WEAVE, python=sys.executable, environment=None):
    return subprocess.run(
        [python, str(script), *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def content(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_apply_and_remove_leave_no_trace(core):
    before = content(core)
    done = weave("apply", core, "--lines-only")
    assert done.returncode == 0, done.stderr
    assert "13 patches, 35 lines in 12 files" in done.stdout and "12 files changed" in done.stdout
    woven = content(core)
    assert {path for path in before if woven[path] != before[path]} == {
        path for path in FILES if path not in ("pyproject.toml", "comfyui_version.py", "comfy/__init__.py")
    }
    again = weave("apply", core, "--lines-only")
    assert ": 0 files changed" in again.stdout and content(core) == woven
    assert weave("verify", core).returncode == 0
    assert "12 files" in weave("remove", core).stdout
    assert content(core) == before


def test_the_current_folder_is_meant_when_none_is_named(core):
    assert weave("apply", "--lines-only", cwd=core).returncode == 0
    assert "depot.runs_prompts" in (core / "execution.py").read_text()


def test_our_packages_come_beside_and_stay_up_to_date(core):
    done = weave("apply", core)
    assert "pip install -r" in done.stdout and (ROOT / "patches/requirements.txt").is_file()
    for name in ("comfy_depot/hooks.py", "comfy_fleet/hooks.py", "web/depot/depot.js"):
        assert (core / name).read_bytes() == (ROOT / name).read_bytes()
    assert not list(core.rglob("__pycache__"))
    own = core / "model_manifests" / "mine.json"
    own.write_text("{}")
    (core / "comfy_depot/hooks.py").write_text("old")
    (core / "comfy_depot/gone.py").write_text("of an earlier version")
    assert weave("apply", core).returncode == 0
    assert (core / "comfy_depot/hooks.py").read_bytes() == (ROOT / "comfy_depot/hooks.py").read_bytes()
    assert not (core / "comfy_depot/gone.py").exists() and own.read_text() == "{}"


def test_where_our_packages_cannot_be_put_no_line_is_woven(core):
    (core / "comfy_depot").write_text("a file in their place")
    before = content(core)
    done = weave("apply", core)
    assert done.returncode == 1 and content(core) == before
    assert "nothing was changed" in done.stderr and "Our packages cannot be put into" in done.stderr
    assert "move away what is in their place" in done.stderr


def test_a_patch_can_be_left_out(core):
    assert weave("--without", "force", "apply", core, "--lines-only").returncode == 0
    assert "takes_force" not in (core / "server.py").read_text()
    assert "depot.queue_changed()" in (core / "server.py").read_text()
    assert weave("apply", core, "--lines-only").returncode == 0
    assert "takes_streamed" in (core / "comfy/utils.py").read_text()
    left = weave("--without", "stream", "verify", core)
    assert left.returncode == 1 and "comfy/utils.py:2:" in left.stderr and "in no patch" in left.stderr
    assert weave("--without", "stream", "apply", core, "--lines-only").returncode == 0
    assert weave("--without", "stream", "verify", core).returncode == 0
    assert (core / "comfy/utils.py").read_text() == FILES["comfy/utils.py"], "no other patch has lines there"
    assert "takes_force" in (core / "server.py").read_text()
    wrong = weave("--without", "colour", "apply", core)
    assert wrong.returncode == 1 and "There is no patch colour" in wrong.stderr


def test_all_or_nothing_and_every_reason_at_once(core):
    for path, old, new in (
        ("server.py", "def queue_updated", "def queue_changed"),
        ("comfy/sd.py", "unet_path", "path"),
    ):
        (core / path).write_text((core / path).read_text().replace(old, new))
    before = content(core)
    done = weave("apply", core)
    assert done.returncode == 1 and content(core) == before
    assert "nothing was changed" in done.stderr
    assert (
        "preload: server.py: `enter PromptServer.queue_updated(self)` is not there. "
        "Near: PromptServer.queue_changed"
        in done.stderr
    )
    assert (
        "resident: comfy/sd.py:12: `load_diffusion_model(path)` has no parameter unet_path any more"
        in done.stderr
    )


def test_check_writes_nothing_and_tells_by_its_status(core):
    before = content(core)
    done = weave("check", core)
    assert done.returncode == 3 and "ok, body untested" in done.stdout and "check turns yellow" in done.stdout
    (core / "server.py").write_text(FILES["server.py"] + "\nclass PromptServer:\n    pass\n")
    done = weave("check", core, "--json")
    assert done.returncode == 1
    states = {(finding["patch"], finding["state"]) for finding in json.loads(done.stdout)}
    assert ("preload", "ambiguous") in states and ("start", "ok") in states
    (core / "server.py").write_text(FILES["server.py"])
    assert content(core) == before


def test_check_is_good_once_the_bodies_are_accepted(core, tmp_path):
    patches = tmp_path / "project" / "patches"
    shutil.copytree(ROOT / "patches", patches)
    script = patches / "weave.py"
    tested = json.loads((patches / "tested.json").read_text())
    (patches / "tested.json").write_text(
        json.dumps({"bodies": {}, "watches": {"server.py": ["PromptServer.send_sync"]}})
    )
    assert weave("check", core, script=script).returncode == 3
    assert "22 bodies are new" in weave("accept", core, script=script).stdout
    assert weave("check", core, script=script).returncode == 0
    text = (core / "execution.py").read_text()
    (core / "execution.py").write_text(text.replace("return False", "# a comment\n        return  (False)"))
    assert weave("check", core, script=script).returncode == 0, "how it is written does not matter"
    (core / "execution.py").write_text(text.replace("return False", "return True"))
    done = weave("check", core, script=script)
    assert done.returncode == 3 and done.stdout.count("body untested") == 1
    (core / "execution.py").write_text(text)
    (core / "server.py").write_text((core / "server.py").read_text().replace("send_sync", "send_now"))
    done = weave("check", core, script=script)
    assert (
        done.returncode == 3
        and "watch missing" in done.stdout
        and "server.py: PromptServer.send_sync" in done.stdout
    )
    assert tested["watches"]


@pytest.mark.parametrize("python", ["python3.10", "python3.12", "python3.13"])
def test_the_digest_of_a_body_is_the_same_in_every_python(python, tmp_path):
    if shutil.which(python) is None or subprocess.run([python, "-c", ""]).returncode:
        pytest.skip(f"{python} is not installed")
    code = (
        "import ast, sys; sys.path.insert(0, sys.argv[1])\n"
        "from weaving.fingerprints import digest_of\n"
        "for file in sys.argv[2:]:\n"
        "    for node in ast.walk(ast.parse(open(file, encoding='utf-8').read())):\n"
        "        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):\n"
        "            print(node.name, digest_of(node))\n"
    )
    files = [
        str(ROOT / name)
        for name in ("execution.py", "server.py", "folder_paths.py", "comfy/model_management.py")
    ]
    words = ["-c", code, str(ROOT / "patches"), *files]
    one, other = (
        subprocess.run([which, *words], capture_output=True, text=True, check=True).stdout
        for which in (python, sys.executable)
    )
    assert one == other and len(one.splitlines()) > 100


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("check", "nowhere"), "'nowhere' is neither a folder nor a commit"),
        (("apply", "nowhere"), "is no ComfyUI"),
        (("check", "empty"), "is no ComfyUI: it has no folder_paths.py"),
        (("run", "empty/main.py"), "main.py is not there. Name the main.py of a ComfyUI"),
    ],
)
def test_a_wrong_target_is_refused(tmp_path, words, says):
    (tmp_path / "empty").mkdir()
    done = weave(*words, cwd=tmp_path)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr


def test_a_version_that_no_patch_is_for_is_refused(core):
    (core / "comfyui_version.py").write_text('__version__ = "0.2.7"\n')
    for command in ("apply", "check"):
        done = weave(command, core)
        assert done.returncode == 1
        assert "v0.2.7: the series is for v0.3.28... Take a newer ComfyUI" in done.stderr


def test_a_file_with_a_conflict_is_refused(core):
    (core / "server.py").write_text("<<<<<<< HEAD\n" + FILES["server.py"])
    done = weave("apply", core)
    assert done.returncode == 1 and "server.py:1 is not valid Python" in done.stderr


def test_a_folder_that_cannot_be_written_is_left_as_it_is(core):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    before = content(core)
    (core / "comfy").chmod(0o555)
    try:
        done = weave("apply", core)
    finally:
        (core / "comfy").chmod(0o755)
    assert done.returncode == 1 and "cannot be written" in done.stderr and content(core) == before


def test_a_full_disk_changes_no_file(core, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        write_small_core(full)
        (full / "filler").write_bytes(b"x" * (4096 * 2))
        before = content(full)
        done = weave("apply", full, "--lines-only")
        assert done.returncode == 1 and "cannot be written" in done.stderr and "Make room" in done.stderr
        assert content(full) == before
    finally:
        subprocess.run(["umount", str(full)], check=True)

"""`weave.py run main.py`: the core runs with our lines, no file changes, and tracebacks show real lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.small_core import write_small_core
from tests.patches.test_weave_command import WEAVE, content

HOOKS = """
import functools
called = []
def __getattr__(name):
    if name in ("keeps_resident",):
        return lambda *args, **kwargs: (lambda function: function)
    if name in ("add_options", "queue_changed", "add_routes", "free_idle_models"):
        return lambda *args, **kwargs: called.append(name)
    if name.startswith("_"):
        raise AttributeError(name)
    def around(function):
        @functools.wraps(function)
        def inner(*args, **kwargs):
            called.append(name)
            return function(*args, **kwargs)
        return inner
    return around
"""


@pytest.fixture
def core(tmp_path):
    """A core with hooks beside it that note their calls."""
    core = write_small_core(tmp_path / "ComfyUI")
    (core / "comfy_depot").mkdir()
    (core / "comfy_depot/__init__.py").write_text("")
    (core / "comfy_depot/hooks.py").write_text(HOOKS)
    return core


def run(core, *words, main=None):
    if main is not None:
        (core / "main.py").write_text(main)
    before = content(core)
    done = subprocess.run(
        [sys.executable, str(WEAVE), "run", str(core / "main.py"), *words],
        capture_output=True,
        text=True,
        cwd=core.parent,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert content(core) == before
    return done


def test_it_runs_as_the_program_with_its_words_and_its_status(core):
    done = run(core, "--port", "1")
    assert done.stdout == "checkpoints/a ['--port', '1']\n" and done.returncode == 7, done.stderr


def test_the_hooks_are_called(core):
    done = run(
        core,
        main="""import folder_paths
import comfy.cli_args, server, execution
from comfy_depot import hooks

def start_comfyui(asyncio_loop=None):
    folder_paths.get_full_path_or_raise("checkpoints", "a")
    server.PromptServer().queue_updated()
    execution.PromptExecutor().execute({}, "id")

if __name__ == "__main__":
    start_comfyui()
    print(*hooks.called)
""",
    )
    assert done.stdout.split() == [
        "add_options",
        "starts_with_the_server",
        "explains_missing",
        "fetches_in_nodes",
        "queue_changed",
        "free_idle_models",
        "runs_prompts",
    ], done.stderr


def test_tracebacks_show_the_lines_of_the_file_as_it_stands(core):
    text = (
        (core / "folder_paths.py")
        .read_text()
        .replace(
            "    return get_full_path(folder_name, filename)",
            "    raise ValueError(  # here\n        'broken')",
        )
    )
    (core / "folder_paths.py").write_text(text)
    number = text.splitlines().index("    raise ValueError(  # here") + 1
    done = run(
        core,
        main="import folder_paths\n\ndef start_comfyui(asyncio_loop):\n    folder_paths."
        "get_full_path_or_raise('a', 'b')\n\nstart_comfyui(None)\n",
    )
    assert done.returncode == 1
    assert (
        f'folder_paths.py", line {number}, in get_full_path_or_raise\n    raise ValueError(  # here'
        in done.stderr
    )
    assert 'main.py", line 6, in <module>\n    start_comfyui(None)' in done.stderr
    assert 'main.py", line 4, in start_comfyui' in done.stderr


def test_modules_know_their_files_and_sources(core):
    done = run(
        core,
        main="""import inspect, sys
import folder_paths

def start_comfyui(asyncio_loop=None):
    print(__file__, sys.path[0], folder_paths.__file__, folder_paths.__spec__.origin)
    print(inspect.getsource(folder_paths.recursive_search).splitlines()[0])
    assert sys.modules["__main__"].start_comfyui.__module__ == "__main__"

if __name__ == "__main__":
    start_comfyui()
""",
    )
    main, first, module, origin, source = done.stdout.split(maxsplit=4)
    assert (
        Path(main) == core / "main.py"
        and Path(first) == core
        and module == origin == str(core / "folder_paths.py")
    )
    assert source == "def recursive_search(directory, excluded_dir_names=None):\n"


def test_our_packages_are_found_where_the_core_has_none(core):
    (core / "comfy_depot/hooks.py").unlink()
    (core / "comfy_depot/__init__.py").unlink()
    (core / "comfy_depot").rmdir()
    done = run(
        core,
        main="import folder_paths\nfrom comfy_depot import hooks\n\n"
        "def start_comfyui(asyncio_loop): pass\n\nprint(hooks.__file__)\n"
        "try:\n    import comfy_api\nexcept ImportError:\n    print('nothing else of ours')\n",
    )
    assert done.stdout.splitlines() == [
        str(WEAVE.parents[1] / "comfy_depot/hooks.py"), "nothing else of ours"], done.stderr


def test_a_core_that_the_series_does_not_fit_is_refused_before_it_runs(core):
    (core / "server.py").write_text("import asyncio\nprint('started')\n")
    done = run(core)
    assert done.returncode == 1 and "nothing was changed" in done.stderr and done.stdout == ""


def test_other_processes_can_be_started_by_it(core):
    """`spawn` imports the main module again, by its path and under another name."""
    done = run(
        core,
        main="""import multiprocessing
import folder_paths

def start_comfyui(asyncio_loop=None):
    return folder_paths.get_full_path("a", "b")

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(start_comfyui))
""",
    )
    assert done.stdout == "a/b\n", done.stderr

"""Hooks step aside until the depot is started, and cost next to nothing to import."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import comfy_depot
import folder_paths
from comfy_depot import hooks
from comfy_depot.options import Options
from tests.comfy_depot.world import World

ROOT = Path(hooks.__file__).parents[1]


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def test_the_import_takes_less_than_twenty_milliseconds() -> None:
    code = (
        "import time, functools; start = time.process_time(); import comfy_depot.hooks\n"
        "print((time.process_time() - start) * 1000)"
    )
    assert min(float(run_python(code)) for _ in range(5)) < 20


@pytest.mark.parametrize(
    "module", ["torch", "aiohttp", "pydantic", "sqlite3", "aria2p", "folder_paths", "comfy"]
)
def test_the_import_loads_nothing_heavy(module: str) -> None:
    assert run_python(f"import sys, comfy_depot.hooks; print({module!r} in sys.modules)").strip() == "False"


@pytest.mark.slow
def test_starting_loads_neither_torch_nor_what_downloads(tmp_path: Path) -> None:
    code = (
        "import sys, comfy_depot; from pathlib import Path; from comfy_depot.options import Options\n"
        f"here = Path({str(tmp_path)!r})\n"
        "comfy_depot.start(Options(model_manifests=here, depot_dir=here))\n"
        "comfy_depot.stop()\n"
        "print([name for name in ('torch', 'aria2p', 'numpy', 'PIL') if name in sys.modules])"
    )
    assert run_python(code).strip() == "[]"


def test_hooked_functions_are_unchanged_before_the_start() -> None:
    calls: list[tuple[Any, ...]] = []

    def function(*args: Any, **kwargs: Any) -> str:
        calls.append((*args, kwargs))
        return "result"

    for hook in (
        hooks.adds_manifest_names,
        hooks.keeps_lists_fresh,
        hooks.fetches_in_nodes,
        hooks.explains_missing,
        hooks.keeps_resident("a"),
        hooks.takes_streamed,
        hooks.makes_room,
    ):
        assert hook(function)("a", "b", "more", extra=1) == "result"
        assert hook(function).__name__ == "function", (
            "the name of the function stays for tracebacks and packs"
        )
    assert calls == [("a", "b", "more", {"extra": 1})] * 7
    hooks.add_routes(None)
    assert hooks.knows_contents(function)("a") == hooks.knows_base_models(function)("a", "b") == "result"
    hooks.free_idle_models()
    hooks.needs_memory(2, lambda: 1)
    hooks.queue_changed()


def test_hooks_pass_unknown_parameters_on_when_armed(depot_world: World) -> None:
    with depot_world.depot():
        path = depot_world.write_model("loras", "a.safetensors")
        get = hooks.fetches_in_nodes(lambda folder_name, filename, new_option: (str(path), new_option)[0])
        assert get(folder_name="loras", filename="a.safetensors", new_option=1) == str(path)
        load = hooks.takes_streamed(lambda ckpt, safe_load=False, new_option=0: (ckpt, safe_load, new_option))
        assert load(ckpt="a", new_option=1) == ("a", False, 1) and load("b", True) == ("b", True, 0)


def test_folder_paths_holds_at_most_four_hook_lines() -> None:
    lines = [
        line
        for line in Path(folder_paths.__file__).read_text().split("\n")
        if re.search(r"\bdepot\.\w+", line) and not line.startswith(("The lines", '"""'))
    ]
    assert len(lines) == 4 and all(line.startswith("@depot.") for line in lines)


def test_every_hook_stands_on_the_page_of_hooks() -> None:
    public = [
        name
        for name, value in vars(hooks).items()
        if callable(value) and getattr(value, "__module__", "") == hooks.__name__ and not name.startswith("_")
    ]
    assert set(public) == {"arm", "disarm", "armed"} | {
        "adds_manifest_names",
        "keeps_lists_fresh",
        "knows_files",
        "fetches_in_nodes",
        "fetches_embeddings",
        "explains_missing",
        "keeps_resident",
        "knows_base_models",
        "takes_streamed",
        "makes_room",
        "keeps_pinned",
        "places_models",
        "explains_full_memory",
        "free_idle_models",
        "needs_memory",
        "queue_changed",
        "knows_contents",
        "add_routes",
    } | {
        "add_options",
        "starts_with_the_server",
        "runs_prompts",
        "takes_force",
        "forces_nodes",
        "adds_models_to_page",
    }
    for name in set(public) - {"arm", "disarm", "armed"}:
        assert f"`{name}`" in (hooks.__doc__ or "")


def test_the_depot_can_be_off(depot_world: World) -> None:
    assert comfy_depot.start(Options(depot_off=True)) is None
    assert hooks.armed() is None


def test_a_second_start_replaces_the_first(depot_world: World) -> None:
    with depot_world.depot() as first:
        second = comfy_depot.start(
            Options(model_manifests=depot_world.manifests, depot_dir=depot_world.base / "d")
        )
        assert hooks.armed() is second is not first
    assert hooks.armed() is None
    comfy_depot.stop()


def test_without_options_the_programs_own_command_line_counts(depot_world: World) -> None:
    depot = comfy_depot.start()
    assert depot is not None
    assert depot.options.model_manifests == depot_world.manifests.resolve()
    assert depot.options.depot_dir == (depot_world.base / "depot").resolve()
    comfy_depot.stop()

"""The rest of what the depot's host does on upstream: the page, models ahead of workflows, memory, events."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import folder_paths
from comfy_depot import hooks
from comfy_depot.depot import Depot
from comfy_depot.upstream import core, folders, loaders, memory, page
from comfy_depot.upstream.host import upstream_host
from tests.comfy_depot.world import World
from tests.fakes.upstream_queue import Server, Worker

GIB = 1 << 30


@pytest.fixture
def depot(depot_world: World) -> Iterator[Depot]:
    depot_world.write_manifest({"checkpoints": {
        "cloud.safetensors": "https://models.example/a", "sub/here.safetensors": "https://models.example/b"}})
    with depot_world.depot() as depot:
        yield depot


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(core, "server", lambda: server)
    monkeypatch.setattr(core, "arguments", lambda: SimpleNamespace())
    monkeypatch.setattr(core, "without_gradients", contextlib.nullcontext)
    return server


# --- the page ---


@pytest.mark.parametrize("is_async", [False, True])
def test_the_models_page_names_what_only_a_manifest_has(depot: Depot, is_async: bool) -> None:
    files = [{"name": "sub/here.safetensors", "pathIndex": 0, "size": 5},
             {"name": ".depot/cloud.safetensors.5f1c0e2a.part", "pathIndex": 0, "size": 5}]

    class Manager:
        @hooks.adds_models_to_page
        def get_model_file_list(self, folder_name: str) -> Any:
            return files

        @hooks.adds_models_to_page
        async def later(self, folder_name: str) -> Any:
            return files

    shown = (asyncio.run(Manager().later("checkpoints")) if is_async
             else Manager().get_model_file_list("checkpoints"))
    assert shown == [files[0], {"name": "cloud.safetensors", "pathIndex": 0}]
    hooks.disarm()
    try:
        assert Manager().get_model_file_list("checkpoints") is files
    finally:
        hooks.arm(depot)  # only what is armed is stopped in the end


def test_a_type_without_a_folder_shows_what_upstream_says(depot: Depot) -> None:
    assert page.with_manifest_models(depot, "nothing", [{"name": "a"}]) == [{"name": "a"}]


def test_the_panel_is_shown_and_posted_workflows_are_read(
    depot: Depot, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = SimpleNamespace(EXTENSION_WEB_DIRS={})
    monkeypatch.setattr(core, "nodes", lambda: nodes)
    page.on_routes(depot)
    assert Path(nodes.EXTENSION_WEB_DIRS["depot"], "depot.js").is_file()
    assert server.handlers == [depot.offers.on_prompt]


# --- models ahead of workflows ---


class Loader:
    """Upstream's loader node, which asks for the file by its name."""

    FUNCTION = "load"
    loaded: list[str]

    def load(self, ckpt_name: str) -> tuple[Any, ...]:
        Loader.loaded.append(ckpt_name)
        patcher = SimpleNamespace(load_device="gpu")
        return patcher, SimpleNamespace(patcher=patcher), None


def test_a_model_is_loaded_and_placed_by_the_thread_that_runs_prompts(
    depot: Depot, server: Server, depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[Any] = []
    Loader.loaded = []
    depot_world.write_model("checkpoints", "a.safetensors")
    monkeypatch.setattr(core, "nodes", lambda: SimpleNamespace(
        NODE_CLASS_MAPPINGS={"CheckpointLoaderSimple": Loader}))
    monkeypatch.setattr(core, "model_management", lambda: SimpleNamespace(load_models_gpu=placed.extend))
    executor = SimpleNamespace(execute=None, history_result={})

    @hooks.runs_prompts
    def execute(self: Any, *args: Any) -> None:
        raise AssertionError("it is no prompt")

    executor.execute = lambda *args: execute(executor, *args)
    with Worker(server.prompt_queue, executor):
        assert loaders.load_model("checkpoints", "a.safetensors") is False, "the store has nothing of it"
    assert Loader.loaded == ["a.safetensors"] and len(placed) == 2


def test_how_a_text_encoder_is_loaded_only_a_workflow_knows(depot: Depot, server: Server) -> None:
    with pytest.raises(ValueError, match=r"'text_encoders/t5\.safetensors' is loaded is known when"):
        loaders.load_model("clip", "t5.safetensors")


def test_without_a_depot_no_model_is_loaded_ahead(server: Server) -> None:
    with pytest.raises(ValueError, match="--depot-off"):
        loaders.load_model("vae", "a.safetensors")


# --- memory ---


@pytest.mark.parametrize(("group", "files", "allowed"), [
    ("0::/app", {"sys/fs/cgroup/app/memory.max": f"{GIB}\n"}, GIB),
    ("0::/app/one",
     {"sys/fs/cgroup/app/one/memory.max": "max\n", "sys/fs/cgroup/app/memory.max": str(GIB)}, GIB),
    ("0::/host/only", {"sys/fs/cgroup/memory.max": str(2 * GIB)}, 2 * GIB),
    ("4:cpu,memory:/app", {"sys/fs/cgroup/memory/app/memory.limit_in_bytes": str(GIB)}, GIB),
    ("3:cpu:/app", {"sys/fs/cgroup/memory/app/memory.limit_in_bytes": str(GIB)}, 64 * GIB),
    ("4:memory:/", {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096)}, 64 * GIB),
    (None, {}, 64 * GIB),
])  # fmt: skip
def test_the_memory_of_a_container_is_what_its_groups_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None, files: dict[str, str], allowed: int
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=64 * GIB))
    named = {"proc/self/cgroup": group} if group else {}
    for name, text in {**named, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory.bytes_allowed(tmp_path) == allowed


def management(device: str) -> Any:
    return SimpleNamespace(get_torch_device=lambda: device, get_total_memory=lambda device: 8 * GIB,
                           get_free_memory=lambda device: 3 * GIB, vae_device=lambda: "vae")


def test_devices_are_those_that_this_version_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "model_management", lambda: management("cuda:0"))
    assert memory.load_settings() == ("cuda:0", "vae")
    assert memory.bytes_of_device() == 8 * GIB and memory.bytes_free("cuda:0") == 3 * GIB


@pytest.mark.parametrize(("device", "names"), [("cpu", ["cpu"]), ("odd:0", ["odd:0", "cpu"])])
def test_the_report_names_each_device_once(
    monkeypatch: pytest.MonkeyPatch, device: str, names: list[str]
) -> None:
    monkeypatch.setattr(core, "model_management", lambda: management(device))
    monkeypatch.setitem(__import__("sys").modules, "torch", SimpleNamespace(odd=SimpleNamespace(
        memory_stats=lambda device: {"allocated_bytes.all.peak": 7})))
    report = memory.memory_report()
    assert [line["device"] for line in report] == names
    assert report[-1]["peak"] >= report[-1]["allocated"] > 0 and report[-1]["free"] <= report[-1]["total"]
    if device != "cpu":
        assert report[0] == {"device": "odd:0", "total": 8 * GIB, "free": 3 * GIB, "allocated": None,
                             "reserved": None, "peak": 7}


# --- events, progress, interruption ---


def test_events_go_to_the_server_as_long_as_there_is_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = upstream_host()
    host.send("depot", {"a": 1})
    assert server.sent == [("depot", {"a": 1})]

    def closed(event: str, data: Any) -> None:
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(server, "send_sync", closed)
    host.send("depot", {})
    monkeypatch.setattr(core, "server", lambda: None)
    host.send("depot", {})


def test_progress_and_interruption_are_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(core, "progress_bar", lambda total: SimpleNamespace(
        update_absolute=lambda done: told.append((done, total))))

    def interrupted() -> None:
        raise KeyboardInterrupt("stopped by the user")

    monkeypatch.setattr(core, "model_management", lambda: SimpleNamespace(
        throw_exception_if_processing_interrupted=interrupted))
    host = upstream_host()
    host.report(3, 10)
    assert told == [(3, 10)]
    with pytest.raises(KeyboardInterrupt, match="stopped by the user"):
        host.raise_if_interrupted()


# --- the command line ---


def test_the_command_line_places_upstreams_folders_by_importing_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = SimpleNamespace(base_directory=None)
    seen: list[Any] = []
    monkeypatch.setattr(core, "arguments", lambda: program)
    monkeypatch.setattr(
        folders.importlib, "reload", lambda module: seen.append((module, program.base_directory)))
    monkeypatch.setattr(folders.extra_config, "load_extra_path_config", seen.append)
    arguments = argparse.Namespace(base_directory="/base", models_directory=None,
                                   extra_model_paths_config=["more.yaml"])
    folders.place(arguments)
    assert seen == [(folder_paths, "/base"), "more.yaml"]
    arguments.models_directory = "/models"
    with pytest.raises(ValueError, match=r"no --models-directory\. Leave it out"):
        folders.place(arguments)

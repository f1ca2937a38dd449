"""Lines of the model library from memory: what asking the disk for each file would give."""

from __future__ import annotations

import os

import pytest

import folder_paths
from app.model_manager import ModelFileManager, describe_file, model_files
from comfy_depot import forest, inotify
from comfy_depot import model_files as lines
from tests.comfy_depot.world import World

URL = "https://host.example/m.safetensors"


def asked_from_disk(kind: str) -> list[lines.ModelFile]:
    places = folder_paths.get_folder_paths(kind)
    return [describe_file(name, places) for name in folder_paths.get_filename_list(kind)]


@pytest.mark.parametrize("is_watched", [True, False])
def test_lines_are_those_of_the_disk_after_every_change(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, is_watched: bool
) -> None:
    if not is_watched:
        monkeypatch.setattr(inotify, "LOCAL_FILE_SYSTEMS", frozenset())
    monkeypatch.setattr(forest, "FACTS_AT_ONCE", 2)
    first, second = depot_world.base / "models" / "loras", depot_world.base / "more"
    folder_paths.add_model_folder_path("loras", str(second))
    depot_world.write_manifest({"loras": {"cloud.safetensors": URL, "a.safetensors": URL}})
    (second / "s").mkdir(parents=True)
    steps = (
        lambda: depot_world.write_model("loras", "a.safetensors", b"1"),
        lambda: (second / "a.safetensors").write_bytes(b"12"),
        lambda: (second / "s" / "b.safetensors").write_bytes(b"123"),
        lambda: (first / "broken.safetensors").symlink_to("nowhere"),
        lambda: (second / "broken.safetensors").write_bytes(b"behind a link to nothing"),
        lambda: (first / "notes.txt").write_bytes(b"of no kind that is listed"),
        lambda: (first / "cloud.safetensors").write_bytes(b"arrived"),
        lambda: (first / "cloud.safetensors").unlink(),
        lambda: (first / "a.safetensors").unlink(),
        lambda: (second / "s" / "b.safetensors").write_bytes(b"written to"),
        lambda: os.replace(second / "s" / "b.safetensors", second / "a.safetensors"),
        lambda: os.utime(second / "a.safetensors", ns=(1, 1_234_567_890_123_456_789)),
    )
    with depot_world.depot():
        for number, step in enumerate(steps):
            step()
            assert model_files("loras") == asked_from_disk("loras"), f"after step {number}"
        place = folder_paths.get_folder_paths("loras").index(str(second))
        described = ModelFileManager().get_model_file_list("loras")
        assert [(line["name"], line["pathIndex"], line.get("size")) for line in described] == [
            ("a.safetensors", place, 10), ("broken.safetensors", place, 24), ("cloud.safetensors", 0, None)]


@pytest.mark.skipif(not inotify.Watcher().is_on, reason="this system has no inotify")
def test_nothing_is_asked_from_the_disk_twice(depot_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    depot_world.write_manifest({"loras": {"cloud.safetensors": URL}})
    for number in range(3):
        depot_world.write_model("loras", f"{number}.safetensors")
    with depot_world.depot():
        before = model_files("loras")
        monkeypatch.setattr(forest.Tree, "_learn", None)
        assert model_files("loras") is before
        monkeypatch.setattr(lines, "_by_name", None)  # made anew
        depot_world.write_model("loras", "1.safetensors", b"more")
        depot_world.write_model("loras", "4.safetensors", b"new")
        assert model_files("loras") == asked_from_disk("loras") != before


def test_names_that_a_pack_made_up_are_asked_from_the_disk(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (depot_world.base / "models" / "loras" / "folder").mkdir()
    with depot_world.depot():
        monkeypatch.setattr(folder_paths, "get_filename_list", lambda kind: ["folder", "none"])
        assert model_files("loras") == asked_from_disk("loras")
        assert model_files("loras")[0].size is not None and model_files("loras")[1].size is None
        assert model_files("custom_nodes") == asked_from_disk("custom_nodes")

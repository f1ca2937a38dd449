"""The database of the index follows the disk: at the first pass, on notices of the kernel, and after changes
that nobody told of.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

import folder_paths
from comfy_depot import indexer, inotify, model_headers
from comfy_depot.base_models import Asked
from comfy_depot.depot import Depot
from comfy_depot.eviction import Stamp
from tests.comfy_depot.test_model_headers import UNET, write
from tests.comfy_depot.world import World
from tests.fakes.waiting import wait_until


@pytest.fixture
def loras(depot_world: World) -> Path:
    return depot_world.base / "models" / "loras"


def families(depot: Depot) -> dict[str, str]:
    """Each file of which a family is known, by the database."""
    database, found = depot.index.database, {}
    for family in ("sd1", "sd2", "sdxl"):
        files = database.of_base_model("", Asked(family, None))
        found.update({os.path.basename(path): family for path in files})
    return found


def test_a_pass_brings_the_database_to_what_is_on_the_disk(depot_world: World, loras: Path) -> None:
    (loras / "sub").mkdir()
    write(loras / "a.safetensors", {UNET: [4, 768]})
    write(loras / "sub" / "b.safetensors", {UNET: [4, 1024]})
    (loras / "notes.txt").write_text("no model")
    with depot_world.depot() as depot:
        depot.index.indexer.update()
        assert families(depot) == {"a.safetensors": "sd1", "b.safetensors": "sd2"}
        assert depot.index.indexer.is_complete and depot.index.indexer.waiting == 0
        os.replace(loras / "sub" / "b.safetensors", loras / "a.safetensors")
        write(loras / "c.safetensors", {UNET: [4, 2048]})
        depot.index.indexer.update()
        assert families(depot) == {"a.safetensors": "sd2", "c.safetensors": "sdxl"}
    (loras / "c.safetensors").rename(loras / "d.safetensors")  # while nobody looks
    (loras / "a.safetensors").unlink()
    with depot_world.depot() as depot:
        depot.index.indexer.update()
        assert families(depot) == {"d.safetensors": "sdxl"}


def test_headers_are_read_once(
    depot_world: World, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        write(loras / f"{number}.safetensors", {UNET: [4, 768]})
    (loras / "broken.safetensors").write_bytes(b"<html>")
    os.utime(loras / "broken.safetensors", (1000, 1000))
    (loras / "arriving.safetensors").write_bytes(b"half")
    read: list[str] = []
    original = model_headers.read
    monkeypatch.setattr(
        model_headers, "read", lambda path: read.append(os.path.basename(path)) or original(path))
    monkeypatch.setattr(indexer, "FILES_AT_ONCE", 2)
    for _ in range(2):
        with depot_world.depot() as depot:
            depot.index.indexer.update()
    times = Counter(read)  # by the pass of this test and those in the background
    assert times.pop("arriving.safetensors") >= 2, "a young file that cannot be read may still be written"
    assert times == dict.fromkeys([f"{name}.safetensors" for name in ("broken", *range(5))], 1)


def test_a_folder_that_is_away_for_a_while_keeps_what_is_known(depot_world: World, loras: Path) -> None:
    write(loras / "a.safetensors", {UNET: [4, 768]})
    with depot_world.depot() as depot:
        depot.index.indexer.update()
        loras.rename(depot_world.base / "away")
        depot.index.indexer.update()
    with depot_world.depot() as depot:
        depot.index.indexer.update()
        assert list(depot.index.database.paths_below(str(loras))) == []  # seen to go
        (depot_world.base / "away").rename(loras)
        path = loras / "a.safetensors"
        assert depot.index.database.note_files({str(path): Stamp.of(os.stat(path))}) == [], "known at once"
        assert families(depot) == {"a.safetensors": "sd1"}


@pytest.mark.parametrize("is_watched", [True, False])
def test_the_thread_follows_every_change(
    depot_world: World, loras: Path, monkeypatch: pytest.MonkeyPatch, is_watched: bool
) -> None:
    if not is_watched:
        monkeypatch.setattr(inotify, "LOCAL_FILE_SYSTEMS", frozenset())
        monkeypatch.setattr(indexer, "SECONDS_BETWEEN_FULL_LOOKS", 0.05)
    monkeypatch.setattr(indexer, "SECONDS_AFTER_START", 0.0)
    monkeypatch.setattr(indexer, "SECONDS_BETWEEN_LOOKS", 0.02)
    write(depot_world.base / "new", {UNET: [4, 1024]})
    with depot_world.depot() as depot:
        wait_until(lambda: depot.index.indexer.is_complete)
        write(loras / "a.safetensors", {UNET: [4, 768]})
        wait_until(lambda: families(depot) == {"a.safetensors": "sd1"})
        os.replace(depot_world.base / "new", loras / "a.safetensors")
        folder_paths.get_filename_list("loras")  # takes the kernel's notice away from the thread
        wait_until(lambda: families(depot) == {"a.safetensors": "sd2"})
        shutil.move(loras / "a.safetensors", loras / "b.safetensors")
        wait_until(lambda: families(depot) == {"b.safetensors": "sd2"})
        (loras / "b.safetensors").unlink()
        wait_until(lambda: families(depot) == {})

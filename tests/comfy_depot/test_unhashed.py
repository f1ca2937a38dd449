"""The order in which a library is read, and what belongs to it."""

from __future__ import annotations

import os

import pytest

from comfy_depot import unhashed
from comfy_depot.eviction import Stamp
from comfy_depot.unhashed import ModelFile, in_order
from tests.comfy_depot.world import World
from tests.fakes.origin import sha256


def file(name: str, size: int, last_used: float = 0.0) -> ModelFile:
    return ModelFile("loras", name, f"/{name}", Stamp(1, hash(name), size, 0), last_used)


def test_what_may_save_a_download_comes_first_then_what_is_used_then_small_files() -> None:
    files = [file("large", 900), file("small", 1), file("used", 700, 5.0), file("used lately", 800, 9.0),
             file("perhaps wanted", 500), file("used and perhaps wanted", 400, 1.0)]
    assert [one.name for one in in_order(files, {500, 400})] == [
        "used and perhaps wanted", "perhaps wanted", "used lately", "used", "small", "large"]
    assert in_order([], {5}) == []


def test_the_survey_names_each_content_once_with_its_last_use(depot_world: World) -> None:
    first = depot_world.write_model("loras", "sub/a.safetensors", b"12345")
    os.link(first, first.with_name("b.safetensors"))
    known = depot_world.write_model("checkpoints", "known.safetensors", b"123")
    used = depot_world.write_model("checkpoints", "used.safetensors", b"1234567")
    depot_world.write_model("checkpoints", ".depot/part.safetensors", b"1")
    depot_world.write_model("checkpoints", "notes.txt", b"1")
    depot_world.write_manifest({"loras": {
        "missing.safetensors": {"url": "https://host.example/a", "size": 5, "sha256": "ab" * 32},
        "no hash.safetensors": {"url": "https://host.example/b", "size": 7},
    }})  # fmt: skip
    with depot_world.depot() as depot:
        depot.digests.note(Stamp.of(os.stat(known)), sha256(b"123"))
        depot_world.run_node()
        depot.path_in_node("checkpoints", "used.safetensors", str(used))
        library = unhashed.survey(depot)
        assert (library.files_known, library.bytes_known) == (1, 3)
        first_name, *others = [one.name for one in library.unhashed.values()]
        assert first_name in ("sub/a.safetensors", "sub/b.safetensors") and others == ["used.safetensors"]
        library.learn(Stamp.of(os.stat(used)))
        library.learn(Stamp.of(os.stat(used)))
        assert (library.files_known, library.bytes_known, len(library.unhashed)) == (2, 10, 1)


def test_another_version_is_told_when_a_file_came_went_or_changed(depot_world: World) -> None:
    with depot_world.depot() as depot:
        unhashed.survey(depot)
        seen = {unhashed.version(depot)}
        for step in range(3):
            if step < 2:
                depot_world.write_model("loras", "a.safetensors", b"a" * step)
            else:
                depot_world.model("loras", "a.safetensors").unlink()
            unhashed.survey(depot)
            seen.add(unhashed.version(depot))
        assert len(seen) == 4 and unhashed.version(depot) in seen


@pytest.mark.parametrize(("kind", "is_here"), [
    ("ext4", True), ("btrfs", True), ("ntfs3", True), ("fuseblk", True), ("nfs", False), ("smb3", False),
    ("fuse.rclone", False), ("virtiofs", False), (None, False),
])  # fmt: skip
def test_only_disks_of_this_machine_are_read_and_each_is_asked_for_once(
    kind: str | None, is_here: bool
) -> None:
    asked: list[str] = []

    def kind_of(path: str) -> str | None:
        asked.append(path)
        return kind

    tells = unhashed._DisksHere(kind_of)
    assert tells(file("a", 1)) is tells(file("b", 2)) is is_here
    assert asked == ["/a"]

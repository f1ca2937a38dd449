"""A verified sha256 is known again, by every process, for exactly the file that was verified."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfy_depot.database import FILE_NAME
from comfy_depot.digests import Digests
from comfy_depot.eviction import Stamp
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors, sha256


def stamp_of(file: Path) -> Stamp:
    return Stamp.of(os.stat(file))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    return path


def test_a_digest_is_known_to_whoever_shares_the_folder(tmp_path: Path, file: Path) -> None:
    one, other = Digests(tmp_path / "state"), Digests(tmp_path / "state")
    assert one.of(stamp_of(file)) is None
    assert not (tmp_path / "state").exists(), "a question makes no file"
    one.note(stamp_of(file), "AB" * 32)
    assert one.of(stamp_of(file)) == other.of(stamp_of(file)) == "ab" * 32


def test_a_file_that_was_written_to_is_another_one(tmp_path: Path, file: Path) -> None:
    digests = Digests(tmp_path)
    digests.note(stamp_of(file), "ab" * 32)
    status = os.stat(file)
    file.write_bytes(b"WEIGHTS")  # as many bytes
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert digests.of(stamp_of(file)) is None


def test_a_renamed_file_and_a_hard_link_are_the_same_content(tmp_path: Path, file: Path) -> None:
    digests = Digests(tmp_path)
    digests.note(stamp_of(file), "ab" * 32)
    os.link(file, tmp_path / "link")
    file.rename(tmp_path / "other")
    assert digests.of(stamp_of(tmp_path / "other")) == digests.of(stamp_of(tmp_path / "link")) == "ab" * 32


def test_a_digest_that_is_computed_again_counts(tmp_path: Path, file: Path) -> None:
    digests = Digests(tmp_path)
    digests.note(stamp_of(file), "ab" * 32)
    digests.note(stamp_of(file), "cd" * 32)
    assert digests.of(stamp_of(file)) == "cd" * 32


def test_an_index_that_was_removed_is_begun_anew(tmp_path: Path, file: Path) -> None:
    digests = Digests(tmp_path)
    digests.note(stamp_of(file), "ab" * 32)
    (tmp_path / FILE_NAME).unlink()
    assert digests.of(stamp_of(file)) is None
    digests.note(stamp_of(file), "cd" * 32)
    assert digests.of(stamp_of(file)) == "cd" * 32


def test_a_verified_download_notes_its_digest(depot_world: World) -> None:
    body = safetensors(1000)
    with Origin() as origin, depot_world.depot() as depot:
        url = origin.put("/m.safetensors", body)
        depot_world.write_manifest({"checkpoints": {
            "verified.safetensors": {"url": url, "sha256": sha256(body)}, "plain.safetensors": {"url": url},
        }})  # fmt: skip
        depot.catalogue.refresh()
        for name in ("verified.safetensors", "plain.safetensors"):
            depot.fetch("checkpoints", name)
        model = depot_world.model
        assert depot.digests.of(stamp_of(model("checkpoints", "verified.safetensors"))) == sha256(body)
        assert depot.digests.of(stamp_of(model("checkpoints", "plain.safetensors"))) is None

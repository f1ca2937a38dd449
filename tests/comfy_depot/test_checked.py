"""A large manifest that was checked before gives the same entries and mistakes without another check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import checked, manifest
from comfy_depot.catalog import Catalogue
from comfy_depot.checked import FILE_NAME, CheckedManifests
from comfy_depot.manifest import read_manifest
from tests.comfy_depot.world import World

URL = "https://host.example/m.safetensors"
CONTENT: dict[str, Any] = {
    "checkpoints": {
        "plain.safetensors": URL,
        "object.safetensors": {"url": URL, "size": 5, "sha256": "AB" * 32},
        "all.safetensors": {"urls": [URL, URL + "2"], "size": 5, "headers": {"X-A": "$B"}, "group": "g",
                            "license": "MIT", "gated": True},
        "member.safetensors": {"url": "https://host.example/a.zip",
                               "bundle": {"member": "x/m.safetensors", "size": 9, "sha256": "CD" * 32}},
        "../escape.safetensors": URL,
        "no-url.safetensors": {"size": 5},
        "size.safetensors": {"url": URL, "size": True},
        "hash.safetensors": {"url": URL, "sha256": "xyz"},
        "both.safetensors": {"url": "ftp://host/x", "size": 1},
        "unknown.safetensors": {"url": URL, "sise": 5},
        "null.safetensors": {"url": URL, "size": None},
    },
    "loras": ["no object"],
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(manifest, "SMALLEST_TO_REMEMBER", 0)
    path = tmp_path / "models.json"
    path.write_text(json.dumps(CONTENT, indent=1))
    return path


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the entries that are checked from now on."""
    seen: list[str] = []
    original = manifest.read_entry
    monkeypatch.setattr(manifest, "read_entry", lambda folder, name, value: seen.append(name) or original(
        folder, name, value))
    return seen


def test_what_is_read_again_is_what_was_read(tmp_path: Path, file: Path, checks: list[str]) -> None:
    plain = read_manifest(file)
    assert len(plain.entries) == 5 and len(plain.problems) == 7
    first = read_manifest(file, checked=CheckedManifests(tmp_path / "state"))
    checks.clear()
    again = read_manifest(file, checked=CheckedManifests(tmp_path / "state"))  # as after a restart
    assert again == first == plain
    assert sorted(checks) == sorted(name for _, name in plain.refused) and len(checks) == 6


def test_other_bytes_are_checked(tmp_path: Path, file: Path, checks: list[str]) -> None:
    known = CheckedManifests(tmp_path / "state")
    read_manifest(file, checked=known)
    file.write_text(json.dumps({"loras": {"../x.safetensors": URL}}))
    assert not read_manifest(file, checked=known).entries


def test_no_url_is_written_down(tmp_path: Path, file: Path) -> None:
    file.write_text(json.dumps({"loras": {"a.safetensors": URL + "?token=secret", "..": "secret://x"}}))
    read_manifest(file, checked=CheckedManifests(tmp_path / "state"))
    assert "secret" not in (tmp_path / "state" / FILE_NAME).read_text()


@pytest.mark.parametrize("damage", ["cut", "changed", "no text", "another program", "gone"])
def test_a_damaged_file_and_one_of_another_program_count_for_nothing(
    tmp_path: Path, file: Path, checks: list[str], damage: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = tmp_path / "state"
    before = read_manifest(file, checked=CheckedManifests(state))
    record = state / FILE_NAME
    text = record.read_text()
    if damage == "another program":
        monkeypatch.setattr(checked, "_program", lambda: "other")
    elif damage == "gone":
        record.unlink()
    else:
        record.write_bytes({"cut": text[:-20].encode(), "no text": b"\xff" * 99,
                            "changed": text.replace("escape", "except").encode()}[damage])
    checks.clear()
    assert read_manifest(file, checked=CheckedManifests(state)) == before
    assert len(checks) == 11, "all of them"
    is_told = "checked again" in caplog.text
    assert is_told == (damage in ("cut", "changed", "no text"))
    checks.clear()
    read_manifest(file, checked=CheckedManifests(state))
    assert len(checks) == 6, "it was written anew"


def test_small_manifests_very_wrong_ones_and_full_disks_are_checked_each_time(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-folder").write_text("")
    read_manifest(file, checked=CheckedManifests(tmp_path / "no-folder"))
    known = CheckedManifests(tmp_path / "state")
    monkeypatch.setattr(checked, "MOST_REFUSED", 5)
    read_manifest(file, checked=known)
    monkeypatch.setattr(manifest, "SMALLEST_TO_REMEMBER", 1 << 20)
    read_manifest(file, checked=known)
    assert not known.file.exists()


def test_a_start_reads_the_catalogue_of_the_last_one(
    depot_world: World, file: Path, checks: list[str]
) -> None:
    depot_world.write_manifest(CONTENT)
    with depot_world.depot() as depot:
        before = depot.catalogue.snapshot()
    checks.clear()
    with depot_world.depot() as depot:
        assert depot.catalogue.snapshot() == before and len(checks) == 6
    assert Catalogue(depot_world.manifests).snapshot() == before

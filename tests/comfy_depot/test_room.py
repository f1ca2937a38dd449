"""Room is promised once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from comfy_depot import room
from comfy_depot.room import Room, Shortage


@pytest.fixture
def free_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of 1000 bytes of which 600 are free."""
    usage = type(shutil.disk_usage("/"))(1000, 400, 600)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: usage)


def test_what_was_promised_is_not_promised_again_until_it_is_given_back(
    tmp_path: Path, free_bytes: None
) -> None:
    ours = Room(reserve=100)
    assert ours.promise(tmp_path / "a", 300) is None
    assert ours.promise(tmp_path / "b", 300) == Shortage(300, 600, 300, fits_never=False)
    assert ours.promise(tmp_path / "a", 500) is None  # the same file once more, now larger
    ours.give_back(tmp_path / "a")
    assert ours.promise(tmp_path / "b", 300) is None
    assert ours.promise(tmp_path / "c", 950) == Shortage(950, 600, 300, fits_never=True)


def test_what_a_partial_occupies_already_needs_no_room(tmp_path: Path, free_bytes: None) -> None:
    (tmp_path / "a").write_bytes(bytes(4096))
    assert Room(reserve=0).promise(tmp_path / "a", 4096) is None

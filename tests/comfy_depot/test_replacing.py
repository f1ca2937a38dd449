"""A small file is replaced whole, and a full disk keeps nothing of the attempt."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_depot.replacing import beside, replace_file
from tests.fakes.disk import small_file_system


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("tag", ["", "7"])
@pytest.mark.parametrize("durable", [False, True])
def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path, tag: str, durable: bool) -> None:
    file = tmp_path / "a.json"
    replace_file(file, "old", tag=tag, durable=durable)
    replace_file(file, b"new", tag=tag, durable=durable)
    assert file.read_bytes() == b"new" and names(tmp_path) == ["a.json"]


def test_a_full_disk_keeps_the_old_file_and_nothing_of_the_new(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "small", "64k") as folder:
        file = folder / "a.json"
        replace_file(file, "old")
        with pytest.raises(OSError, match="No space"):
            replace_file(file, bytes(100_000))
        assert file.read_text() == "old" and names(folder) == ["a.json"]


def test_what_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "a.json", "new")
    assert not beside(tmp_path / "a.json").exists()

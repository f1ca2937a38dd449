"""Names that must not pass, and where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_depot.errors import DepotError, UnsafeName
from comfy_depot.layout import Layout, destination, owner_of, safe_name

BAD_NAMES = [
    ("", "empty"),
    ("../a.safetensors", "climbs out of the folder"),
    ("a/../../b.safetensors", "climbs out from inside"),
    ("a/..", "ends above"),
    ("/etc/passwd", "absolute"),
    ("a//b.safetensors", "an empty component"),
    ("a/", "a folder, no file"),
    ("./a.safetensors", "a dot component"),
    ("..\\a.safetensors", "climbs out on Windows"),
    ("C:\\a.safetensors", "absolute on Windows"),
    ("C:a.safetensors", "a drive on Windows"),
    ("a.safetensors:stream", "a hidden stream on NTFS"),
    (".hidden.safetensors", "hidden"),
    (".depot/a.part", "the depot's own folder"),
    ("a.safetensors ", "Windows drops the blank"),
    ("a.safetensors.", "Windows drops the dot"),
    (" a.safetensors", "looks like another name"),
    ("con.safetensors", "a device on Windows"),
    ("sub/LPT1", "a device on Windows"),
    ("a\0.safetensors", "ends early in C"),
    ("a\n.safetensors", "breaks a log line"),
    ("a\u202egpj.safetensors", "shows its ending backwards"),
    ("a\u200b.safetensors", "an invisible character"),
    ("a\ud800.safetensors", "no character at all"),
    ("a?.safetensors", "a wildcard"),
    ("é" * 150, "more bytes than a file system allows"),
    ("a/" * 600 + "a", "longer than any path should be"),
]


@pytest.mark.parametrize(("name", "reason"), BAD_NAMES, ids=[reason for _, reason in BAD_NAMES])
def test_a_name_that_could_mean_something_else_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UnsafeName, match="Write|Keep"):
        safe_name(name)


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(UnsafeName, match="no text"):
        safe_name(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["a.safetensors", "sub/dir/a b (v1.5)+x.safetensors", "модель.safetensors", "a..b.gguf", "~x.pt"]
)
def test_an_ordinary_name_passes_unchanged(name: str) -> None:
    assert safe_name(name) == name


def test_a_destination_lies_below_its_folder(tmp_path: Path) -> None:
    assert destination(tmp_path, "sub/a.safetensors") == tmp_path.resolve() / "sub" / "a.safetensors"


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "models", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "sub").symlink_to(outside)
    with pytest.raises(UnsafeName, match="Remove the link"):
        destination(folder, "sub/a.safetensors")


def test_nothing_is_ever_placed_inside_custom_nodes(tmp_path: Path) -> None:
    with pytest.raises(UnsafeName, match="Choose a model folder"):
        destination(tmp_path / "custom_nodes" / "pack", "a.safetensors")


def test_everything_that_belongs_to_a_file_lies_hidden_beside_it(tmp_path: Path) -> None:
    place = Layout(tmp_path).place(tmp_path / "models" / "a.safetensors")
    others = [place.partial, place.control, place.record, place.lock, place.quarantine]
    assert place.file == tmp_path / "models" / "a.safetensors"
    assert {path.parent for path in others} == {tmp_path / "models" / ".depot"}
    assert len({path.name for path in others}) == 5
    assert place.control.name == place.partial.name + ".aria2"
    assert not any(path.suffix == ".safetensors" for path in others)
    assert not (tmp_path / "models").exists()


def test_the_longest_allowed_name_still_has_room_for_the_partial(tmp_path: Path) -> None:
    place = Layout(tmp_path).place(tmp_path / safe_name("a" * 200))
    place.control.parent.mkdir()
    place.control.touch()
    assert place.control.exists()


def test_every_error_of_the_depot_is_a_depot_error_and_a_missing_model_is_a_missing_file() -> None:
    from comfy_depot import errors

    assert issubclass(errors.DiskFull, errors.DownloadFailed)
    assert issubclass(errors.DownloadFailed, FileNotFoundError)
    assert all(issubclass(kind, DepotError) for kind in vars(errors).values() if isinstance(kind, type))
    assert str(errors.WrongContent("what, where, what now")) == "what, where, what now"


def test_the_owner_of_a_partial_and_of_a_bad_copy_is_found_again(tmp_path: Path) -> None:
    place = Layout(tmp_path).place(tmp_path / "loras" / "a.b.safetensors")
    assert owner_of(place.partial) == owner_of(place.quarantine) == owner_of(place.file) == place.file
    assert owner_of(place.record) == place.record

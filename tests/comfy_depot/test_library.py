"""A mounted library: linked or copied, verified, and never written to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_depot import library
from comfy_depot.errors import DiskFull, DownloadFailed, TransferCancelled, WrongContent
from tests.fakes.fetching import entry, transfers
from tests.fakes.origin import Origin, safetensors, sha256


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system, to which nothing can be linked."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system")
    folder = Path(tempfile.mkdtemp(dir=shared))
    yield folder
    shutil.rmtree(folder)


def book(folder: Path, body: bytes, name: str = "book.safetensors") -> Path:
    file = folder / "library" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    return file


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_file_of_the_library_is_fetched_without_aria2(tmp_path: Path, form: str) -> None:
    body = safetensors(5000)
    source, target = book(tmp_path, body), tmp_path / "models" / "a.safetensors"
    with transfers(tmp_path) as ours:
        transfer = ours.fetch(entry(form.format(source), sha256=sha256(body)), target)
        assert transfer.wait() == target and target.read_bytes() == body
        assert (transfer.source, transfer.bytes_done, transfer.bytes_total) == ("library", 5000, 5000)
    assert source.read_bytes() == body and not list((tmp_path / "models" / ".depot").iterdir())


def test_on_one_file_system_no_byte_is_copied(tmp_path: Path) -> None:
    source = book(tmp_path, b"x" * 100)
    how = library.bring("k", source, tmp_path / "part", promise=pytest.fail, tell=lambda done, total: None)
    assert how in ("reflink", "hard link")
    assert how == "reflink" or os.path.samefile(source, tmp_path / "part")


def test_across_file_systems_it_is_copied_within_the_promised_room(tmp_path: Path, elsewhere: Path) -> None:
    body = os.urandom(library.CHUNK_BYTES + 5)
    source, promised, told = book(elsewhere, body), [], []
    how = library.bring("k", source, tmp_path / "part", promise=promised.append,
                        tell=lambda done, total: told.append((done, total)))
    assert how == "copy" and (tmp_path / "part").read_bytes() == body
    assert promised == [len(body)]
    assert told[0] == (0, len(body)) and told[-1] == (len(body), len(body))
    assert (library.CHUNK_BYTES, len(body)) in told


def test_a_copy_can_be_stopped_and_may_find_no_room(tmp_path: Path, elsewhere: Path) -> None:
    source = book(elsewhere, bytes(100))

    def stop(done: int, total: int) -> None:
        if done:
            raise TransferCancelled("stopped")

    with pytest.raises(TransferCancelled):
        library.bring("k", source, tmp_path / "part", promise=lambda size: None, tell=stop)
    with transfers(tmp_path, depot_reserve=1 << 60) as ours, pytest.raises(DiskFull, match="are free"):
        ours.fetch(entry(str(source)), tmp_path / "a.safetensors").wait()


def test_a_wrong_copy_is_set_aside_and_the_next_source_is_asked(tmp_path: Path) -> None:
    body, bad = safetensors(5000), safetensors(5000, seed=1)
    source, target = book(tmp_path, bad), tmp_path / "models" / "a.safetensors"
    with Origin() as origin, transfers(tmp_path) as ours:
        url = origin.put("/a", body)
        assert ours.fetch(entry(str(source), url, sha256=sha256(body)), target).wait().read_bytes() == body
        with pytest.raises(WrongContent, match="has the sha256"):
            ours.fetch(entry(str(source), sha256=sha256(body)), tmp_path / "b.safetensors").wait()
    assert not (tmp_path / "b.safetensors").exists()
    assert source.read_bytes() == bad, "the library's own file is never written to"


def test_what_is_cut_off_in_the_library_is_refused(tmp_path: Path) -> None:
    source = book(tmp_path, safetensors(5000)[:-1])
    with transfers(tmp_path) as ours, pytest.raises(WrongContent, match="cut off"):
        ours.fetch(entry(str(source)), tmp_path / "a.safetensors").wait()


def test_a_partial_of_another_source_survives_a_library_that_is_not_mounted(tmp_path: Path) -> None:
    hidden = tmp_path / "models" / ".depot"
    hidden.mkdir(parents=True)
    with transfers(tmp_path) as ours:
        target = tmp_path / "models" / "a.safetensors"
        partial = ours.layout.place(target).partial
        partial.write_bytes(b"kept")
        with pytest.raises(DownloadFailed, match="No such file or directory.*Mount the library, or correct"):
            ours.fetch(entry("/none/a.safetensors"), target).wait()
        assert partial.read_bytes() == b"kept"


def test_a_pipe_a_folder_and_a_link_to_a_device_are_no_models(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        with pytest.raises(DownloadFailed, match="is no plain file. Correct the path in the manifest"):
            library.bring("k", tmp_path / f"{name}.safetensors", tmp_path / "part",
                          promise=pytest.fail, tell=pytest.fail)
    assert not (tmp_path / "part").exists()


def test_a_link_in_the_library_leads_to_its_file(tmp_path: Path) -> None:
    blob = book(tmp_path, safetensors(500), name="blob")
    link = tmp_path / "library" / "a.safetensors"
    link.symlink_to(blob)
    with transfers(tmp_path) as ours:
        target = ours.fetch(entry(str(link)), tmp_path / "models" / "a.safetensors").wait()
    assert not target.is_symlink() and target.read_bytes() == blob.read_bytes()

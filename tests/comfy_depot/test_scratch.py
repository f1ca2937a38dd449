"""`--depot-scratch`: archives in memory, and never more of it than is given."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_depot import scratch
from comfy_depot.layout import Layout, Place
from comfy_depot.locks import shared_mark
from comfy_depot.scratch import Scratch
from comfy_depot.services import Progress
from comfy_depot.transfers import Transfers
from tests.comfy_depot.test_bundles import left_over, member, start, tarred, watch
from tests.comfy_depot.world import World
from tests.fakes.disk import small_file_system
from tests.fakes.fetching import transfers, until
from tests.fakes.origin import Origin, safetensors

MIB = 1 << 20
MODEL = safetensors(3 * MIB)
ARCHIVE = tarred({"a.safetensors": MODEL}, "w:gz", compresslevel=1)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 16 MiB; needs the right to mount."""
    with small_file_system(tmp_path / "memory", "16m") as folder:
        yield folder


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob("*.part"))


def fetch_slowly(ours: Transfers, origin: Origin, *, rate: int = 9 * MIB):  # type: ignore[no-untyped-def]
    origin.total.rate = rate
    transfer = start(ours, member(origin.put("/pack", ARCHIVE), name="a.safetensors"))
    until(lambda: transfer.bytes_done > MIB // 2)
    return transfer


def test_an_archive_lies_in_the_scratch_and_leaves_it(tmp_path: Path, memory: Path) -> None:
    with Origin() as origin, transfers(tmp_path, depot_scratch=memory) as ours:
        transfer = fetch_slowly(ours, origin)
        assert [file.stat().st_size for file in parts(memory)] == [len(ARCHIVE)]
        assert parts(tmp_path / "state") == []
        assert transfer.wait().read_bytes() == MODEL
    assert [path.name for path in memory.rglob("*") if path.is_file()] == []
    assert left_over(tmp_path) == []


def test_a_scratch_that_fills_up_on_the_way_is_left_for_the_state_folder(
    tmp_path: Path, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Origin() as origin, transfers(tmp_path, depot_scratch=memory) as ours:
        transfer = fetch_slowly(ours, origin)
        with pytest.raises(OSError, match="No space"), open(memory / "of another program", "wb") as file:
            while True:
                file.write(bytes(MIB // 8))
                file.flush()
        origin.total.rate = None
        assert transfer.wait().read_bytes() == MODEL
        assert "goes through the state folder instead of --depot-scratch" in caplog.text
    assert [path.name for path in memory.rglob("*") if path.is_file()] == ["of another program"]
    assert left_over(tmp_path) == []


def test_a_disk_that_fills_up_under_a_model_is_tried_again(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pack").write_bytes(ARCHIVE)
    junk, phases = memory / "of another program", []

    def fill_or_clean(progress: Progress) -> None:
        phases.append(progress.state)
        if phases.count("unpacking") == 1:
            junk.write_bytes(bytes(15 * MIB))
        elif progress.state == "waiting" and junk.exists():
            junk.unlink()

    with transfers(tmp_path) as ours:
        watch(ours, monkeypatch, fill_or_clean)
        entry = member(str(tmp_path / "pack"), name="a.safetensors")
        assert ours.fetch(entry, memory / "models" / entry.name).wait().read_bytes() == MODEL
    assert phases.count("waiting") == 2 and not junk.exists()
    assert [path.name for path in (memory / "models" / ".depot").iterdir()] == []


def test_nothing_stays_in_the_scratch_of_what_is_stopped(tmp_path: Path, memory: Path) -> None:
    with Origin() as origin, transfers(tmp_path, depot_scratch=memory) as ours:
        transfer = fetch_slowly(ours, origin)
        transfer.stop()
        until(lambda: transfer.is_finished)
        assert [path for path in memory.rglob("*") if path.is_file()] == []


def claimed(ours: Scratch, key: str, size: int) -> Place | None:
    place = ours.place(key)
    return place if place is not None and ours.claim(key, place, size) else None


def test_claims_together_take_at_most_a_share(
    tmp_path: Path, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ours, others = Scratch(memory, tmp_path / "state"), Scratch(memory, tmp_path / "state")
    assert claimed(ours, "a", 9 * MIB) is None, "more than half of 16 MiB"
    assert claimed(ours, "a", 5 * MIB)
    assert claimed(others, "b", 4 * MIB) is None, "another process counts the first"
    assert "may take 8.4 MB there, of which 5.2 MB are taken" in caplog.text
    assert claimed(others, "b", 3 * MIB)
    assert claimed(ours, "a", 5 * MIB), "the own claim is not counted twice"
    ours.release("a")
    assert claimed(others, "c", 5 * MIB)
    assert (place := ours.place("d")) is not None
    shutil.rmtree(place.file.parent)
    assert not ours.claim("d", place, 1) and "No such file or directory" in caplog.text


def test_what_is_promised_must_fit_into_what_is_free(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ours = Scratch(memory, tmp_path / "state")
    (memory / "of another program").write_bytes(bytes(10 * MIB))
    assert claimed(ours, "a", 4 * MIB)
    assert claimed(ours, "b", 2 * MIB) is None and "6.3 MB are to come" in caplog.text
    monkeypatch.setattr(scratch, "_memory_available", lambda: 7 * MIB)
    assert claimed(ours, "a", 4 * MIB) is None and "it may take half of that" in caplog.text
    assert claimed(ours, "a", 3 * MIB)


@pytest.mark.parametrize("trick", ["open", "link", "file", "none"])
def test_a_folder_of_somebody_else_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trick: str
) -> None:
    shared, state = tmp_path / "shared", tmp_path / "state"
    shared.mkdir()
    ours = Scratch(shared, state)
    assert (place := ours.place("a")) is not None
    folder = place.file.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    if trick == "open":
        folder.chmod(0o777)
    else:
        (folder / ".depot").rmdir()
        folder.rmdir()
    if trick == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif trick == "file":
        folder.write_bytes(b"")
    elif trick == "none":
        shared.rmdir()
    assert ours.place("a") is None and ours.place("a") is None and ours.keys() == []
    assert caplog.text.count("Create the folder, correct its rights, or choose another") == 1


def test_what_dead_processes_left_in_the_scratch_is_removed(tmp_path: Path) -> None:
    ours = Scratch(tmp_path / "shared", tmp_path / "state")
    (tmp_path / "shared").mkdir()
    (tmp_path / "state" / "bundles").mkdir(parents=True)
    for key in ("dead", "alive"):
        place = claimed(ours, key, 100)
        assert place is not None
        place.partial.write_bytes(bytes(100))
    with shared_mark(Layout(tmp_path / "state").archive_mark("alive"), when_last=lambda: None):
        with transfers(tmp_path, depot_scratch=tmp_path / "shared"):
            pass
        assert ours.keys() == ["alive"]
        assert [file.name.partition(".")[0] for file in parts(tmp_path / "shared")] == ["alive"]


def test_a_server_sweeps_the_scratch_when_it_starts(depot_world: World) -> None:
    ours = Scratch(depot_world.base, depot_world.base / "depot")
    assert claimed(ours, "dead", 100)
    with depot_world.depot(depot_scratch=depot_world.base):
        assert ours.keys() == []


def test_the_last_one_to_leave_a_mark_is_told(tmp_path: Path) -> None:
    left: list[str] = []
    mark = tmp_path / "mark"
    with shared_mark(mark, when_last=lambda: left.append("first")):
        with shared_mark(mark, when_last=lambda: left.append("second")):
            pass
        assert left == []
    assert left == ["first"] and not os.path.exists(mark)

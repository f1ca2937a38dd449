"""A file that comes window after window, so that its digest can follow."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest

from comfy_depot import download, windows
from comfy_depot.aria2 import PIECE_BYTES, Daemon, running
from comfy_depot.errors import WrongContent
from comfy_depot.journal import Pieces
from comfy_depot.layout import Layout
from comfy_depot.prefix import PrefixDigest
from tests.fakes.fetching import entry, transfers, until
from tests.fakes.origin import Fault, Hit, Origin, safetensors, sha256

MIB = PIECE_BYTES


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows from two pieces on, for files of more than 1 MiB."""
    monkeypatch.setattr(windows, "LEAST_PIECES", 2)
    monkeypatch.setattr(download, "LEAST_TO_DIGEST_AHEAD", MIB)


def test_every_missing_piece_is_in_one_window_and_windows_follow_each_other(tmp_path: Path) -> None:
    kept = Pieces(200 * MIB - 5)
    for index in (0, 7, 150):
        kept.add(index)
    place = Layout(tmp_path).place(tmp_path / "a")
    planned = windows.plan_windows(place, kept, {9: 3, 190: 1}, in_order=True)
    indices = [[i for i in range(200) if i in window.wanted] for window in planned]
    assert sum(indices, []) == [i for i in range(200) if i not in kept]
    assert [len(window) for window in indices] == [64, 64, 34, 17, 18]
    assert planned[0].blocks == {9: 3} and planned[-1].blocks == {190: 1}
    assert len({window.file for window in planned}) == 5
    assert len(windows.plan_windows(place, kept, {}, in_order=False)) == 1
    long = windows.plan_windows(place, Pieces(7000 * MIB), {}, in_order=True)
    assert [window.bytes_wanted // MIB for window in long] == [438] * 14 + [434, 217, 108, 54, 27, 28]
    few = windows.plan_windows(place, Pieces(200 * MIB), {}, in_order=True, share=windows.LARGE_SHARE)
    assert [window.bytes_wanted // MIB for window in few] == [100, 50, 25, 25]


def test_aria2_is_told_that_all_else_is_there(tmp_path: Path) -> None:
    place = Layout(tmp_path).place(tmp_path / "a")
    place.partial.parent.mkdir()
    window = windows.plan_windows(place, Pieces(64 * MIB), {}, in_order=True)[1]
    window.write_control()
    said = Path(f"{window.file}.aria2").read_bytes()
    length = struct.unpack(">I", said[30:34])[0]
    assert Pieces(64 * MIB, said[34 : 34 + length].hex()).number ^ window.wanted.number == (1 << 64) - 1


def test_the_next_window_begins_as_early_as_its_source_takes_to_answer(tmp_path: Path) -> None:
    place = Layout(tmp_path).place(tmp_path / "a")
    planned = windows.plan_windows(place, Pieces(6400 * MIB), {}, in_order=True)

    def begins(left: int, rate: int, seconds: float) -> bool:
        status = {"status": "active", "totalLength": "1", "completedLength": str(6400 * MIB - left * MIB)}
        planned[0].status, planned[0].gid = status, "1"
        return windows.is_time_for_next(planned[:1], 8, rate * MIB, seconds)

    assert begins(40, 400, 0.0) and not begins(41, 400, 0.0)
    assert begins(120, 400, 0.1) and not begins(121, 400, 0.1)
    assert begins(160, 400, 3.0) and not begins(161, 400, 3.0), "never more than this"
    assert begins(8, 1, 0.0) and not begins(9, 1, 0.0), "each connection has a piece"


def test_a_file_in_windows_arrives_whole_and_its_digest_has_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    body, file, positions = safetensors(12 * MIB + 77), tmp_path / "models" / "a.safetensors", []
    finish = PrefixDigest.finish

    def looking(self: PrefixDigest, *given: object) -> str | None:
        positions.append(self.position)
        return finish(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(PrefixDigest, "finish", looking)
    with Origin(rate_total=24 * MIB) as origin, transfers(tmp_path, depot_connections=2) as ours:
        ours.fetch(entry(origin.put("/a", body), sha256=sha256(body)), file).wait()
        starts = [int(hit.range[6:].split("-")[0]) for hit in origin.hits("/a", "GET") if hit.range]
    assert file.read_bytes() == body and os.listdir(file.parent / ".depot") == []
    assert positions[0] >= MIB, "nothing was digested on the way"
    assert max(starts[:2]) < 6 * MIB, "more than the first window was asked for at once"


def test_a_source_that_refuses_head_is_read_in_one_window(tmp_path: Path, small_windows: None) -> None:
    def fault_for(hit: Hit) -> Fault | None:
        return Fault(status=403) if hit.method == "HEAD" else None

    body, file = safetensors(6 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin() as origin, transfers(tmp_path) as ours:
        url = origin.put("/a", body, fault_for=fault_for)
        ours.fetch(entry(url, sha256=sha256(body)), file).wait()
        ranges = [hit.range or "bytes=0-" for hit in origin.hits("/a", "GET")]
        assert len(origin.hits("/a", "HEAD")) == 1
        assert sum(wanted.startswith("bytes=0-") for wanted in ranges) == 2, "a look and one start"
    assert file.read_bytes() == body


def test_a_death_of_aria2c_between_windows_is_survived(tmp_path: Path, small_windows: None) -> None:
    body, file = safetensors(12 * MIB), tmp_path / "models" / "a.safetensors"
    daemon = Daemon(tmp_path / "state", allow_hosts=("127.0.0.1",))
    with running(daemon), Origin(rate_total=24 * MIB) as origin, transfers(tmp_path, daemon=daemon) as ours:
        transfer = ours.fetch(entry(origin.put("/a", body), sha256=sha256(body)), file)
        until(lambda: origin.bytes_sent() > 7 * MIB)
        assert daemon.aria2c_pid is not None
        os.kill(daemon.aria2c_pid, signal.SIGKILL)
        transfer.wait()
        assert origin.bytes_sent() < len(body) + 4 * MIB
    assert file.read_bytes() == body and os.listdir(file.parent / ".depot") == []


def test_a_digest_that_went_wrong_on_the_way_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    monkeypatch.setattr(PrefixDigest, "finish", lambda self, *_: self.close() or "0" * 64)
    body, file = safetensors(3 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin() as origin, transfers(tmp_path) as ours:
        ours.fetch(entry(origin.put("/a", body), sha256=sha256(body)), file).wait()
        other = entry(origin.put("/b", body), name="b.safetensors", sha256=sha256(b"other"))
        with pytest.raises(WrongContent):
            ours.fetch(other, tmp_path / "models" / "b.safetensors").wait()
    assert file.read_bytes() == body

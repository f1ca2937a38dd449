"""Transfers as those see them who wait: joined, watched, left, cancelled."""

from __future__ import annotations

import os
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from comfy_depot.errors import DownloadFailed, SourceRefused, TransferCancelled, WrongContent
from comfy_depot.eviction import Stamp
from comfy_depot.transfers import Priority, State, Transfer
from tests.fakes.fetching import entry, transfers, until
from tests.fakes.origin import Origin, safetensors, sha256

MIB = 1 << 20


class Interrupted(BaseException):
    """What a host raises in `check` when the user cancels."""


def test_two_who_want_the_same_file_share_one_download(tmp_path: Path) -> None:
    body, file = safetensors(2 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=8 * MIB) as origin, transfers(tmp_path) as ours:
        wanted = entry(origin.put("/a", body), sha256=sha256(body))
        one, two = ours.fetch(wanted, file, priority=Priority.WARM), ours.fetch(wanted, file)
        assert one is two and one.priority is Priority.DEMAND
        assert ours.active() == [one] and ours.get(one.id) is one
        got: list[Path] = []
        threads = [threading.Thread(target=lambda: got.append(one.wait())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [file] * 3 and ours.active() == []
        assert origin.bytes_sent() < 3 * MIB


def test_a_manifest_that_is_corrected_meanwhile_brings_the_file_all_the_same(tmp_path: Path) -> None:
    body, file = safetensors(2 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=8 * MIB) as origin, transfers(tmp_path) as ours:
        url = origin.put("/a", body)
        wrong = ours.fetch(entry(url, sha256="0" * 64), file)
        until(lambda: origin.bytes_sent() > MIB)
        right = ours.fetch(entry(url, sha256=sha256(body)), file)
        with pytest.raises(WrongContent):
            wrong.wait()
        assert right.wait().read_bytes() == body


def test_different_files_come_at_the_same_time(tmp_path: Path) -> None:
    with Origin(rate_per_connection=MIB) as origin, transfers(tmp_path, depot_connections=1) as ours:
        started = time.monotonic()
        all_of_them = [
            ours.fetch(
                entry(origin.put(f"/{n}", safetensors(MIB // 2, n)), name=f"{n}.safetensors"),
                tmp_path / f"{n}",
            )
            for n in range(4)
        ]
        for transfer in all_of_them:
            transfer.wait()
        assert time.monotonic() - started < 1.9


def test_who_waits_sees_progress_and_is_asked_often_enough(tmp_path: Path) -> None:
    body, seen, checks = safetensors(3 * MIB // 2), [], []
    with Origin(rate_total=2 * MIB) as origin, transfers(tmp_path) as ours:
        transfer = ours.fetch(entry(origin.put("/a", body)), tmp_path / "a.safetensors")

        def look(watched: Transfer) -> None:
            seen.append((watched.state, watched.bytes_done, watched.bytes_total))

        transfer.wait(on_progress=look, check=lambda: checks.append(time.monotonic()))
    pauses = [later - earlier for earlier, later in zip(checks, checks[1:])]
    assert max(pauses) < 0.5 and len(pauses) >= 4
    done = [bytes_done for _, bytes_done, _ in seen]
    assert done == sorted(done) and done[-1] == len(body) and seen[-1][2] == len(body)
    assert any(0 < n < len(body) for n in done)
    assert State.DOWNLOADING in {state for state, _, _ in seen} and transfer.state is State.DONE


def test_events_tell_the_whole_story_at_most_five_times_a_second(tmp_path: Path) -> None:
    body, events = safetensors(3 * MIB // 2), []
    with Origin(rate_total=2 * MIB) as origin, transfers(tmp_path, events=events) as ours:
        started = time.monotonic()
        url = origin.put("/a", body) + "?token=SECRET"
        ours.fetch(entry(url), tmp_path / "a.safetensors").wait()
        until(lambda: events[-1]["state"] == "done")
        took = time.monotonic() - started
    assert set(events[0]) == {
        "kind", "id", "folder", "name", "state", "bytes_done", "bytes_total", "bytes_per_second",
        "seconds_left", "source", "error",
    }  # fmt: skip
    assert len(events) <= 5 * took + 3
    assert events[-1]["bytes_done"] == events[-1]["bytes_total"] == len(body)
    assert {event["source"] for event in events} <= {None, "127.0.0.1"}
    assert any(event["bytes_per_second"] > 0 and event["seconds_left"] is not None for event in events)
    assert "SECRET" not in str(events)


def test_the_rate_that_is_told_does_not_jump_and_is_that_of_the_link(tmp_path: Path) -> None:
    """aria2's own number is five times the link after the first buffers."""
    link, rates = 6 * MIB, []
    with Origin(rate_total=link) as origin, transfers(tmp_path) as ours:
        transfer = ours.fetch(entry(origin.put("/a", safetensors(12 * MIB))), tmp_path / "a.safetensors")
        transfer.wait(on_progress=lambda one: rates.append(one.bytes_per_second))
    assert max(rates) < 2 * link
    known = sorted(filter(None, rates))
    assert known[len(known) // 2] > link / 2


def test_the_error_of_a_transfer_reaches_everybody_and_the_page(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    with Origin() as origin, transfers(tmp_path, events=events) as ours:
        transfer = ours.fetch(entry(origin.put("/a", status=403)), tmp_path / "a.safetensors")
        for _ in range(2):
            with pytest.raises(SourceRefused, match="answered 403"):
                transfer.wait()
        assert transfer.state is State.FAILED and transfer.is_finished
        frames = [frame.name for frame in traceback.extract_tb(transfer.error.__traceback__)]
        assert "run" in frames and "wait" not in frames, "it keeps nothing of those who have waited"
        until(lambda: events[-1]["state"] == "failed")
        assert "answered 403" in events[-1]["error"]


def test_after_a_failure_the_next_fetch_tries_again(tmp_path: Path) -> None:
    with Origin() as origin, transfers(tmp_path) as ours:
        wanted = entry(origin.put("/a", safetensors(1000), statuses=[404]))
        with pytest.raises(DownloadFailed):
            ours.fetch(wanted, tmp_path / "a.safetensors").wait()
        assert ours.fetch(wanted, tmp_path / "a.safetensors").wait().exists()


def test_when_the_last_one_leaves_the_transfer_stops_within_a_second(tmp_path: Path) -> None:
    with Origin(rate_total=MIB) as origin, transfers(tmp_path) as ours:
        transfer = ours.fetch(entry(origin.put("/a", safetensors(8 * MIB))), tmp_path / "a.safetensors")
        until(lambda: origin.bytes_sent() > 100_000)
        stays = threading.Event()
        raised: list[BaseException] = []

        def second() -> None:
            try:
                transfer.wait(check=lambda: leave_when(stays))
            except Interrupted as error:
                raised.append(error)

        def leave_when(event: threading.Event) -> None:
            if event.is_set():
                raise Interrupted

        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: sum(transfer._waiters.values()) == 1)
        leaving = threading.Event()
        leaving.set()
        with pytest.raises(Interrupted):
            transfer.wait(check=lambda: leave_when(leaving))
        assert not transfer.is_stopping  # somebody still waits
        asked_at = time.monotonic()
        stays.set()
        until(lambda: transfer.is_finished)
        assert time.monotonic() - asked_at < 1
        thread.join()
        assert raised and transfer.state is State.CANCELLED
        settled = origin.bytes_sent()
        time.sleep(0.2)
        assert origin.bytes_sent() - settled <= 1 << 18


def test_who_has_joined_but_does_not_wait_yet_keeps_the_transfer_alive(tmp_path: Path) -> None:
    body = safetensors(2 * MIB)
    with Origin(rate_total=4 * MIB) as origin, transfers(tmp_path) as ours:
        wanted, file = entry(origin.put("/a", body)), tmp_path / "a.safetensors"

        def leave() -> None:
            raise Interrupted

        first = ours.fetch(wanted, file)
        second = ours.fetch(wanted, file)
        assert second is first
        with pytest.raises(Interrupted):
            first.wait(check=leave)
        assert second.wait().read_bytes() == body


def test_a_cancelled_transfer_ends_for_all_within_a_second_and_can_be_fetched_again(tmp_path: Path) -> None:
    body = safetensors(3 * MIB)
    with Origin(rate_total=6 * MIB) as origin, transfers(tmp_path) as ours:
        wanted, file = entry(origin.put("/a", body)), tmp_path / "a.safetensors"
        transfer = ours.fetch(wanted, file)
        until(lambda: origin.bytes_sent() > MIB)
        asked_at = time.monotonic()
        assert ours.cancel(transfer.id)
        again = ours.fetch(wanted, file)  # at once, while the first is still stopping
        with pytest.raises(TransferCancelled):
            transfer.wait()
        assert time.monotonic() - asked_at < 1 and again is not transfer
        assert again.wait().read_bytes() == body
        assert not ours.cancel(transfer.id) and not ours.cancel("unknown")


def test_closing_stops_everything_and_keeps_what_has_arrived(tmp_path: Path) -> None:
    with Origin(rate_total=MIB) as origin:
        with transfers(tmp_path) as ours:
            transfer = ours.fetch(entry(origin.put("/a", safetensors(4 * MIB))), tmp_path / "a.safetensors")
            until(lambda: origin.bytes_sent() > 100_000)
            started = time.monotonic()
        assert time.monotonic() - started < 2 and transfer.state is State.CANCELLED
        assert any(path.suffix == ".part" for path in (tmp_path / ".depot").iterdir())


@pytest.mark.parametrize("is_shared", [True, False], ids=["one process", "two processes"])
def test_a_file_that_gives_way_is_replaced_once_by_all_who_want_that(tmp_path: Path, is_shared: bool) -> None:
    """Two processes are two `Transfers`: they know of each other by the lock of the file only."""
    old, new = safetensors(300_000, seed=1), safetensors(400_000, seed=2)
    file = tmp_path / "a.safetensors"
    file.write_bytes(old)
    with Origin(rate_total=1 << 20) as origin, transfers(tmp_path) as one, transfers(tmp_path) as two:
        wanted = entry(origin.put("/new", new), sha256=sha256(new))
        stamp = Stamp.of(os.stat(file))
        both = [some.fetch(wanted, file, replaces=stamp) for some in (one, one if is_shared else two)]
        assert [transfer.wait().read_bytes() for transfer in both] == [new, new]
        assert (both[0] is both[1]) is is_shared
        assert origin.bytes_sent("/new") < 2 * len(new)


def test_a_transfer_of_an_older_entry_does_not_undo_a_replacement(tmp_path: Path) -> None:
    """It waited for the lock while the new bytes came; nor is a file replaced that nobody said gives way."""
    old, new = safetensors(300_000, seed=1), safetensors(400_000, seed=2)
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"first")
    with Origin(rate_total=1 << 20) as origin, transfers(tmp_path) as ours:
        urls = origin.put("/old", old), origin.put("/new", new)
        stamp = Stamp.of(os.stat(file))
        first = ours.fetch(entry(urls[1], sha256=sha256(new)), file, replaces=stamp)
        until(lambda: origin.bytes_sent("/new"))
        late = [ours.fetch(entry(urls[0], sha256=sha256(old)), file, replaces=replaces)
                for replaces in (stamp, None)]
        assert [one.wait().read_bytes() for one in (first, *late)] == [new, new, new]
        assert origin.hits("/old") == []


def test_finished_transfers_are_forgotten_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_depot.transfers.REMEMBERED", 2)
    (tmp_path / "a.safetensors").write_bytes(b"here")
    with transfers(tmp_path) as ours:
        made = []
        for _ in range(5):
            made.append(ours.fetch(entry("https://h/a"), tmp_path / "a.safetensors"))
            made[-1].wait()
        assert [ours.get(one.id) is not None for one in made] == [False, False, True, True, True]


def test_an_error_that_nobody_foresaw_is_told_to_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfy_depot.download.Download.run", lambda self: 1 / 0)
    with transfers(tmp_path) as ours, pytest.raises(DownloadFailed, match="ZeroDivisionError.*report it"):
        ours.fetch(entry("https://h/a"), tmp_path / "a.safetensors").wait()

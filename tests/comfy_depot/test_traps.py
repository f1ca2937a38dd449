"""The traps of plain aria2c, each shown to be real first and then shown to be disarmed by the depot."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.fetching import entry, fetcher, plain_aria2, transfers, until
from tests.fakes.origin import Origin, safetensors, sha256, weights

MIB = 1 << 20


def unfinished_looks(file: Path, body: bytes, is_over: Callable[[], bool]) -> tuple[int, int]:
    """Look at `file` until it is over; (looks, looks that saw something other than the whole file)."""
    looks = wrong = 0
    while not is_over() or looks < 1000:
        looks += 1
        try:
            wrong += file.stat().st_size != len(body) or file.read_bytes() != body
        except FileNotFoundError:
            pass
    return looks, wrong


def test_plain_aria2_shows_an_unfinished_file_under_its_final_name(tmp_path: Path) -> None:
    body = safetensors(2 * MIB)
    with Origin(rate_total=4 * MIB) as origin:
        aria2 = plain_aria2(origin.put("/a", body), tmp_path / "a.safetensors")
        _, wrong = unfinished_looks(tmp_path / "a.safetensors", body, lambda: aria2.poll() is not None)
    assert wrong > 10


def test_the_depot_shows_a_file_under_its_final_name_only_when_it_is_whole(tmp_path: Path) -> None:
    body, file = safetensors(2 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=4 * MIB) as origin, transfers(tmp_path) as ours:
        transfer = ours.fetch(entry(origin.put("/a", body), sha256=sha256(body)), file)
        looks, wrong = unfinished_looks(file, body, lambda: transfer.is_finished)
        transfer.wait()
    assert looks >= 1000 and wrong == 0
    assert file.read_bytes() == body


def killed_when_half_is_sent(origin: Origin, process: subprocess.Popen[bytes], half: int) -> None:
    until(lambda: origin.bytes_sent() >= half)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_plain_aria2_loses_what_it_had_when_it_is_killed(tmp_path: Path) -> None:
    body = weights(16 * MIB)
    with Origin(rate_total=48 * MIB) as origin:
        url = origin.put("/a", body)
        killed_when_half_is_sent(origin, plain_aria2(url, tmp_path / "a"), 12 * MIB)
        assert plain_aria2(url, tmp_path / "a", "--allow-overwrite=true").wait() == 0
        waste = origin.bytes_sent() - len(body)
    assert waste > 4 * MIB


@pytest.mark.slow
def test_a_killed_process_costs_the_depot_at_most_4_mib(tmp_path: Path) -> None:
    body, file = safetensors(16 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=48 * MIB) as origin:
        url = origin.put("/a", body)
        killed_when_half_is_sent(origin, fetcher(tmp_path, file, url), 12 * MIB)
        alive = next(tmp_path.glob("aria2-*/alive"))
        until(lambda: is_free(alive), 2.0)  # aria2c has ended with the process that used it
        assert not file.exists()
        assert fetcher(tmp_path, file, url).wait() == 0
        waste = origin.bytes_sent() - len(body)
    assert file.read_bytes() == body
    assert waste <= 4 * MIB


def is_free(alive: Path) -> bool:
    with open(alive, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_plain_aria2_mixes_two_versions_of_a_file_and_reports_success(tmp_path: Path) -> None:
    old, new = weights(4 * MIB, 1), weights(4 * MIB, 2)
    with Origin(rate_total=8 * MIB) as origin:
        url = origin.put("/a", old)
        aria2 = plain_aria2(url, tmp_path / "a")
        until(lambda: origin.bytes_sent() >= 2 * MIB)
        aria2.terminate()
        aria2.wait()
        origin.put("/a", new)
        assert plain_aria2(url, tmp_path / "a").wait() == 0
    found = (tmp_path / "a").read_bytes()
    assert found not in (old, new)


def stop_half_way(origin: Origin, tmp_path: Path, file: Path, url: str, sent: int) -> None:
    """A transfer that is stopped after `sent` bytes; its partial stays."""
    with transfers(tmp_path) as ours:
        transfer = ours.fetch(entry(url), file)
        until(lambda: origin.bytes_sent() >= sent)
        transfer.stop()
        until(lambda: transfer.is_finished)


@pytest.mark.parametrize("with_etag", [True, False], ids=["an ETag", "a date only"])
def test_a_file_that_changed_between_two_tries_is_fetched_anew(tmp_path: Path, with_etag: bool) -> None:
    old, new = safetensors(4 * MIB, 1), safetensors(4 * MIB, 2)
    file, etag = tmp_path / "models" / "a.safetensors", "" if with_etag else None
    with Origin(rate_total=16 * MIB) as origin:
        url = origin.put("/a", old, etag=etag)
        stop_half_way(origin, tmp_path, file, url, 2 * MIB)
        origin.put("/a", new, etag=etag, last_modified=1_700_009_999.0)
        with transfers(tmp_path) as ours:
            ours.fetch(entry(url), file).wait()
    assert file.read_bytes() == new


def test_a_partial_without_any_validator_is_not_believed(tmp_path: Path) -> None:
    old, new = safetensors(4 * MIB, 1), safetensors(4 * MIB, 2)
    file = tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=16 * MIB) as origin:
        url = origin.put("/a", old, etag=None, last_modified=None)
        stop_half_way(origin, tmp_path, file, url, 2 * MIB)
        origin.put("/a", new, etag=None, last_modified=None)
        with transfers(tmp_path) as ours:
            ours.fetch(entry(url), file).wait()
    assert file.read_bytes() == new


def test_a_file_that_changes_while_it_is_read_is_fetched_anew(tmp_path: Path) -> None:
    old, new = safetensors(4 * MIB, 1), safetensors(4 * MIB, 2)
    file = tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=16 * MIB) as origin, transfers(tmp_path) as ours:
        url = origin.put("/a", old)
        transfer = ours.fetch(entry(url), file)
        until(lambda: origin.bytes_sent() >= 2 * MIB)
        origin.put("/a", new)
        transfer.wait()
    assert file.read_bytes() == new


def test_plain_aria2_leaves_a_file_with_a_wrong_checksum_in_place(tmp_path: Path) -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(MIB))
        aria2 = plain_aria2(url, tmp_path / "a", f"--checksum=sha-256={sha256(b'other')}")
        assert aria2.wait() != 0
    assert (tmp_path / "a").exists()


def test_plain_aria2_sends_credentials_to_the_host_of_a_redirect(tmp_path: Path) -> None:
    with Origin() as origin:
        target = origin.at("localhost", origin.put("/target", weights(1000)))
        url = origin.put("/a", redirect_to=target)
        plain_aria2(url, tmp_path / "a", "--header=Authorization: Bearer secret").wait()
        assert origin.hits("/target")[0].headers["authorization"] == "Bearer secret"


def test_the_depot_keeps_credentials_from_the_host_of_a_redirect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hf_secret_value")
    body, file, seen = safetensors(2 * MIB), tmp_path / "models" / "a.safetensors", set()
    with Origin(rate_total=4 * MIB) as origin, transfers(tmp_path) as ours:
        target = origin.at("localhost", origin.put("/target", body))
        url = origin.put("/a", redirect_to=target, token="hf_secret_value")
        wanted = entry(url, headers={"Authorization": "Bearer $MY_TOKEN"})
        transfer = ours.fetch(wanted, file)
        stop = threading.Event()
        watcher = threading.Thread(target=lambda: seen.update(secrets_in_sight(tmp_path, stop)))
        watcher.start()
        transfer.wait()
        stop.set()
        watcher.join()
        assert origin.hits("/a")[0].headers["authorization"] == "Bearer hf_secret_value"
        assert all("authorization" not in hit.headers for hit in origin.hits("/target"))
    assert not seen


def secrets_in_sight(folder: Path, stop: threading.Event) -> set[str]:
    """Names of state files and argument lists that held the token at any moment until `stop`."""
    found = set()
    while not stop.is_set():
        for file in [*folder.rglob("*"), *Path("/proc").glob("[0-9]*/cmdline")]:
            if file.name.endswith(".part"):
                continue
            try:
                if file.is_file() and b"hf_secret_value" in file.read_bytes():
                    found.add(str(file))
            except (OSError, ValueError):
                continue
        time.sleep(0.05)
    return found


def test_a_redirect_that_aria2_would_follow_by_itself_meets_a_closed_gate(tmp_path: Path) -> None:
    """The origin redirects only after it was resolved: the pass of the transfer opens no other host."""
    body, file = safetensors(4 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=16 * MIB) as origin, transfers(tmp_path) as ours:
        other = origin.at("localhost", origin.put("/target", safetensors(4 * MIB, 7)))
        url = origin.put("/a", body, reset_at=MIB, resets_left=8)
        transfer = ours.fetch(entry(url, headers={"X-Key": "k"}), file)
        until(lambda: origin.bytes_sent() >= MIB)
        asset = origin.assets["/a"]
        asset.redirect_to = other
        until(lambda: any(hit.status == 302 for hit in origin.hits("/a")))
        asset.redirect_to, asset.reset_at = None, None
        transfer.wait()
        assert all(hit.range == "bytes=0-0" and "x-key" not in hit.headers for hit in origin.hits("/target"))
    assert file.read_bytes() == body
    assert os.listdir(file.parent / ".depot") == []

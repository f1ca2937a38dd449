"""One file from its sources to its final name, through every kind of trouble."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_depot.aria2 import Daemon, DaemonGone, running
from comfy_depot.errors import DiskFull, DownloadFailed, SourceRefused, TransferCancelled, WrongContent
from comfy_depot.layout import Layout
from comfy_depot.manifest import Entry
from comfy_depot.services import Patience
from tests.fakes.disk import small_file_system
from tests.fakes.fetching import entry, fetcher, transfers, until
from tests.fakes.origin import Origin, safetensors, sha256, weights

MIB = 1 << 20


def place(file: Path):  # type: ignore[no-untyped-def]
    return Layout(file.parent).place(file)


def fetch(tmp_path: Path, wanted: Entry, **options: object) -> Path:
    with transfers(tmp_path, **options) as ours:  # type: ignore[arg-type]
        return ours.fetch(wanted, tmp_path / "models" / wanted.name).wait()


def failure(tmp_path: Path, kind: type[DownloadFailed], wanted: Entry, **options: object) -> str:
    """The message of the error with which a fetch ends; nothing may stand under the final name."""
    with pytest.raises(kind) as caught:
        fetch(tmp_path, wanted, **options)
    assert not (tmp_path / "models" / wanted.name).exists()
    return str(caught.value)


def test_a_file_arrives_whole_in_a_folder_that_is_made_for_it(tmp_path: Path) -> None:
    body = safetensors(3 * MIB + 5)
    with Origin() as origin:
        url = origin.put("/a", body)
        wanted = entry(url, name="sub/a.safetensors", size=len(body), sha256=sha256(body).upper())
        file = fetch(tmp_path, wanted)
    assert file == tmp_path / "models" / "sub" / "a.safetensors" and file.read_bytes() == body
    assert os.listdir(file.parent / ".depot") == []


@pytest.mark.parametrize(
    "behaviour",
    [{"ranges": False}, {"ranges": False, "length_known": False}, {"etag": None, "last_modified": None}],
)
def test_an_origin_without_ranges_lengths_or_validators_serves_too(
    tmp_path: Path, behaviour: dict[str, object]
) -> None:
    body = safetensors(MIB)
    with Origin() as origin:
        url = origin.put("/a", body, **behaviour)
        assert fetch(tmp_path, entry(url)).read_bytes() == body


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_tiny_and_empty_files_arrive(tmp_path: Path, size: int) -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(size))
        assert fetch(tmp_path, entry(url, name="a.txt", size=size)).read_bytes() == weights(size)


def test_a_file_that_is_there_is_neither_fetched_nor_touched(tmp_path: Path) -> None:
    file = tmp_path / "models" / "a.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"mine")
    with Origin() as origin:
        assert fetch(tmp_path, entry(origin.put("/a", safetensors(1000)))).read_bytes() == b"mine"
        assert not origin.log


def test_a_file_that_appears_while_another_comes_is_left_alone(tmp_path: Path) -> None:
    with Origin(rate_total=2 * MIB) as origin, transfers(tmp_path) as ours:
        file = tmp_path / "models" / "a.safetensors"
        transfer = ours.fetch(entry(origin.put("/a", safetensors(MIB // 2))), file)
        until(lambda: origin.bytes_sent() > 1000)
        file.write_bytes(b"mine")
        assert transfer.wait().read_bytes() == b"mine"


def test_what_has_arrived_is_not_fetched_again(tmp_path: Path) -> None:
    body, file = safetensors(8 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=16 * MIB) as origin:
        url = origin.put("/a", body)
        with transfers(tmp_path) as ours:
            transfer = ours.fetch(entry(url), file)
            until(lambda: origin.bytes_sent() >= 4 * MIB)
            transfer.stop()
            with pytest.raises(TransferCancelled, match="fetch it again to go on"):
                transfer.wait()
        before = origin.bytes_sent()
        assert place(file).partial.stat().st_size == len(body) and not file.exists()
        fetch(tmp_path, entry(url))
        assert origin.bytes_sent() - before < 5 * MIB
    assert file.read_bytes() == body


def test_another_mirror_goes_on_with_a_partial_of_the_same_digest(tmp_path: Path) -> None:
    body = safetensors(8 * MIB)
    with Origin(rate_total=16 * MIB) as origin:
        first = origin.put("/first", body, reset_at=MIB)
        second = origin.put("/second", body, etag='"of another server"')
        file = fetch(tmp_path, entry(first, second, sha256=sha256(body)), patience=Patience(1, 0.01, 0.1))
        assert origin.bytes_sent("/first") > MIB
        assert origin.bytes_sent("/second") < 8 * MIB
    assert file.read_bytes() == body


def test_a_wrong_digest_is_quarantined_and_the_next_mirror_asked(tmp_path: Path) -> None:
    body, bad = safetensors(MIB, 1), safetensors(MIB, 2)
    with Origin() as origin:
        one, two = origin.put("/one", bad), origin.put("/two", body)
        message = failure(tmp_path, WrongContent, entry(one, sha256=sha256(body)))
        kept = place(tmp_path / "models" / "a.safetensors").quarantine
        assert sha256(bad) in message and sha256(body) in message and str(kept) in message
        assert kept.read_bytes() == bad
        assert fetch(tmp_path, entry(one, two, sha256=sha256(body))).read_bytes() == body
        assert not kept.exists()


def test_a_partial_that_went_bad_on_the_disk_is_fetched_once_more_from_the_start(tmp_path: Path) -> None:
    body, file = safetensors(4 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=16 * MIB) as origin:
        wanted = entry(origin.put("/a", body), sha256=sha256(body))
        with transfers(tmp_path) as ours:
            transfer = ours.fetch(wanted, file)
            until(lambda: origin.bytes_sent() >= 2 * MIB)
            transfer.stop()
            until(lambda: transfer.is_finished)
        with open(place(file).partial, "r+b") as partial:
            partial.seek(1000)
            partial.write(b"damage")
        assert fetch(tmp_path, wanted).read_bytes() == body


def test_a_file_that_is_no_safetensors_file_never_becomes_visible(tmp_path: Path) -> None:
    with Origin() as origin:
        message = failure(tmp_path, WrongContent, entry(origin.put("/a", weights(MIB))))
    assert "is no safetensors file" in message


def test_a_source_that_cuts_the_file_off_is_found_out(tmp_path: Path) -> None:
    """The origin's copy is short: its Content-Length is honest about that, the header of the file is not."""
    with Origin() as origin:
        url = origin.put("/a", safetensors(MIB)[: MIB // 2])
        assert "cut off" in failure(tmp_path, WrongContent, entry(url))
        url = origin.put("/b", safetensors(MIB), ranges=False, length_known=False)
        assert "sent 1048576 bytes" in failure(tmp_path, WrongContent, entry(url, size=MIB + 1))


@pytest.mark.parametrize("fault", ["truncate_at", "reset_at"])
def test_a_body_that_breaks_off_is_gone_on_with(tmp_path: Path, fault: str) -> None:
    body = safetensors(4 * MIB)
    with Origin() as origin:
        url = origin.put("/a", body, **{fault: MIB // 2}, resets_left=4)
        assert fetch(tmp_path, entry(url)).read_bytes() == body


def test_a_body_that_always_breaks_off_at_once_is_given_up_with_advice(tmp_path: Path) -> None:
    with Origin() as origin:
        url = origin.put("/a", safetensors(64 << 10), reset_at=0)
        message = failure(tmp_path, DownloadFailed, entry(url), patience=Patience(1, 0.01, 0.1))
    assert "broke off" in message and "add another url" in message


def test_404_and_403_are_told_at_once(tmp_path: Path) -> None:
    with Origin() as origin:
        assert "answered 404" in failure(tmp_path, DownloadFailed, entry(origin.url + "/gone"))
        assert "answered 403" in failure(tmp_path, SourceRefused, entry(origin.put("/a", status=403)))
        assert len(origin.log) == 2


def test_a_dead_host_is_given_up_after_some_tries(tmp_path: Path) -> None:
    wanted = entry("http://127.0.0.1:1/a")
    assert "cannot be reached" in failure(tmp_path, DownloadFailed, wanted)


def test_the_errors_of_all_urls_are_told(tmp_path: Path) -> None:
    with Origin() as origin:
        wanted = entry(origin.url + "/gone", origin.put("/a", status=403))
        message = failure(tmp_path, DownloadFailed, wanted)
    assert "none of 2 urls gave it" in message and "answered 404" in message and "answered 403" in message


def test_an_entry_without_url_says_so(tmp_path: Path) -> None:
    assert "has no url. Add one" in failure(tmp_path, DownloadFailed, entry())


def test_a_busy_source_is_asked_again_when_it_wishes(tmp_path: Path) -> None:
    body = safetensors(MIB)
    with Origin() as origin:
        url = origin.put("/a", body, statuses=[429, 503], retry_after="1")
        started = time.monotonic()
        assert fetch(tmp_path, entry(url), patience=Patience(3, 0.01, 0.3)).read_bytes() == body
        assert 0.6 < time.monotonic() - started < 5  # two waits, each no longer than our patience


def test_an_address_whose_signature_expires_is_resolved_again(tmp_path: Path) -> None:
    body = safetensors(2 * MIB)
    with Origin(rate_per_connection=2 * MIB) as origin:
        url = origin.put("/a", body, signed_ttl=0.3, signed_host="localhost", reset_at=400_000, resets_left=6)
        file = fetch(tmp_path, entry(url), depot_connections=2, patience=Patience(5, 0.01, 0.1))
        assert len(origin.hits("/a")) >= 3
        assert any(hit.status == 403 for hit in origin.hits("/signed/a"))
    assert file.read_bytes() == body


def test_a_source_that_changes_all_the_time_is_given_up(tmp_path: Path) -> None:
    with Origin() as origin:
        url = origin.put("/a", safetensors(1000))
        asset, stop = origin.assets["/a"], threading.Event()

        def keep_changing() -> None:
            number = 0
            while not stop.wait(0.001):
                number += 1
                asset.etag = f'"{number}"'

        thread = threading.Thread(target=keep_changing)
        thread.start()
        try:
            message = failure(tmp_path, DownloadFailed, entry(url))
        finally:
            stop.set()
            thread.join()
    assert "changes while it is read" in message


def test_a_death_of_aria2c_in_the_middle_is_survived(tmp_path: Path) -> None:
    body = safetensors(6 * MIB)
    own = Daemon(tmp_path / "state", allow_hosts=("127.0.0.1",))
    with Origin(rate_total=10 * MIB) as origin, running(own), transfers(tmp_path, daemon=own) as ours:
        transfer = ours.fetch(entry(origin.put("/a", body)), tmp_path / "models" / "a.safetensors")
        until(lambda: origin.bytes_sent() >= 2 * MIB)
        assert ours.daemon.aria2c_pid is not None
        os.kill(ours.daemon.aria2c_pid, signal.SIGKILL)
        assert transfer.wait().read_bytes() == body
        assert origin.bytes_sent() < 10 * MIB


def test_a_death_of_aria2c_under_many_transfers_costs_one_new_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = [safetensors(2 * MIB, seed) for seed in range(4)]
    own = Daemon(tmp_path / "state", allow_hosts=("127.0.0.1",))
    with Origin(rate_total=12 * MIB) as origin, running(own), transfers(tmp_path, daemon=own) as ours:
        coming = [
            ours.fetch(entry(origin.put(f"/{i}", body)), tmp_path / "models" / f"{i}.safetensors")
            for i, body in enumerate(bodies)
        ]
        until(lambda: all(origin.bytes_sent(f"/{i}") > 1000 for i in range(4)))
        assert own.aria2c_pid is not None
        os.kill(own.aria2c_pid, signal.SIGKILL)
        assert [transfer.wait().read_bytes() for transfer in coming] == bodies
    assert caplog.text.count("started again") == 1


class DyingOnce(Daemon):
    """An aria2c that does not survive its first start."""

    has_died = False

    def ensure(self) -> None:
        if not self.has_died:
            self.has_died = True
            raise DaemonGone("aria2c could not be started or has died.")
        super().ensure()


def test_an_aria2c_that_dies_while_it_starts_is_started_again(tmp_path: Path) -> None:
    own = DyingOnce(tmp_path / "state", allow_hosts=("127.0.0.1",))
    with Origin() as origin, running(own), transfers(tmp_path, daemon=own) as ours:
        wanted = entry(origin.put("/a", safetensors(1000)))
        assert ours.fetch(wanted, tmp_path / "models" / "a.safetensors").wait().is_file()


def test_a_second_process_waits_for_the_first_and_takes_over_when_it_dies(tmp_path: Path) -> None:
    body, file = safetensors(4 * MIB), tmp_path / "models" / "a.safetensors"
    with Origin(rate_total=8 * MIB) as origin, transfers(tmp_path / "second") as ours:
        url = origin.put("/a", body)
        first = fetcher(tmp_path / "first", file, url)
        until(lambda: origin.bytes_sent() >= MIB)
        transfer = ours.fetch(entry(url), file)
        until(lambda: transfer.state.value == "waiting")
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert transfer.wait().read_bytes() == body
        assert origin.bytes_sent() - len(body) < 4 * MIB


def test_too_little_room_is_noticed_before_the_download(tmp_path: Path) -> None:
    with Origin() as origin:
        url = origin.put("/a", safetensors(1000))
        message = failure(tmp_path, DiskFull, entry(url), depot_reserve=1 << 60)
        assert "needs 0.0 MB more" in message and "lower --depot-reserve" in message
        assert origin.bytes_sent() <= 1
    assert not place(tmp_path / "models" / "a.safetensors").partial.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB; needs the right to mount."""
    with small_file_system(tmp_path / "disk", "6m") as folder:
        yield folder


def test_a_disk_that_fills_up_on_the_way_keeps_the_partial_until_there_is_room(
    tmp_path: Path, small_disk: Path
) -> None:
    body, file = safetensors(4 * MIB), small_disk / "a.safetensors"
    with Origin(rate_total=6 * MIB) as origin, transfers(tmp_path) as ours:
        wanted = entry(origin.put("/a", body))
        transfer = ours.fetch(wanted, file)
        until(lambda: origin.bytes_sent() >= 2 * MIB)
        usage = os.statvfs(small_disk)
        with contextlib.suppress(OSError):  # the download goes on meanwhile: as much as fits
            (small_disk / "junk").write_bytes(bytes(usage.f_bavail * usage.f_frsize - (256 << 10)))
        with pytest.raises(DiskFull, match="MB are free"):
            transfer.wait()
        (small_disk / "junk").unlink()
        assert place(file).partial.exists()
        before = origin.bytes_sent()
        assert ours.fetch(wanted, file).wait().read_bytes() == body
        assert origin.bytes_sent() - before < 3 * MIB


def test_of_two_downloads_that_fit_alone_but_not_both_one_arrives_and_one_is_refused(
    tmp_path: Path, small_disk: Path
) -> None:
    with Origin(rate_total=6 * MIB) as origin, transfers(tmp_path) as ours:
        first = ours.fetch(entry(origin.put("/a", safetensors(4 * MIB))), small_disk / "a.safetensors")
        until(lambda: origin.bytes_sent() > 2)
        second = ours.fetch(entry(origin.put("/b", safetensors(4 * MIB))), small_disk / "b.safetensors")
        with pytest.raises(DiskFull, match="promised to other downloads"):
            second.wait()
        assert first.wait().stat().st_size == 4 * MIB
        assert origin.bytes_sent("/b") <= 1
        (small_disk / "a.safetensors").unlink()
        wanted = entry(origin.put("/c", safetensors(4 * MIB)))
        assert ours.fetch(wanted, small_disk / "c.safetensors").wait().exists()


def test_a_hidden_folder_on_another_disk_is_refused_before_the_download(
    tmp_path: Path, small_disk: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".depot").symlink_to(small_disk)
    with Origin() as origin:
        message = failure(tmp_path, DownloadFailed, entry(origin.put("/a", safetensors(1000))))
        assert ".depot is no folder on the disk of" in message and origin.hits() == []


def test_a_folder_in_place_of_the_file_or_a_file_in_place_of_the_hidden_folder_is_told(
    tmp_path: Path,
) -> None:
    (tmp_path / "models" / "a.safetensors").mkdir(parents=True)
    (tmp_path / "models" / ".depot").touch()
    with transfers(tmp_path) as ours:
        for name, words in (("a.safetensors", "is a folder. Move it"), ("b.safetensors", "is no folder on")):
            with pytest.raises(DownloadFailed, match=words):
                ours.fetch(entry("http://127.0.0.1:1/x"), tmp_path / "models" / name).wait()


@pytest.mark.parametrize("size", [10**15, 10**18, 10**25])
def test_an_absurd_size_is_refused_and_costs_neither_memory_nor_disk(tmp_path: Path, size: int) -> None:
    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1 << 16)
            client.sendall(b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-0/%d\r\n\r\n" % size)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        assert "MB are free" in failure(tmp_path, DiskFull, entry(url))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with Origin() as origin, transfers(tmp_path) as ours:
        transfer = ours.fetch(entry(origin.put("/a", b"x")), tmp_path / "models" / "a.safetensors")
        with pytest.raises(DownloadFailed, match="cannot be written into .*models.*owner and rights"):
            transfer.wait()

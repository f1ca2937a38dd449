"""The user's own files get their sha256 in idle time: all of them, no wrong one, and in nobody's way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import background, hasher, inotify, open_files
from comfy_depot.depot import Depot
from comfy_depot.digests import Digests
from comfy_depot.eviction import Limits, Stamp
from comfy_depot.file_digest import PORTION_BYTES
from comfy_depot.hasher import Hasher
from comfy_depot.locks import file_lock
from comfy_depot.search import Wanted, search
from tests.comfy_depot.world import World, queued
from tests.fakes.fetching import ROOT
from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.waiting import wait_until

LONG_AGO = 1_700_000_000


def old_model(world: World, name: str, body: bytes, folder: str = "loras") -> Path:
    """A file that nobody has written to for long."""
    file = world.write_model(folder, name, body)
    os.utime(file, (LONG_AGO, LONG_AGO))
    return file


def stamp_of(file: Path) -> Stamp:
    return Stamp.of(os.stat(file))


@contextmanager
def hashing(world: World, *, bytes_per_second: float = 1e12, **options: Any) -> Iterator[Depot]:
    """A depot whose hasher looks often."""
    with world.depot(**options) as depot:
        depot.index.indexer.update()
        depot.hasher.close()
        depot.hasher = Hasher(depot, pause=0.01, bytes_per_second=bytes_per_second)
        depot.hasher.start()
        yield depot


def is_done(depot: Depot) -> Callable[[], bool]:
    return lambda: depot.hasher.stats()["state"] == "done"


def until_done(depot: Depot) -> None:
    """Wait until all is known: long enough, because the thread gets what others leave."""
    wait_until(is_done(depot), seconds=60)


def position(depot: Depot) -> int:
    """How far the file is that was begun; 0 without one."""
    current = depot.hasher.stats()["current"]
    return 0 if current is None else int(current["bytes_done"])


def test_all_files_are_known_in_the_end_and_found_by_their_hash_at_once(depot_world: World) -> None:
    bodies = {f"{n}.safetensors": os.urandom(n * 700_000) for n in range(4)}
    for name, body in bodies.items():
        old_model(depot_world, name, body)
    (depot_world.base / "models" / "loras" / "notes.md").write_text("no model")
    with hashing(depot_world) as depot:
        until_done(depot)
        stats = depot.hasher.stats()
        for name, body in bodies.items():
            assert depot.digests.of(stamp_of(depot_world.model("loras", name))) == sha256(body)
            (found,) = search(depot, Wanted(sha256=sha256(body)[:10])).models
            assert (found.name, found.sha256) == (name, sha256(body))
    assert stats == {"mode": "idle", "state": "done", "files_known": 4, "bytes_known": 6 * 700_000,
                     "files_to_do": 0, "bytes_to_do": 0, "current": None}
    with depot_world.depot() as depot:
        assert depot.hasher.stats()["files_known"] == 4, "after a restart nothing is to be done"


def test_links_and_files_of_two_types_are_read_once(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = old_model(depot_world, "a.safetensors", b"a" * 1000), []
    os.link(file, file.with_name("b.safetensors"))
    file.with_name("c.safetensors").symlink_to(file)
    begin = hasher.FileDigest
    monkeypatch.setattr(hasher, "FileDigest", lambda path: read.append(path) or begin(path))
    with hashing(depot_world) as depot:
        until_done(depot)
        assert len(read) == 1 and depot.hasher.stats()["files_known"] == 1


def prompt(world: World) -> Callable[[], None]:
    """A prompt comes; what it returns takes it away again."""
    world.prompts.append(queued("p1"))
    return world.prompts.clear


def download(world: World) -> Callable[[], None]:
    """A download comes that brings nothing for a while."""
    origin = Origin(rate_total=1000)
    origin.__enter__()
    import comfy_depot.hooks

    depot: Any = comfy_depot.hooks.armed()
    world.write_manifest({"checkpoints": {"slow.safetensors": origin.put("/slow", safetensors(200_000))}})
    depot.catalogue.refresh()
    transfer = depot.start_fetch("checkpoints", "slow.safetensors")
    wait_until(depot.active_transfers)

    def end() -> None:
        transfer.stop()
        wait_until(lambda: transfer.is_finished, seconds=20)
        origin.__exit__(None, None, None)

    return end


@pytest.mark.slow
@pytest.mark.parametrize("other", [prompt, download])
def test_it_stops_for_what_is_more_important_and_goes_on_where_it_was(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, other: Callable[[World], Callable[[], None]]
) -> None:
    body, begun = os.urandom(6 * PORTION_BYTES), []
    file = old_model(depot_world, "large.safetensors", body)
    begin = hasher.FileDigest
    monkeypatch.setattr(hasher, "FileDigest", lambda path: begun.append(path) or begin(path))
    with hashing(depot_world, bytes_per_second=4 * PORTION_BYTES) as depot:
        wait_until(lambda: position(depot) >= PORTION_BYTES, seconds=60)
        end = other(depot_world)
        wait_until(lambda: depot.hasher.stats()["state"] == "waiting", seconds=20)
        there = position(depot)
        assert 0 < there < len(body) and open_files.look().holder(file) is None
        time.sleep(0.3)
        assert position(depot) == there and depot.digests.of(stamp_of(file)) is None
        end()
        until_done(depot)
        assert depot.digests.of(stamp_of(file)) == sha256(body) and begun == [str(file)]


def test_it_waits_until_nothing_was_done_for_a_while(depot_world: World) -> None:
    file = old_model(depot_world, "a.safetensors", b"a")
    with depot_world.depot() as depot:
        one = Hasher(depot)
        one.look()
        one.look()
        assert depot.digests.of(stamp_of(file)) is None, "the headers are read first"
        depot.index.indexer.update()
        one.look()
        depot_world.prompts.append(queued("p1"))
        one.look()
        depot_world.prompts.clear()
        one.look()
        assert depot.digests.of(stamp_of(file)) is None, "a pause between two prompts is no idle time"
        one.look()
        assert depot.digests.of(stamp_of(file)) == sha256(b"a")


def test_a_file_that_changes_while_it_is_read_is_known_as_what_it_is_in_the_end(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hasher, "SECONDS_TO_RETRY", 0.0)
    old, new = os.urandom(4 * PORTION_BYTES), os.urandom(4 * PORTION_BYTES)
    file = old_model(depot_world, "a.safetensors", old)
    before = stamp_of(file)
    with hashing(depot_world, bytes_per_second=3 * PORTION_BYTES) as depot:
        wait_until(lambda: position(depot) >= PORTION_BYTES, seconds=60)
        with open(file, "r+b") as other:
            other.seek(2 * PORTION_BYTES)
            other.write(new[2 * PORTION_BYTES:])
        os.utime(file, (LONG_AGO, LONG_AGO))  # as if nothing had happened
        assert stamp_of(file) == before
        until_done(depot)
        assert depot.digests.of(before) == sha256(file.read_bytes())


def test_a_file_that_may_still_be_written_is_left_alone(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = depot_world.write_model("loras", "a.safetensors", b"half")
    with hashing(depot_world) as depot:
        time.sleep(0.2)
        stats = depot.hasher.stats()
        assert (stats["files_to_do"], stats["state"]) == (1, "waiting")
        monkeypatch.setattr(hasher, "SECONDS_TO_SETTLE", 0.1)
        until_done(depot)
        assert depot.digests.of(stamp_of(file)) == sha256(b"half")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_what_lies_on_a_network_is_not_read(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:3 / {tmp_path}/models rw - {kind} x rw\n")
    monkeypatch.setattr(inotify, "MOUNTS", str(mounts))
    old_model(depot_world, "a.safetensors", b"far away")
    with hashing(depot_world) as depot:
        assert is_done(depot)() and depot.hasher.stats()["files_known"] == 0


def test_on_battery_nothing_is_read(depot_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "is_on_battery", lambda: True)
    file = old_model(depot_world, "a.safetensors", b"a")
    with hashing(depot_world) as depot:
        time.sleep(0.1)
        assert depot.hasher.stats()["state"] == "on battery"
        assert depot.digests.of(stamp_of(file)) is None
        monkeypatch.setattr(background, "is_on_battery", lambda: False)
        until_done(depot)


def test_off_means_off_and_another_process_is_not_disturbed(depot_world: World) -> None:
    file = old_model(depot_world, "a.safetensors", b"a")
    with hashing(depot_world, depot_hash="off") as depot:
        assert not [thread for thread in threading.enumerate() if thread.name == "depot-hash"]
        assert depot.hasher.stats()["state"] == "off" and depot.hasher.stats()["files_to_do"] == 1
    with depot_world.depot() as depot:
        depot.index.indexer.update()
        one = Hasher(depot)
        with file_lock(depot_world.base / "depot" / hasher.LOCK_NAME, on_wait=pytest.fail):
            one.look()
            one.look()
            assert depot.digests.of(stamp_of(file)) is None
        one.look()
        assert depot.digests.of(stamp_of(file)) == sha256(b"a")


def test_the_thread_has_the_lowest_priority(depot_world: World) -> None:
    with hashing(depot_world):
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "depot-hash"]
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) == 19)


def test_the_rate_is_bounded(depot_world: World) -> None:
    old_model(depot_world, "a.safetensors", bytes(4 * PORTION_BYTES))
    began = time.monotonic()
    with hashing(depot_world, bytes_per_second=8 * PORTION_BYTES) as depot:
        until_done(depot)
        assert time.monotonic() - began > 0.45


def test_a_file_that_is_read_is_not_in_use_for_eviction(depot_world: World) -> None:
    body = os.urandom(8 * PORTION_BYTES)
    file = old_model(depot_world, "a.safetensors", body, "checkpoints")
    entry = {"url": "https://host.example/a", "size": len(body)}
    depot_world.write_manifest({"checkpoints": {"a.safetensors": entry}})
    with hashing(depot_world, bytes_per_second=4 * PORTION_BYTES) as depot:
        wait_until(lambda: position(depot) > 0, seconds=60)
        plan = depot.plan_eviction(Limits(names={("checkpoints", "a.safetensors")})).execute()
        assert [verdict.model.path for verdict in plan.going] == [str(file)] and not file.exists()
        assert open_files.look().holder(file) is None
        wait_until(lambda: depot.hasher.stats()["files_to_do"] == 0)


def test_an_index_that_cannot_be_written_does_not_have_the_library_read_for_ever(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    for number in range(3):
        old_model(depot_world, f"{number}.safetensors", b"a" * number)
    begin = hasher.FileDigest
    monkeypatch.setattr(hasher, "FileDigest", lambda path: begun.append(path) or begin(path))
    with depot_world.depot() as depot:
        depot.index.indexer.update()
        depot.index.database.file.unlink()
        depot.index.database.file.mkdir()
        one = Hasher(depot)
        for _ in range(5):
            one.look()
        assert len(begun) == 1


KILLED = """
import sys
from pathlib import Path
from comfy_depot.hasher import Hasher
from tests.comfy_depot.test_hasher import hashing
from tests.comfy_depot.world import world
base = Path(sys.argv[1])
with world(base, is_new=False) as made, hashing(made) as depot:
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_kill_loses_nothing_that_was_computed(depot_world: World) -> None:
    bodies = {f"{n}.safetensors": os.urandom(300_000 + n) for n in range(60)}
    files = {name: old_model(depot_world, name, body) for name, body in bodies.items()}
    digests = Digests(depot_world.base / "depot")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(depot_world.base)], cwd=ROOT,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        wait_until(lambda: any(digests.of(stamp_of(file)) for file in files.values()), seconds=60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    before = {name: digests.of(stamp_of(file)) for name, file in files.items()}
    assert all(found in (None, sha256(bodies[name])) for name, found in before.items())
    with hashing(depot_world) as depot:
        until_done(depot)
        assert {name: depot.digests.of(stamp_of(file)) for name, file in files.items()} == {
            name: sha256(body) for name, body in bodies.items()}

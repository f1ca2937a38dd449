"""Eviction by itself: before a transfer, on a full disk, in idle time; with real transfers and files."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_depot.budget import IdleEviction
from comfy_depot.depot import Depot
from comfy_depot.errors import DiskFull, WrongContent
from comfy_depot.eviction import Limits, LocalModel, Stamp, plan_room
from comfy_depot.host import Host
from tests.comfy_depot.world import World
from tests.fakes.disk import bytes_on_disk, small_file_system
from tests.fakes.origin import Origin, safetensors
from tests.fakes.waiting import wait_until

KIB, MIB = 1 << 10, 1 << 20


def serve(world: World, origin: Origin, *names: str, size: int = MIB) -> None:
    """A manifest of models of one size; each name is its first letter with an ending."""
    world.write_manifest({"loras": {
        f"{name}.safetensors": {"url": origin.put(f"/{name}", safetensors(size, seed=ord(name[0]))),
                                "size": size} for name in names}})


def on_disk(world: World) -> str:
    return "".join(sorted(path.stem for path in (world.base / "models" / "loras").glob("*.safetensors")))


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[list[int]]:
    """The bytes of a folder every 10 ms."""
    samples: list[int] = []
    end = threading.Event()

    def look() -> None:
        while not end.wait(0.01):
            samples.append(bytes_on_disk(folder))

    thread = threading.Thread(target=look)
    thread.start()
    yield samples
    end.set()
    thread.join()


def fetch_all(depot: Depot, names: str) -> list[BaseException]:
    """Fetch at the same time; what went wrong."""
    errors: list[BaseException] = []

    def fetch(name: str) -> None:
        try:
            depot.fetch("loras", f"{name}.safetensors")
        except DiskFull as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_the_budget_is_never_exceeded_while_several_transfers_run(depot_world: World) -> None:
    limit = 4 * MIB
    with Origin(rate_total=32 * MIB) as origin:
        serve(depot_world, origin, *"abcde")
        models = depot_world.base / "models"
        with depot_world.depot(depot_max_size=limit) as depot, watching(models) as samples:
            for names in ("abc", "dec"):
                assert fetch_all(depot, names) == []
    assert limit >= max(samples) > 3 * MIB and len(samples) > 20
    assert set("de") <= set(on_disk(depot_world))


def test_what_must_stay_is_named_when_nothing_can_go(depot_world: World) -> None:
    own = depot_world.write_model("loras", "user.safetensors", b"x" * 3 * MIB)
    with Origin() as origin:
        serve(depot_world, origin, *"abc")
        with depot_world.depot(depot_max_size=2 * MIB + 512 * KIB) as depot:
            depot.pin("loras", "a.safetensors")
            for name in "ab":
                depot.fetch("loras", f"{name}.safetensors")
            depot_world.models_in_use.add(("loras", "b.safetensors"))
            with pytest.raises(DiskFull) as refused:
                depot.fetch("loras", "c.safetensors")
            assert on_disk(depot_world) == "abuser" and own.stat().st_size == 3 * MIB
            message = str(refused.value)
            assert "'loras/c.safetensors' needs 1.0 MB more, and of --depot-max-size 2.6 MB only" in message
            assert "loras/a.safetensors (it is pinned)" in message
            assert "loras/b.safetensors (a running or queued prompt names it)" in message
            assert "user" not in message, "it does not count"
            depot_world.models_in_use.clear()
            depot.fetch("loras", "c.safetensors")
            assert on_disk(depot_world) == "acuser"


@pytest.fixture
def small_disk(depot_world: World) -> Iterator[World]:
    """The models on a file system of 8 MiB, where the test may mount one."""
    with small_file_system(depot_world.base / "models", "8m") as folder:
        (folder / "loras").mkdir()
        yield depot_world


def test_the_disk_itself_is_the_budget_when_none_is_given(small_disk: World) -> None:
    with Origin() as origin:
        serve(small_disk, origin, *"abcd", size=2 * MIB)
        with small_disk.depot(depot_reserve=MIB) as depot:
            for name in "abcd":
                depot.fetch("loras", f"{name}.safetensors")
            assert on_disk(small_disk) == "bcd"
            usage = os.statvfs(small_disk.base / "models")
            assert usage.f_bavail * usage.f_frsize >= MIB


def test_a_disk_that_fills_up_on_the_way_is_made_free_and_the_download_goes_on(small_disk: World) -> None:
    with Origin() as origin:
        serve(small_disk, origin, *"ab", size=3 * MIB)
        origin.assets["/b"].rate = 6 * MIB
        with small_disk.depot() as depot:
            depot.fetch("loras", "a.safetensors")
            coming = depot.start_fetch("loras", "b.safetensors")
            wait_until(lambda: origin.bytes_sent("/b") > MIB // 2)
            usage = os.statvfs(small_disk.base / "models")
            junk = small_disk.base / "models" / "junk"
            with contextlib.suppress(OSError):  # the download goes on meanwhile: as much as fits
                junk.write_bytes(bytes(usage.f_bavail * usage.f_frsize - (256 << 10)))
            wait_until(lambda: coming.is_finished, seconds=20)
            assert coming.error is None and on_disk(small_disk) == "b"
            assert junk.stat().st_size > MIB, "a file of somebody else is never touched"


def untold(origin: Origin, name: str, size: int, **behaviour: float) -> str:
    """The url of a model whose size nobody tells."""
    return origin.put(f"/{name}", safetensors(size, seed=ord(name)), ranges=False, length_known=False,
                      **behaviour)


@pytest.mark.slow
def test_a_download_of_unknown_size_stops_before_the_budget_is_broken(depot_world: World) -> None:
    limit = 6 * MIB
    with Origin(rate_total=48 * MIB) as origin:
        serve(depot_world, origin, *"ab")
        depot_world.write_manifest({"loras": {"fits.safetensors": untold(origin, "f", 3 * MIB + 5),
                                              "large.safetensors": untold(origin, "l", 32 * MIB)}}, "m.json")
        models = depot_world.base / "models"
        with depot_world.depot(depot_max_size=limit) as depot, watching(models) as samples:
            assert fetch_all(depot, "ab") == []
            depot.pin("loras", "b.safetensors")
            with pytest.raises(DiskFull) as refused:
                depot.fetch("loras", "large.safetensors")
            assert on_disk(depot_world) == "b" and bytes_on_disk(models) < 2 * MIB, "nothing useless is left"
            depot.fetch("loras", "fits.safetensors")
    message = str(refused.value)
    assert "needs at least" in message and "of --depot-max-size 6.3 MB only" in message
    assert "its source does not tell the size" in message and "loras/b.safetensors (it is pinned)" in message
    assert limit >= max(samples) > 5 * MIB, "it stops before the limit, and not long before"
    assert len(origin.hits("/l")) <= 3, "it is not asked for again and again"
    assert on_disk(depot_world) == "bfits"


@pytest.mark.slow
def test_a_download_of_unknown_size_leaves_the_reserve_on_a_small_disk(small_disk: World) -> None:
    models = small_disk.base / "models"
    with Origin(rate_total=48 * MIB) as origin:
        small_disk.write_manifest({"loras": {"large.safetensors": untold(origin, "l", 32 * MIB),
                                             "fits.safetensors": untold(origin, "f", 5 * MIB)}})
        with small_disk.depot(depot_reserve=2 * MIB) as depot, watching(models) as samples:
            with pytest.raises(DiskFull, match="2.1 MB are kept in reserve"):
                depot.fetch("loras", "large.safetensors")
            depot.fetch("loras", "fits.safetensors")
    usage = os.statvfs(models)
    assert 3 * MIB > usage.f_blocks * usage.f_frsize - max(samples) >= 2 * MIB


def test_more_than_the_manifest_says_is_no_reason_to_fill_the_disk(depot_world: World) -> None:
    with Origin(rate_total=48 * MIB) as origin:
        url = untold(origin, "a", 32 * MIB)
        depot_world.write_manifest({"loras": {"a.safetensors": {"url": url, "size": MIB}}})
        with depot_world.depot() as depot, watching(depot_world.base / "models") as samples:
            with pytest.raises(WrongContent, match="sends more than the 1048576 bytes"):
                depot.fetch("loras", "a.safetensors")
    assert max(samples) < 16 * MIB


def test_limits_are_held_in_idle_time_and_not_while_prompts_wait(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {
        f"{name}.safetensors": {"url": "https://host.example/x", "size": 5} for name in "ab"}})
    for age, name in enumerate("ba"):
        file = depot_world.write_model("loras", f"{name}.safetensors", b"12345")
        os.utime(file, (1e9 + age, 1e9 + age))
    depot_world.models_in_use.add(("loras", "other.safetensors"))
    with depot_world.depot(depot_max_size=5) as depot:
        idle = IdleEviction(depot, pause=0.01)
        idle.start()
        time.sleep(0.1)
        assert on_disk(depot_world) == "ab"
        depot_world.models_in_use.clear()
        wait_until(lambda: on_disk(depot_world) == "a")
        idle.close()


def test_idle_eviction_that_fails_says_so_once(depot_world: World, caplog: pytest.LogCaptureFixture) -> None:
    with depot_world.depot(depot_keep_days=1.0) as depot:
        (depot_world.base / "depot" / "pins.json").write_text("{")
        idle = IdleEviction(depot, pause=0.01)
        depot_world.write_model("loras", "a.safetensors")
        idle.start()
        wait_until(lambda: "not evicted in idle time: The list of pinned models" in caplog.text)
        time.sleep(0.05)
        idle.close()
    assert caplog.text.count("not evicted in idle time") == 1


def test_without_limits_nothing_runs_in_idle_time(depot_world: World) -> None:
    with depot_world.depot() as depot:
        assert depot.idle_eviction._thread is None
    with depot_world.depot(depot_keep_days=7.0) as depot:
        assert depot.idle_eviction._thread is not None


def test_another_process_evicts_nothing_that_a_server_uses(depot_world: World) -> None:
    """The command line knows no queue; the server with the same state folder is asked."""
    depot_world.write_manifest({"loras": {"a.safetensors": {"url": "https://host.example/a", "size": 5}}})
    file = depot_world.write_model("loras", "a.safetensors", b"12345")
    depot_world.models_in_use.add(("loras", "a.safetensors"))
    with depot_world.depot() as server:
        other = Depot(server.options, Host())
        (stays,) = other.plan_eviction(Limits(max_size=0)).execute().staying
        assert stays.reason == "a running or queued prompt names it" and file.exists()
        depot_world.models_in_use.clear()
        assert other.plan_eviction(Limits(max_size=0)).execute().bytes_freed == 5
        other.close()


def model(name: str, size: int, *, device: int = 1, kept: str | None = None) -> LocalModel:
    return LocalModel("loras", name, f"/{name}", Stamp(device, 2, size, 3), 0, kept=kept)


@pytest.mark.parametrize(
    "over, on_device, goes",
    [(0, 5, "b"), (5, 0, "a"), (5, 5, "ab"), (20, 0, "ab"), (31, 0, ""), (0, 21, ""), (0, 0, "")],
)
def test_only_what_helps_goes_and_nothing_when_all_would_not_be_enough(
    over: int, on_device: int, goes: str
) -> None:
    models = [model("a", 10, device=2), model("b", 10), model("c", 10), model("d", 99, kept="it is pinned")]
    order = [one.key for one in models]
    plan = plan_room(models, bytes_over=over, device=1, bytes_on_device=on_device, order=order)
    assert "".join(verdict.model.name for verdict in plan.going) == goes

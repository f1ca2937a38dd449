"""Tensors of a file that is still on its way: bit for bit, and nobody's before the file is verified."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import stream
from comfy_depot.aria2 import PIECE_BYTES, Daemon, running
from comfy_depot.errors import DownloadFailed, TransferCancelled, WrongContent
from comfy_depot.journal import Pieces
from comfy_depot.layout import Place
from comfy_depot.stream import Streams
from tests.comfy_depot.world import World
from tests.fakes.fetching import entry, transfers, until
from tests.fakes.opened_files import counted_opens
from tests.fakes.origin import Origin, sha256

MIB = PIECE_BYTES


def model(seed: int = 0, mebibytes: int = 4) -> bytes:
    """A safetensors file with many kinds of tensors, small, large and empty, and metadata."""
    import torch
    from safetensors.torch import save

    chance = torch.Generator().manual_seed(seed)
    tensors = {
        f"block.{n}.weight": torch.randn(512, 256, generator=chance).to(kind)
        for n, kind in zip(
            range(2 * mebibytes),
            [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64] * mebibytes,
            strict=False,
        )
    }
    tensors |= {"scale": torch.tensor(1.5), "empty": torch.zeros(0, 3), "flags": torch.tensor([True, False])}
    return save(tensors, metadata={"format": "pt", "seed": str(seed)})


def digests(tensors: dict[str, Any]) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """{name: (sha256, dtype, shape)}"""
    import torch

    return {
        key: (hashlib.sha256(t.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest(), str(t.dtype),
              tuple(t.shape))
        for key, t in tensors.items()
    }


def loaded_from(body: bytes) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """What the safetensors library makes of a whole file."""
    from safetensors.torch import load

    return digests(load(body))


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files of 1 MiB and more are streamed; no thread outlives a test."""
    monkeypatch.setattr(stream, "LEAST_TO_STREAM", MIB)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "stream"]


def until_tensors_are_there(streams: Streams, file: Path) -> None:
    """Wait until the first tensors of a file on its way have been handed over."""
    until(lambda: file in streams._running and streams._running[file].tensors)


def test_tensors_come_before_the_file_and_are_those_of_the_file(tmp_path: Path) -> None:
    body, file, streams = model(), tmp_path / "models" / "a.safetensors", Streams()
    with Origin(rate_total=6 * MIB) as origin, \
            transfers(tmp_path, streams=streams, depot_connections=1) as ours:
        with streams.wanted(file):
            transfer = ours.fetch(entry(origin.put("/a", body), sha256=sha256(body)), file)
            until_tensors_are_there(streams, file)
            assert transfer.bytes_done < len(body) and not file.exists()
            assert streams.take(file) is None
            origin.total.rate = None
            transfer.wait()
    loaded = streams.take(file)
    assert loaded is not None and digests(loaded.tensors) == loaded_from(body)
    assert loaded.metadata == {"format": "pt", "seed": "0"}
    assert streams.take(file) is None, "each loader gets tensors of its own"
    taken = weakref.ref(loaded)
    del loaded
    gc.collect()
    assert taken() is None, "what its loader has let go of is not kept, and the file not mapped"


def test_a_wrong_file_takes_its_tensors_with_it(tmp_path: Path) -> None:
    body, file, streams = model(), tmp_path / "models" / "a.safetensors", Streams()
    with Origin(rate_total=6 * MIB) as origin, \
            transfers(tmp_path, streams=streams, depot_connections=1) as ours:
        with streams.wanted(file), pytest.raises(WrongContent, match="quarantined"):
            transfer = ours.fetch(entry(origin.put("/a", body), sha256=sha256(b"another")), file)
            until_tensors_are_there(streams, file)
            origin.total.rate = None
            transfer.wait()
    (bad,) = (file.parent / ".depot").glob("*.bad")
    assert bad.read_bytes() == body and not file.exists()
    os.link(bad, file)
    assert streams.take(file) is None


def test_a_file_that_changes_on_the_way_gives_the_tensors_of_one_version_only(tmp_path: Path) -> None:
    old, new = model(1), model(2)
    file, streams = tmp_path / "models" / "a.safetensors", Streams()
    with Origin(rate_total=60 * MIB) as origin, transfers(tmp_path, streams=streams) as ours:
        url = origin.put("/a", old, swap_after=2 * MIB, swap_to=new)
        with streams.wanted(file):
            ours.fetch(entry(url), file).wait()
    loaded = streams.take(file)
    assert file.read_bytes() == new
    assert loaded is not None and digests(loaded.tensors) == loaded_from(new)


@pytest.mark.parametrize("head", [
    b"<html><body>Please log in</body></html>",
    (64).to_bytes(8, "little") + b'{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'.ljust(64),
])  # fmt: skip
def test_what_has_no_header_is_refused_long_before_its_end(tmp_path: Path, head: bytes) -> None:
    file, streams = tmp_path / "models" / "a.safetensors", Streams()
    with Origin(rate_total=16 * MIB) as origin, \
            transfers(tmp_path, streams=streams, depot_connections=1) as ours:
        url = origin.put("/a", head.ljust(10 * MIB, b"\1"))
        with streams.wanted(file), pytest.raises(WrongContent, match="check the url|choose another url"):
            ours.fetch(entry(url), file).wait()
        assert origin.bytes_sent() < 10 * MIB
    assert not file.exists()


def test_a_stopped_and_resumed_download_streams_all_tensors(tmp_path: Path) -> None:
    body, file, streams = model(), tmp_path / "models" / "a.safetensors", Streams()
    with Origin(rate_total=16 * MIB) as origin, transfers(tmp_path, streams=streams) as ours:
        what = entry(origin.put("/a", body), sha256=sha256(body))
        transfer = ours.fetch(what, file)
        with streams.wanted(file), pytest.raises(TransferCancelled):
            until(lambda: transfer.bytes_done > 2 * MIB)
            origin.total.rate = 1000
            transfer.stop()
            transfer.wait()
        origin.total.rate = None
        with streams.wanted(file):
            ours.fetch(what, file).wait()
        assert origin.bytes_sent() < len(body) + 4 * MIB
    loaded = streams.take(file)
    assert loaded is not None and digests(loaded.tensors) == loaded_from(body)


def test_a_death_of_aria2c_on_the_way_changes_nothing(tmp_path: Path) -> None:
    body, file, streams = model(), tmp_path / "models" / "a.safetensors", Streams()
    daemon = Daemon(tmp_path / "state", allow_hosts=("127.0.0.1",))
    with running(daemon), Origin(rate_total=12 * MIB) as origin, \
            transfers(tmp_path, daemon=daemon, streams=streams) as ours:
        transfer = ours.fetch(entry(origin.put("/a", body), sha256=sha256(body)), file)
        with streams.wanted(file):
            until(lambda: transfer.bytes_done > MIB)
            assert daemon.aria2c_pid is not None
            os.kill(daemon.aria2c_pid, signal.SIGKILL)
            transfer.wait()
    loaded = streams.take(file)
    assert loaded is not None and digests(loaded.tensors) == loaded_from(body)


@pytest.mark.parametrize("what", ["nobody waits", "off", "small", "pickle", "no ranges"])
def test_what_cannot_or_need_not_be_streamed_is_loaded_as_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    body = model(mebibytes=2)
    file = tmp_path / "models" / ("a.ckpt" if what == "pickle" else "a.safetensors")
    streams = Streams(is_on=what != "off")
    monkeypatch.setattr(stream, "LEAST_TO_STREAM", 1 << 30 if what == "small" else MIB)
    with Origin() as origin, transfers(tmp_path, streams=streams) as ours:
        url = origin.put("/a", body, ranges=what != "no ranges")
        with streams.wanted(tmp_path / "other.safetensors" if what == "nobody waits" else file):
            ours.fetch(entry(url, name=file.name), file).wait()
    assert file.read_bytes() == body and streams.take(file) is None


def place_of(file: Path) -> Place:
    """A file that is its own partial, for a stream without a download."""
    return Place(file, file, file, file, file, file)


def streamed(file: Path, body: bytes) -> Streams:
    """Streams that hold the tensors of a file."""
    file.write_bytes(body)
    streams = Streams()
    with streams.wanted(file):
        streams.see(place_of(file), "checkpoints/a", Pieces(len(body)))
        streams.finish(place_of(file))
    return streams


def test_a_file_that_was_replaced_or_has_gone_since_is_not_served(tmp_path: Path) -> None:
    file, body = tmp_path / "a.safetensors", model(mebibytes=2)
    streams = streamed(file, body)
    file.rename(tmp_path / "b.safetensors")
    assert streams.take(file) is None
    file.write_bytes(body)
    assert streams.take(file) is None
    assert streams.take(tmp_path / "b.safetensors") is not None


def test_what_no_loader_takes_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SECONDS_KEPT", 0.05)
    streams = streamed(tmp_path / "a.safetensors", model(mebibytes=2))
    until(lambda: not streams._ready)
    assert streams.take(tmp_path / "a.safetensors") is None


def test_who_leaves_early_leaves_nothing_behind(tmp_path: Path) -> None:
    file, streams = tmp_path / "a.safetensors", Streams()
    file.write_bytes(model(mebibytes=2))
    with pytest.raises(KeyboardInterrupt), streams.wanted(file):
        streams.see(place_of(file), "checkpoints/a", Pieces(file.stat().st_size))
        raise KeyboardInterrupt
    streams.see(place_of(file), "checkpoints/a", Pieces(file.stat().st_size))
    streams.finish(place_of(file))
    assert streams.take(file) is None


def test_when_one_of_two_who_wait_leaves_the_other_still_has_what_came(tmp_path: Path) -> None:
    body, file, streams = model(), tmp_path / "models" / "a.safetensors", Streams()
    leaves = threading.Event()

    def leave() -> None:
        if leaves.is_set():
            raise KeyboardInterrupt

    def wait_and_leave() -> None:
        with pytest.raises(KeyboardInterrupt), streams.wanted(file):
            ours.fetch(what, file).wait(check=leave)

    with Origin(rate_total=6 * MIB) as origin, \
            transfers(tmp_path, streams=streams, depot_connections=1) as ours, streams.wanted(file):
        what = entry(origin.put("/a", body), sha256=sha256(body))
        transfer, other = ours.fetch(what, file), threading.Thread(target=wait_and_leave)
        other.start()
        until_tensors_are_there(streams, file)
        before = streams._running[file]
        leaves.set()
        other.join()
        assert streams._running[file] is before and before.tensors
        origin.total.rate = None
        transfer.wait()
    loaded = streams.take(file)
    assert loaded is not None and digests(loaded.tensors) == loaded_from(body)


def test_the_last_one_who_leaves_throws_the_tensors_away(tmp_path: Path) -> None:
    file, streams = tmp_path / "a.safetensors", Streams()
    file.write_bytes(model(mebibytes=2))
    with streams.wanted(file):
        with streams.wanted(file):
            streams.see(place_of(file), "checkpoints/a", Pieces(file.stat().st_size))
        assert file in streams._running
    assert not streams._running


def streamed_again(streams: Streams, file: Path) -> dict[str, Any]:
    """The tensors of a file as these streams hand them over."""
    with streams.wanted(file):
        streams.see(place_of(file), "checkpoints/a", Pieces(file.stat().st_size))
        streams.finish(place_of(file))
    loaded = streams.take(file)
    assert loaded is not None
    return loaded.tensors


@pytest.fixture
def stuck_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """A disk that gives nothing from the second read on: (a read hangs, let it go on)."""
    reads, hangs, goes_on = itertools.count(), threading.Event(), threading.Event()
    touch = stream._touch

    def read(part: Any) -> None:
        if next(reads):
            hangs.set()
            assert goes_on.wait(20)
        touch(part)

    monkeypatch.setattr(stream, "_touch", read)
    yield hangs, goes_on
    goes_on.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "stream"])


def test_who_leaves_does_not_wait_for_a_read_that_hangs(
    tmp_path: Path, stuck_disk: tuple[threading.Event, threading.Event]
) -> None:
    (hangs, goes_on), file, streams = stuck_disk, tmp_path / "a.safetensors", Streams()
    file.write_bytes(model(mebibytes=2))
    with pytest.raises(KeyboardInterrupt), streams.wanted(file):
        streams.see(place_of(file), "checkpoints/a", Pieces(file.stat().st_size).others())
        assert hangs.wait(10)
        left = streams._running[file]
        came = weakref.ref(next(iter(left.tensors.values())))
        began = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 3.0 and not goes_on.is_set()
    assert left.tensors == {} and came() is None and streams.take(file) is None
    goes_on.set()
    left._thread.join(10)
    assert not left._thread.is_alive() and left.tensors == {} and left.finish(Pieces(0)) is None


def test_a_large_tensor_is_read_in_portions_and_no_more_of_them_than_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import save

    file, streams, reads = tmp_path / "a.safetensors", Streams(), []
    file.write_bytes(save({"w": torch.arange(4 * MIB // 8)}))
    is_slow = threading.Event()

    def read(part: Any) -> None:
        reads.append(part.numel())
        if is_slow.is_set():
            time.sleep(0.01)

    monkeypatch.setattr(stream, "_touch", read)
    monkeypatch.setattr(stream, "BYTES_AT_ONCE", MIB // 256)
    assert digests(streamed_again(streams, file)) == loaded_from(file.read_bytes())
    assert reads == [MIB // 256] * 1024
    is_slow.set()
    with streams.wanted(file):
        streams.see(place_of(file), "checkpoints/a", Pieces(file.stat().st_size).others())
        until(lambda: len(reads) > 1026)
    assert len(reads) < 2048


def test_a_cancelled_prompt_does_not_wait_for_the_disk_although_the_file_is_there_by_now(
    depot_world: World, stuck_disk: tuple[threading.Event, threading.Event]
) -> None:
    import folder_paths

    (hangs, goes_on), body = stuck_disk, model()
    cancelled = []

    def interrupt() -> None:
        assert hangs.wait(30)
        until(file.exists)
        cancelled.append(time.monotonic())
        depot_world.interruption = KeyboardInterrupt()

    file = depot_world.model("checkpoints", "a.safetensors")
    with Origin() as origin:
        depot_world.write_manifest({"checkpoints": {"a.safetensors": origin.put("/a", body)}})
        with depot_world.depot() as depot:
            depot_world.run_node()
            stop = threading.Thread(target=interrupt)
            stop.start()
            with pytest.raises(KeyboardInterrupt):
                folder_paths.get_full_path_or_raise("checkpoints", "a.safetensors")
            assert time.monotonic() - cancelled[0] < 3.0 and not goes_on.is_set()
            stop.join()
            until(lambda: not depot.active_transfers())
            assert not depot.streams._running and not depot.streams._ready and not goes_on.is_set()


# --- with the product's loader


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The safetensors files that were opened."""
    return counted_opens(monkeypatch)


@pytest.mark.parametrize("switch", ["on", "off", "a pack wants copies"])
def test_a_node_that_loads_a_missing_model_gets_what_came_on_the_way(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, opened: list[str], switch: str
) -> None:
    import comfy.utils
    import folder_paths

    body = model(mebibytes=3)
    monkeypatch.setattr(comfy.utils, "DISABLE_MMAP", switch == "a pack wants copies")
    with Origin() as origin:
        url = origin.put("/a", body)
        depot_world.write_manifest({"checkpoints": {"a.safetensors": {"url": url, "sha256": sha256(body)}}})
        with depot_world.depot(depot_stream="off" if switch == "off" else "on"):
            depot_world.run_node()
            path = folder_paths.get_full_path_or_raise("checkpoints", "a.safetensors")
            tensors, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
            on_the_way = [file for file in opened if file.endswith(".part")]
            assert (path in opened) == (switch != "on") and bool(on_the_way) == (switch != "off")
            assert digests(tensors) == digests(comfy.utils.load_torch_file(path)) == loaded_from(body)
            assert metadata == {"format": "pt", "seed": "0"}


def test_a_wrong_model_is_an_error_on_the_node_and_a_cancelled_prompt_keeps_no_tensors(
    depot_world: World, opened: list[str]
) -> None:
    import folder_paths

    body = model()
    with Origin(rate_total=16 * MIB) as origin:
        url = origin.put("/a", body)
        wrong = {"url": url, "sha256": sha256(b"another")}
        depot_world.write_manifest({"checkpoints": {"a.safetensors": wrong, "b.safetensors": url}})
        with depot_world.depot() as depot:
            depot_world.run_node()
            with pytest.raises(DownloadFailed, match="promises"):
                folder_paths.get_full_path_or_raise("checkpoints", "a.safetensors")
            assert any("a.safetensors" in file for file in opened)
            before = origin.bytes_sent()

            def interrupt() -> None:
                until(lambda: origin.bytes_sent() > before + MIB)
                origin.total.rate = 1000
                depot_world.interruption = KeyboardInterrupt()

            stop = threading.Thread(target=interrupt)
            stop.start()
            with pytest.raises(KeyboardInterrupt):
                folder_paths.get_full_path_or_raise("checkpoints", "b.safetensors")
            stop.join()
            assert not depot.streams._running and not depot.streams._ready
            until(lambda: not depot.active_transfers())
    assert not depot_world.model("checkpoints", "b.safetensors").exists()

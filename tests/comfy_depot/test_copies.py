"""What is on the machine under another name is not fetched, and where it is taken from nothing changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfy_depot import copies, library
from comfy_depot.depot import Depot
from comfy_depot.digests import KnownFile
from comfy_depot.errors import DiskFull, DownloadFailed, ModelUnavailable, TransferCancelled
from comfy_depot.eviction import Limits, Stamp
from comfy_depot.hasher import Hasher
from tests.comfy_depot.test_bundles import zipped
from tests.comfy_depot.world import World
from tests.fakes.fetching import entry
from tests.fakes.origin import Origin, safetensors, sha256

BODY = safetensors(3_000_000)
LONG_AGO = 1_700_000_000


def stamp_of(file: Path) -> Stamp:
    return Stamp.of(os.stat(file))


@pytest.fixture
def own(depot_world: World) -> Path:
    """A file of the user's, of which nobody knows anything yet."""
    file = depot_world.write_model("loras", "sub/mine.safetensors", BODY)
    os.utime(file, (LONG_AGO, LONG_AGO))
    return file


@pytest.fixture
def origin(depot_world: World) -> Iterator[Origin]:
    """A source of the same content, which a manifest names."""
    with Origin() as made:
        wanted = {"url": made.put("/wanted", BODY), "size": len(BODY), "sha256": sha256(BODY)}
        depot_world.write_manifest({"checkpoints": {"wanted.safetensors": wanted}})
        yield made


def know(depot: Depot) -> None:
    """Let idle time pass."""
    depot.index.indexer.update()
    hasher = Hasher(depot, bytes_per_second=1e12)
    hasher.look()
    hasher.look()


def fetch(depot: Depot) -> Path:
    return Path(depot.fetch("checkpoints", "wanted.safetensors"))


def test_a_model_that_is_here_under_another_name_costs_no_byte(
    depot_world: World, own: Path, origin: Origin
) -> None:
    before, sources = os.stat(own), []
    with depot_world.depot() as depot:
        know(depot)
        depot.fetch("checkpoints", "wanted.safetensors", on_progress=lambda one: sources.append(one.source))
        file = depot_world.model("checkpoints", "wanted.safetensors")
        assert file.read_bytes() == BODY and not origin.log, "nobody was asked"
        assert depot.digests.of(stamp_of(file)) == sha256(BODY) and "this machine" in sources
    assert not os.path.samefile(file, own) and file.stat().st_nlink == 1
    after = os.stat(own)
    assert Stamp.of(after) == Stamp.of(before) and after.st_nlink == 1 and own.read_bytes() == BODY
    assert not list((file.parent / ".depot").iterdir())


def test_a_node_that_waits_gets_it_too(depot_world: World, own: Path, origin: Origin) -> None:
    import folder_paths

    with depot_world.depot() as depot:
        know(depot)
        depot_world.run_node()
        path = folder_paths.get_full_path_or_raise("checkpoints", "wanted.safetensors")
        assert Path(path).read_bytes() == BODY and not origin.log


def test_neither_file_changes_when_the_other_is_written_to_or_evicted(
    depot_world: World, own: Path, origin: Origin
) -> None:
    with depot_world.depot() as depot:
        know(depot)
        file = fetch(depot)
        with own.open("r+b") as training:
            training.write(b"other weights")
        assert file.read_bytes() == BODY
        with file.open("r+b") as training:
            training.write(b"third weights")
        assert own.read_bytes()[:13] == b"other weights"
        plan = depot.plan_eviction(Limits(max_size=0)).execute()
        assert [verdict.model.path for verdict in plan.going] == [str(file)]
        assert own.exists() and not file.exists()


def replace(file: Path) -> None:
    shutil.copy(file, file.with_name("other"))
    os.replace(file.with_name("other"), file)


def write_into(file: Path) -> None:
    with file.open("r+b") as other:
        other.write(b"new")


def write_under_the_old_date(file: Path) -> None:
    with file.open("r+b") as other:
        other.seek(1_000_000)
        other.write(b"new")
    os.utime(file, (LONG_AGO, LONG_AGO))


@pytest.mark.parametrize("change", [replace, write_into, write_under_the_old_date, os.unlink])
def test_a_file_that_is_not_any_more_what_was_noted_of_it_is_not_taken(
    depot_world: World, own: Path, origin: Origin, change: Callable[[Path], None]
) -> None:
    with depot_world.depot() as depot:
        know(depot)
        noted = stamp_of(own)
        assert depot.digests.of(noted) == sha256(BODY)
        change(own)
        assert fetch(depot).read_bytes() == BODY and origin.log
        if change is write_under_the_old_date:
            assert depot.digests.of(noted) is None, "idle time reads it again"


def test_only_what_is_known_is_taken(depot_world: World, own: Path, origin: Origin) -> None:
    with depot_world.depot() as depot:
        assert fetch(depot).read_bytes() == BODY and origin.log, "nothing is hashed for a download"


def test_a_file_of_another_size_than_promised_or_without_a_sha256_is_none(
    depot_world: World, own: Path, origin: Origin
) -> None:
    with depot_world.depot() as depot:
        know(depot)
        destination = depot_world.model("checkpoints", "wanted.safetensors")

        def found(**fields: object) -> list[Path]:
            wanted = entry("https://host.example/a", **fields)
            return [file.path for file in copies.find(depot.digests, wanted, destination)]

        assert found(sha256=sha256(BODY)) == found(sha256=sha256(BODY), size=len(BODY)) == [own]
        assert found(sha256=sha256(BODY), size=5) == found(size=len(BODY)) == found(sha256="ab" * 32) == []


def test_a_member_of_an_archive_is_not_unpacked_when_it_is_here(depot_world: World, own: Path) -> None:
    with Origin() as origin:
        wanted = {"url": origin.put("/all.zip", zipped({"a.safetensors": BODY})), "sha256": sha256(BODY),
                  "bundle": {"member": "a.safetensors"}}
        depot_world.write_manifest({"checkpoints": {"wanted.safetensors": wanted}})
        with depot_world.depot() as depot:
            know(depot)
            assert fetch(depot).read_bytes() == BODY and not origin.log


def test_a_model_that_its_source_has_no_more_is_taken_too(depot_world: World, own: Path) -> None:
    with Origin() as origin, depot_world.depot() as depot:
        gone = {"url": origin.put("/gone", status=404), "sha256": sha256(BODY)}
        depot_world.write_manifest({"checkpoints": {"wanted.safetensors": gone}})
        depot.catalogue.refresh()
        with pytest.raises(ModelUnavailable, match="404"):
            fetch(depot)
        know(depot)
        assert fetch(depot).read_bytes() == BODY


def test_a_copy_needs_room(depot_world: World, own: Path, origin: Origin) -> None:
    if library.bring("k", own, own.with_name("probe"), promise=lambda size: None,
                     tell=lambda done, total: None, known=stamp_of(own)) == "reflink":
        pytest.skip("a reflink takes none")
    with depot_world.depot(depot_reserve=1 << 60) as depot:
        know(depot)
        with pytest.raises(DiskFull, match="are free"):
            fetch(depot)


@pytest.mark.parametrize(("how", "is_untouched", "is_read"), [
    ("copy", True, True), ("copy", False, True), ("reflink", False, True), ("reflink", True, False),
])  # fmt: skip
def test_what_is_certain_is_not_read_again_and_reading_can_be_stopped(
    depot_world: World, own: Path, how: str, is_untouched: bool, is_read: bool
) -> None:
    def stop() -> None:
        raise TransferCancelled("stopped")

    wanted = entry("https://host.example/a", sha256=sha256(BODY))
    with depot_world.depot() as depot:
        source = KnownFile(own, stamp_of(own), is_untouched)
        with pytest.raises(TransferCancelled) if is_read else contextlib.nullcontext():
            copies.check(own, wanted, source, how, digests=depot.digests, stop=stop)


def test_a_file_is_untouched_while_nothing_has_happened_to_it_since_its_digest_was_noted(
    depot_world: World, own: Path
) -> None:
    with depot_world.depot() as depot:
        def is_untouched() -> bool:
            depot.index.indexer.update()
            (found,) = depot.digests.files_with(sha256(BODY))
            return found.is_untouched

        time.sleep(0.05)  # the clock of the file system has moved on
        know(depot)
        assert is_untouched()
        write_under_the_old_date(own)
        assert not is_untouched()
        depot.digests.note(stamp_of(own), sha256(BODY))
        own.rename(own.with_name("renamed.safetensors"))
        assert not is_untouched(), "nobody can tell that from a change"


def test_somebody_elses_file_is_not_linked_to(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"x" * 100)
    how = library.bring("k", source, tmp_path / "part", promise=lambda size: None,
                        tell=lambda done, total: None, known=stamp_of(source))
    assert how in ("reflink", "copy") and not os.path.samefile(source, tmp_path / "part")
    with pytest.raises(DownloadFailed, match="is another file by now"):
        library.bring("k", tmp_path / "part", tmp_path / "other", promise=pytest.fail, tell=pytest.fail,
                      known=stamp_of(source))
    assert not (tmp_path / "other").exists()

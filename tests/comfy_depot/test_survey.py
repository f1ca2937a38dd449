"""What eviction may touch: real files, real manifests, the access log, open files and transfers."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import folder_paths
from comfy_depot import open_files, survey
from comfy_depot.access import Access
from comfy_depot.depot import Depot
from comfy_depot.eviction import Limits, LocalModel
from comfy_depot.layout import Layout
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors
from tests.fakes.waiting import wait_until

URL = "https://host.example/a"
NAME = "a.safetensors"


def only_model(depot: Depot) -> LocalModel:
    (model,) = survey.local_models(depot)
    return model


def write_own(world: World, name: str = NAME, **entry: Any) -> Path:
    """A file that the manifest can bring back."""
    world.write_manifest({"loras": {name: {"url": URL, "size": 5, **entry}}})
    return world.write_model("loras", name, b"12345")


def test_a_file_of_the_manifests_size_in_its_place_may_go(depot_world: World) -> None:
    path = write_own(depot_world, "sub/a.safetensors")
    with depot_world.depot() as depot:
        model = only_model(depot)
        assert (model.key, model.path, model.size) == (("loras", "sub/a.safetensors"), str(path), 5)
        assert (model.is_own, model.kept) == (True, None)


def test_a_file_that_no_manifest_names_stays(depot_world: World) -> None:
    depot_world.write_model("loras", NAME)
    with depot_world.depot() as depot:
        model = only_model(depot)
        assert (model.is_own, model.kept) == (False, "no manifest names it, so nothing could bring it back")


def test_a_file_of_another_size_than_the_manifests_stays(depot_world: World) -> None:
    write_own(depot_world, size=6)
    with depot_world.depot() as depot:
        reason = "it has 5 bytes and the manifest says 6, so it is another file"
        assert only_model(depot).kept == reason


def test_without_a_size_in_the_manifest_only_what_the_log_saw_arrive_may_go(depot_world: World) -> None:
    with Origin() as origin:
        depot_world.write_manifest({"loras": {NAME: origin.put("/a", safetensors(10_000))}})
        with depot_world.depot() as depot:
            path = Path(depot.fetch("loras", NAME))
            assert only_model(depot).kept is None
            path.write_bytes(b"the user's own")
            reason = "it has 14 bytes and 10000 were downloaded, so it is another file"
            assert only_model(depot).kept == reason
    (depot_world.base / "depot" / "access.sqlite3").unlink()
    with depot_world.depot() as depot:
        assert only_model(depot).kept == (
            "the manifest gives no size and the log no download of it, so it may be a file of yours. "
            'Add "size" to the manifest'
        )


def test_a_symbolic_link_stays(depot_world: World) -> None:
    path = write_own(depot_world)
    path.rename(depot_world.base / NAME)
    path.symlink_to(depot_world.base / NAME)
    with depot_world.depot() as depot:
        assert (only_model(depot).kept, only_model(depot).is_own) == ("it is a symbolic link", False)


def test_a_file_behind_a_linked_folder_stays(depot_world: World, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    depot_world.model("loras", "link").symlink_to(tmp_path / "elsewhere")
    write_own(depot_world, "link/a.safetensors")
    with depot_world.depot() as depot:
        assert only_model(depot).kept == "it is not in the folder where the depot puts 'loras' files"


def test_a_file_in_a_second_folder_stays(depot_world: World) -> None:
    path = write_own(depot_world)
    library = depot_world.base / "library"
    library.mkdir()
    path.rename(library / NAME)
    with depot_world.depot() as depot:
        folder_paths.add_model_folder_path("loras", str(library))
        assert only_model(depot).kept == "it is not in the folder where the depot puts 'loras' files"


def test_a_models_folder_that_is_itself_a_link_is_fine(depot_world: World, tmp_path: Path) -> None:
    loras = depot_world.model("loras", "")
    loras.rename(tmp_path / "large-disk")
    Path(str(loras).rstrip("/")).symlink_to(tmp_path / "large-disk")
    write_own(depot_world)
    with depot_world.depot() as depot:
        assert only_model(depot).kept is None


def test_a_file_of_two_types_stands_once_and_is_in_use_under_either_name(depot_world: World) -> None:
    write_own(depot_world)
    with depot_world.depot() as depot:
        folder_paths.add_model_folder_path("my_loras", folder_paths.get_folder_paths("loras")[0])
        assert only_model(depot).aliases == {("my_loras", NAME)}
        depot_world.models_in_use.add(("my_loras", NAME))
        assert only_model(depot).kept == "a running or queued prompt names it"


def test_the_last_use_is_the_access_or_the_arrival(depot_world: World) -> None:
    path = write_own(depot_world)
    os.utime(path, (1_000, 1_000))
    with depot_world.depot() as depot:
        assert only_model(depot).last_used == 1_000
        depot.access.note(Access(5_000.0, "loras", NAME, None, None, None, 5, "hit"))
        assert only_model(depot).last_used == 5_000
        os.utime(path, (9_000, 9_000))
        assert only_model(depot).last_used == 9_000, "it came anew"


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="open files are found under /proc")


@linux
def test_an_open_file_stays(depot_world: World) -> None:
    path = write_own(depot_world)
    with depot_world.depot() as depot, path.open("rb"):
        assert only_model(depot).kept == "this process has it open or mapped into memory"


@linux
def test_a_file_that_is_mapped_after_the_plan_stays(depot_world: World) -> None:
    path = write_own(depot_world)
    wish = Limits(names={("loras", NAME)})
    with depot_world.depot() as depot:
        plan = depot.plan_eviction(wish)
        with path.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        done = plan.execute()
        assert [verdict.reason for verdict in done.staying] == [
            "this process has it open or mapped into memory"
        ]
        assert path.exists() and mapped[:] == b"12345"
        mapped.close()
        assert len(depot.plan_eviction(wish).execute().going) == 1 and not path.exists()


def test_a_file_with_a_transfer_under_way_stays(depot_world: World) -> None:
    with Origin(rate_total=100_000) as origin:
        depot_world.write_manifest(
            {"loras": {NAME: {"url": origin.put("/a", safetensors(2_000_000)), "size": 2_000_000}}}
        )
        with depot_world.depot() as depot:
            transfer = depot.start_fetch("loras", NAME)
            wait_until(lambda: transfer.bytes_done > 0)
            depot_world.write_model("loras", NAME, b"x" * 2_000_000)
            reasons = {Path(model.path).suffix: model.kept for model in survey.local_models(depot)}
            assert reasons == dict.fromkeys((".safetensors", ".part"), "it is being downloaded")
            depot.transfers.cancel(transfer.id)
            wait_until(lambda: not depot.active_transfers())


@linux
def test_a_file_with_a_transfer_in_another_process_stays(depot_world: World) -> None:
    path = write_own(depot_world)
    with depot_world.depot() as depot:
        lock = depot.transfers.layout.place(path).lock
        lock.parent.mkdir()
        lock.touch()
        assert only_model(depot).kept is None, "a lock that nobody holds is a leftover"
        with lock.open("rb"):
            assert only_model(depot).kept == "it is being downloaded"


def test_an_evicted_model_stays_in_the_list_and_comes_back_when_a_node_asks(depot_world: World) -> None:
    body = safetensors(10_000)
    with Origin() as origin:
        depot_world.write_manifest({"loras": {NAME: {"url": origin.put("/a", body), "size": len(body)}}})
        depot_world.write_model("loras", "own.safetensors")
        with depot_world.depot() as depot:
            depot_world.run_node()
            path = Path(folder_paths.get_full_path_or_raise("loras", NAME))
            assert folder_paths.get_filename_list("loras") == [NAME, "own.safetensors"]
            done = depot.plan_eviction(Limits(keep_days=0)).execute()
            assert [verdict.model.name for verdict in done.going] == [NAME]
            assert not path.exists()
            assert folder_paths.get_filename_list("loras") == [NAME, "own.safetensors"]
            assert Path(folder_paths.get_full_path_or_raise("loras", NAME)).read_bytes() == body


def test_many_models_are_evicted_with_few_looks_at_what_is_open(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[open_files.OpenFiles] = []
    look = open_files.look

    def counted() -> open_files.OpenFiles:
        looks.append(look())
        return looks[-1]

    monkeypatch.setattr(open_files, "look", counted)
    names = [f"m{number}.safetensors" for number in range(100)]
    depot_world.write_manifest({"loras": {name: {"url": URL, "size": 5} for name in names}})
    for name in names:
        depot_world.write_model("loras", name, b"12345")
    with depot_world.depot() as depot:
        assert len(depot.plan_eviction(Limits(max_size=250)).execute().going) == 50
    assert 2 <= len(looks) < 20


def stop_half_way(world: World, depot: Depot, origin: Origin) -> Path:
    """A download that was stopped on the way; returns its partial."""
    world.write_manifest({"loras": {f"sub/{NAME}": origin.put("/a", safetensors(4 << 20))}})
    depot.catalogue.refresh()
    transfer = depot.start_fetch("loras", f"sub/{NAME}")
    wait_until(lambda: origin.bytes_sent() > 1 << 20)
    transfer.stop()
    wait_until(lambda: transfer.is_finished)
    (partial,) = world.model("loras", "sub").glob(".depot/*.part")
    return partial


def test_an_unfinished_download_that_left_the_manifests_can_be_cleaned_away(depot_world: World) -> None:
    with Origin(rate_total=8 << 20) as origin, depot_world.depot() as depot:
        partial = stop_half_way(depot_world, depot, origin)
        depot_world.write_manifest({})
        depot.catalogue.refresh()
        assert only_model(depot).size == partial.stat().st_blocks * 512 < 4 << 20
        assert not depot.plan_eviction(Limits(keep_days=1)).going  # it may be gone on with tomorrow
        os.utime(partial, (1, 1))
        done = depot.plan_eviction(Limits(keep_days=1)).execute()
        assert [verdict.model.path for verdict in done.going] == [str(partial)]
        assert os.listdir(partial.parent) == []


def test_an_unfinished_download_goes_by_the_name_of_its_model_unless_a_prompt_waits_for_it(
    depot_world: World,
) -> None:
    wanted = {("loras", f"sub/{NAME}")}
    with Origin(rate_total=8 << 20) as origin, depot_world.depot() as depot:
        partial = stop_half_way(depot_world, depot, origin)
        depot_world.models_in_use |= wanted
        assert only_model(depot).kept == "a running or queued prompt names it"
        depot_world.models_in_use.clear()
        assert depot.plan_eviction(Limits(names=wanted)).execute().bytes_freed > 0
        assert not partial.exists()


def test_what_changes_on_the_disk_between_two_looks_is_seen(depot_world: World) -> None:
    depot_world.write_model("loras", "stays.safetensors")
    gone = depot_world.write_model("loras", "goes.safetensors")
    with depot_world.depot() as depot:
        assert len(survey.local_models(depot)) == 2
        gone.unlink()
        depot_world.write_model("loras", "stays.safetensors", b"longer than before")
        depot_world.write_model("loras", "new/deep/comes.safetensors", b"12")
        partial = Layout(depot.options.depot_dir).place(depot_world.model("loras", "new/p.sft")).partial
        partial.parent.mkdir()
        partial.write_bytes(b"x")
        models = {model.name: model.size for model in survey.local_models(depot)}
    assert models == {
        "new/deep/comes.safetensors": 2, "stays.safetensors": 18, f"new/.depot/{partial.name}": 4096}

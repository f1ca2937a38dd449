"""Models of waiting prompts are on their way before a node asks for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import folder_paths
from comfy_depot import access, hooks, preload
from comfy_depot.depot import Depot
from comfy_depot.errors import DiskFull
from comfy_depot.host import Chosen
from comfy_depot.manifest import Entry
from comfy_depot.preload import folders_of
from comfy_depot.services import Priority
from tests.comfy_depot.world import World, queued
from tests.fakes.origin import Origin, safetensors
from tests.fakes.waiting import wait_until

MIB = 1 << 20


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(rate_total=4 * MIB) as made:
        yield made


def offer(world: World, origin: Origin, *names: str, size: int = 400_000, **fields: Any) -> None:
    """A manifest that names LoRAs of so many bytes."""
    world.write_manifest({"loras": {
        name: {"url": origin.put(f"/{name}", safetensors(size)), "size": size, **fields} for name in names
    }})


def coming(depot: Depot) -> list[str]:
    return [one.entry.name for one in depot.active_transfers()]


@contextmanager
def waiting(world: World, *prompts: Any, **options: Any) -> Iterator[Depot]:
    """A depot whose queue holds these prompts."""
    with world.depot(**options) as depot:
        world.prompts += prompts
        hooks.queue_changed()
        yield depot


def is_there(world: World, name: str) -> bool:
    return world.model("loras", name).exists()


def test_the_models_of_a_waiting_prompt_arrive_although_no_node_runs(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "a.safetensors", "sub/b.safetensors", "other.safetensors")
    with waiting(depot_world, queued("p", "a.safetensors", "sub\\b.safetensors", "a prompt")) as depot:
        wait_until(lambda: depot.preload.stats()["arrived"] == 2)
        assert is_there(depot_world, "a.safetensors") and is_there(depot_world, "sub/b.safetensors")
        assert not is_there(depot_world, "other.safetensors") and not coming(depot)
        depot.access.flush()
        rows = list(access.read(depot.options.depot_dir))
        assert {(row.name, row.prompt, row.outcome, row.is_use) for row in rows} == {
            (name, "p", "preloaded", False) for name in ("a.safetensors", "sub/b.safetensors")
        }


def test_they_come_in_the_order_of_need_and_a_few_at_once(depot_world: World, origin: Origin) -> None:
    names = [f"{number}.safetensors" for number in (3, 1, 2, 5, 4)]
    offer(depot_world, origin, *sorted(names), size=MIB // 2)
    first, second = queued("p", *names[:2]), queued("q", names[1], *names[2:])
    with waiting(depot_world, first, second, depot_preload=3) as depot:
        wait_until(lambda: len(coming(depot)) == 3)
        assert coming(depot) == names[:3]
        wait_until(lambda: names[3] in coming(depot))
        assert any(is_there(depot_world, name) for name in names[:3])


def test_none_is_fetched_ahead_when_the_option_says_so(depot_world: World, origin: Origin) -> None:
    offer(depot_world, origin, "a.safetensors")
    with waiting(depot_world, queued("p", "a.safetensors"), depot_preload=0) as depot:
        assert depot.preload._thread is None and not coming(depot)


def test_what_only_a_removed_prompt_needed_is_let_go_and_its_bytes_stay(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "a.safetensors", "b.safetensors", size=2 * MIB)
    both, one = queued("p", "a.safetensors", "b.safetensors"), queued("q", "b.safetensors")
    with waiting(depot_world, both, one) as depot:
        wait_until(lambda: all(one.bytes_done > 300_000 for one in depot.active_transfers())
                   and len(coming(depot)) == 2)
        depot_world.prompts.remove(both)
        hooks.queue_changed()
        wait_until(lambda: coming(depot) == ["b.safetensors"])
        assert depot.preload.stats()["let_go"] == 1
        assert any((depot_world.base / "models/loras/.depot").glob("*.part"))
        assert not depot.active_transfers()[0].is_stopping


def test_a_node_that_asks_joins_and_others_who_wait_keep_it_when_the_prompt_goes(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "a.safetensors", size=MIB)
    with waiting(depot_world, queued("p", "a.safetensors")) as depot:
        wait_until(lambda: bool(coming(depot)))
        (transfer,) = depot.active_transfers()
        assert transfer.priority is Priority.PRELOAD
        depot_world.run_node()
        depot_world.prompts.clear()

        def look(*_: int) -> None:
            assert depot.active_transfers() in ([transfer], [])
            hooks.queue_changed()

        path = depot.path_in_node("loras", "a.safetensors", None)
        assert path == str(depot_world.model("loras", "a.safetensors"))
        assert transfer.priority is Priority.DEMAND and origin.bytes_sent() < 1.5 * MIB
        depot.access.flush()
        assert [row.outcome for row in access.read(depot.options.depot_dir)] == ["fetched"]


def test_a_transfer_that_nobody_waits_for_any_more_gives_way_again(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "a.safetensors", size=4 * MIB)
    with waiting(depot_world, queued("p", "a.safetensors")) as depot:
        wait_until(lambda: bool(coming(depot)))
        (transfer,) = depot.active_transfers()
        depot_world.run_node()
        depot_world.interruption = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            depot.path_in_node("loras", "a.safetensors", None)
        assert transfer.priority is Priority.PRELOAD and not transfer.is_stopping


def test_what_cannot_be_fetched_is_tried_once_until_its_entry_changes(
    depot_world: World, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", status=404)}})
    with waiting(depot_world, queued("p", "a.safetensors")) as depot:
        wait_until(lambda: "a.safetensors was not fetched ahead" in caplog.text)
        for _ in range(3):
            depot.preload.look()
        assert depot.preload.stats()["started"] == 1
        offer(depot_world, origin, "a.safetensors")
        depot.catalogue.refresh()
        hooks.queue_changed()
        wait_until(lambda: is_there(depot_world, "a.safetensors"))


def test_one_that_the_user_has_cancelled_stays_cancelled(depot_world: World, origin: Origin) -> None:
    offer(depot_world, origin, "a.safetensors", size=4 * MIB)
    with waiting(depot_world, queued("p", "a.safetensors")) as depot:
        wait_until(lambda: bool(coming(depot)))
        depot.transfers.cancel(depot.active_transfers()[0].id)
        wait_until(lambda: not depot.preload.is_busy())
        depot.preload.look()
        assert depot.preload.stats()["started"] == 1


def test_a_full_disk_means_later_and_evicts_nothing_that_a_prompt_names(
    depot_world: World, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preload, "DISK_SECONDS", 0.3)
    offer(depot_world, origin, "a.safetensors", "b.safetensors", size=400_000)
    old = depot_world.write_model("loras", "a.safetensors", safetensors(400_000))
    depot_world.models_in_use |= {("loras", "a.safetensors"), ("loras", "b.safetensors")}
    prompts = queued("p", "a.safetensors"), queued("q", "b.safetensors")
    with waiting(depot_world, *prompts, depot_max_size=700_000) as depot:
        wait_until(lambda: depot.preload._full_until > 0)
        assert old.exists() and not is_there(depot_world, "b.safetensors")
        depot_world.prompts.pop(0)
        depot_world.models_in_use.discard(("loras", "a.safetensors"))  # and nobody tells the depot
        wait_until(lambda: is_there(depot_world, "b.safetensors"))
        assert not old.exists()


def test_a_node_that_finds_no_room_takes_the_room_of_what_nobody_waits_for(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "a.safetensors", "b.safetensors", size=4 * MIB)
    origin.total.rate, origin.assets["/a.safetensors"].rate = None, 200_000
    with waiting(depot_world, queued("p", "a.safetensors"), depot_max_size=9 * MIB // 2) as depot:
        wait_until(lambda: any(one.bytes_done for one in depot.active_transfers()))
        depot_world.run_node()
        assert depot.path_in_node("loras", "b.safetensors", None) is not None
        assert depot.preload.stats()["let_go"] == 1
        offer(depot_world, origin, "c.safetensors", size=5 * MIB)
        depot.catalogue.refresh()
        with pytest.raises(DiskFull):  # and there is nothing more to take
            depot.path_in_node("loras", "c.safetensors", None)


def test_a_name_of_two_folders_means_the_one_whose_list_was_offered(tmp_path: Path) -> None:
    entry = Entry("", "x.safetensors", ("https://h/x",))
    known = {"loras": {"x.safetensors": entry}, "vae": {"x.safetensors": entry}, "clip": {}}
    lists = {"loras": ["x.safetensors", "l.safetensors"], "vae": ["v.safetensors", "x.safetensors"]}
    choices = ["none", "l.safetensors", "x.safetensors"]
    assert folders_of(Chosen("x.safetensors", choices), known, lists.__getitem__) == ["loras"]
    both = [*choices, "v.safetensors"]
    assert folders_of(Chosen("x.safetensors", both), known, lists.__getitem__) == ["loras", "vae"]
    assert folders_of(Chosen("y.safetensors", both), known, lists.__getitem__) == []


def test_the_thread_outlives_a_host_that_fails(
    depot_world: World, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    offer(depot_world, origin, "a.safetensors")
    with waiting(depot_world, None) as depot:
        wait_until(lambda: "not fetched ahead this time" in caplog.text)
        depot_world.prompts[:] = [queued("p", "a.safetensors")]
        hooks.queue_changed()
        wait_until(lambda: is_there(depot_world, "a.safetensors"))
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        assert depot.preload._thread is not None


@pytest.mark.slow
def test_a_model_that_arrives_while_the_queue_is_looked_at_counts_as_arrived(
    depot_world: World, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what has ended was noted and what is needed was found."""
    offer(depot_world, origin, "a.safetensors", size=4 * MIB)
    settle = preload.Preload._settle_finished

    def settle_and_see_more_arrive(self: preload.Preload) -> None:
        settle(self)
        for transfer, _ in self._held.values():
            wait_until(lambda transfer=transfer: transfer.is_finished)  # type: ignore[misc]

    monkeypatch.setattr(preload.Preload, "_settle_finished", settle_and_see_more_arrive)
    with waiting(depot_world, queued("p1", "a.safetensors")) as depot:
        wait_until(lambda: depot.preload.stats()["started"])
        wait_until(lambda: depot.preload.stats()["arrived"] == 1)
        assert depot.preload.stats()["let_go"] == 0


def test_a_model_whose_file_stands_already_counts_as_arrived_before_its_transfer_has_ended(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "a.safetensors")
    may_end = threading.Event()
    with depot_world.depot() as depot:
        on_end = depot.transfers._on_end

        def end_late(transfer: Any) -> None:
            may_end.wait(10)
            on_end(transfer)

        depot.transfers._on_end = end_late
        depot_world.prompts.append(queued("p", "a.safetensors"))
        hooks.queue_changed()
        wait_until(lambda: is_there(depot_world, "a.safetensors"))
        depot.preload.look()
        may_end.set()
        wait_until(lambda: depot.preload.stats()["arrived"] == 1)
        assert depot.preload.stats()["let_go"] == 0

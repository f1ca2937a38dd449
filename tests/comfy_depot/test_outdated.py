"""A manifest points a name to other bytes: what the depot fetched is replaced, and nothing else is."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import folder_paths
from comfy_depot import access, hooks, offers, outdated, survey
from comfy_depot.depot import Depot
from comfy_depot.errors import DownloadFailed
from comfy_depot.eviction import Limits, Stamp
from comfy_depot.verifying import wrong_files
from comfy_depot.warm import Wish
from comfy_execution.is_changed import contents_of
from tests.comfy_depot.world import World, queued
from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.waiting import wait_until

NAME = "a.safetensors"
OLD, NEW = safetensors(200_000, seed=1), safetensors(250_000, seed=2)
SAME_SIZE = safetensors(200_000, seed=3)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def point(
    world: World, depot: Depot, origin: Origin, path: str, body: bytes, *, with_sha256: bool = True,
    with_size: bool = True, **behaviour: Any,
) -> None:
    """Let the manifest name these bytes, at this path of the origin."""
    is_there = path in origin.assets and not behaviour
    url = origin.url + path if is_there else origin.put(path, body, **behaviour)
    fields: dict[str, Any] = {"sha256": sha256(body)} if with_sha256 else {}
    if with_size:
        fields["size"] = len(body)
    world.write_manifest({"loras": {NAME: {"url": url, **fields}}})
    depot.catalogue.refresh()


@pytest.fixture
def fetched(depot_world: World, origin: Origin) -> Iterator[Depot]:
    """A depot that has fetched the old bytes, in a node."""
    depot_world.write_manifest({})
    with depot_world.depot(depot_hash="off") as depot:
        point(depot_world, depot, origin, "/old", OLD)
        assert ask(depot_world) == OLD
        yield depot


def ask(world: World) -> bytes:
    """What a running node reads that asks for the model."""
    world.run_node()
    try:
        return Path(folder_paths.get_full_path_or_raise("loras", NAME)).read_bytes()
    finally:
        world.node = None


def outcomes(depot: Depot) -> list[str]:
    depot.access.flush()
    return [row.outcome for row in access.read(depot.options.depot_dir)][::-1]


@pytest.mark.parametrize("body", [NEW, SAME_SIZE], ids=["another size", "the same size"])
def test_a_node_that_asks_gets_the_new_bytes_and_who_has_the_old_file_open_keeps_it(
    depot_world: World, origin: Origin, fetched: Depot, body: bytes
) -> None:
    point(depot_world, fetched, origin, "/new", body)
    with open(depot_world.model("loras", NAME), "rb") as held:
        assert ask(depot_world) == body
        assert held.read() == OLD
    assert ask(depot_world) == body and origin.bytes_sent("/new") < 2 * len(body)
    assert outcomes(fetched) == ["fetched", "fetched", "hit"]
    assert list(depot_world.model("loras", ".depot").iterdir()) == []
    assert fetched.problems() == []


def test_a_list_or_a_route_that_looks_the_path_up_replaces_nothing(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    point(depot_world, fetched, origin, "/new", NEW)
    assert fetched.usable_path("loras", NAME) is None, "who loads by name without a path asks for it first"
    path = folder_paths.get_full_path("loras", NAME)
    assert path is not None and Path(path).read_bytes() == OLD
    assert folder_paths.get_filename_list("loras") == [NAME]
    assert origin.hits("/new") == []


def test_a_manifest_that_is_turned_back_brings_the_old_bytes_back(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    point(depot_world, fetched, origin, "/new", NEW)
    assert ask(depot_world) == NEW
    point(depot_world, fetched, origin, "/old", OLD)
    assert ask(depot_world) == OLD


def test_the_model_of_a_waiting_prompt_is_replaced_ahead_of_need(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    point(depot_world, fetched, origin, "/new", NEW)
    depot_world.prompts.append(queued("p2", NAME))
    hooks.queue_changed()
    wait_until(lambda: outcomes(fetched)[-1] == "preloaded")
    assert depot_world.model("loras", NAME).read_bytes() == NEW


def test_warming_and_fetching_by_name_replace_it_too(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    point(depot_world, fetched, origin, "/new", NEW)
    assert fetched.current_path("loras", NAME) is None
    fetched.warm.bring(Wish("loras", NAME, None, "asked"))
    assert depot_world.model("loras", NAME).read_bytes() == NEW
    point(depot_world, fetched, origin, "/same", SAME_SIZE)
    assert Path(fetched.fetch("loras", NAME)).read_bytes() == SAME_SIZE
    assert fetched.current_path("loras", NAME) == str(depot_world.model("loras", NAME))


# -- whose file it is


def put_by_hand(world: World, body: bytes) -> Path:
    """Rename a file of the user's over the model, as a copy program would."""
    file = world.write_model("loras", "by_hand.tmp", body)
    os.utime(file, (1, 1))
    return file.rename(world.model("loras", NAME))


@pytest.mark.parametrize("was_fetched", [True, False])
def test_a_file_that_the_user_put_there_is_never_replaced_and_says_what_to_do(
    depot_world: World, origin: Origin, caplog: pytest.LogCaptureFixture, was_fetched: bool
) -> None:
    depot_world.write_manifest({})
    with depot_world.depot(depot_hash="off") as depot:
        if was_fetched:
            point(depot_world, depot, origin, "/old", OLD)
            ask(depot_world)
        put_by_hand(depot_world, SAME_SIZE)
        point(depot_world, depot, origin, "/new", NEW)
        with caplog.at_level(logging.WARNING):
            assert ask(depot_world) == SAME_SIZE == ask(depot_world)
            assert Path(depot.fetch("loras", NAME)).read_bytes() == SAME_SIZE
        assert origin.hits("/new") == []
        (problem,) = depot.problems()
        assert str(problem) == (
            "loras/a.safetensors: the manifest names other bytes than those of the file on this disk, which "
            "the depot did not fetch and so does not replace. To have those of the manifest, delete or "
            "rename the file, or run: python -m comfy_depot fetch --replace loras/a.safetensors")
        assert [record.getMessage() for record in caplog.records] == [str(problem)], "it is logged once"
        (sentence,) = wrong_files(depot, with_hashes=False)
        assert "--replace loras/a.safetensors" in sentence
        depot_world.model("loras", NAME).unlink()
        assert depot.problems() == [] and ask(depot_world) == NEW


def test_a_file_of_the_users_with_the_right_size_is_a_problem_once_its_sha256_is_known(
    depot_world: World, origin: Origin
) -> None:
    depot_world.write_manifest({})
    with depot_world.depot(depot_hash="off") as depot:
        file = put_by_hand(depot_world, OLD)
        point(depot_world, depot, origin, "/same", SAME_SIZE)
        assert ask(depot_world) == OLD and depot.problems() == []
        depot.digests.note(Stamp.of(os.stat(file)), sha256(OLD))
        assert len(depot.problems()) == 1 and ask(depot_world) == OLD


def test_a_file_of_the_users_is_replaced_when_that_is_asked_for(depot_world: World, origin: Origin) -> None:
    depot_world.write_manifest({})
    with depot_world.depot(depot_hash="off") as depot:
        put_by_hand(depot_world, OLD)
        point(depot_world, depot, origin, "/new", NEW)
        assert Path(depot.fetch("loras", NAME, replace_own=True)).read_bytes() == NEW
        assert depot.problems() == []
        depot_world.model("loras", NAME).unlink()
        put_by_hand(depot_world, NEW)
        sent = origin.bytes_sent()
        assert Path(depot.fetch("loras", NAME, replace_own=True)).read_bytes() == NEW
        assert origin.bytes_sent() == sent, "it is what the manifest names already"


def test_a_file_that_the_user_puts_there_while_the_new_one_comes_is_left_alone(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    url = origin.put("/new", NEW, rate=500_000)
    depot_world.write_manifest({"loras": {NAME: {"url": url, "sha256": sha256(NEW)}}})
    fetched.catalogue.refresh()
    transfer = fetched.start_fetch("loras", NAME)
    wait_until(lambda: origin.bytes_sent("/new"))
    put_by_hand(depot_world, SAME_SIZE)
    assert transfer.wait().read_bytes() == SAME_SIZE


def test_what_a_workflow_names_replaces_nothing(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    """The manifest's entry is gone, and a workflow that anybody may post names other bytes."""
    depot_world.write_manifest({})
    allowed = fetched.options.depot_dir / offers.FOLDER / "allowed.json"
    allowed.parent.mkdir()
    evil = {"url": origin.put("/evil", NEW), "sha256": sha256(NEW)}
    allowed.write_text(json.dumps({"loras": {NAME: evil}}))
    fetched.catalogue.refresh()
    entry = fetched.catalogue.find("loras", NAME)
    assert entry is not None and entry.is_anonymous
    assert ask(depot_world) == OLD and origin.hits("/evil") == []


def test_a_name_in_two_folder_types_of_one_folder_does_not_come_again_and_again(
    depot_world: World, origin: Origin
) -> None:
    """Each type has an entry of its own for the one file: the first one that was fetched stays."""
    folder_paths.add_model_folder_path("more_loras", str(depot_world.base / "models/loras"))
    folder_paths.folder_names_and_paths["more_loras"][1].add(".safetensors")
    try:
        depot_world.write_manifest({
            "loras": {NAME: {"url": origin.put("/one", OLD), "sha256": sha256(OLD)}},
            "more_loras": {NAME: {"url": origin.put("/two", NEW), "sha256": sha256(NEW)}},
        })
        with depot_world.depot(depot_hash="off"):
            depot_world.run_node()
            for folder in ("loras", "more_loras") * 2:
                path = folder_paths.get_full_path_or_raise(folder, NAME)
                assert Path(path).read_bytes() == OLD
            assert origin.hits("/two") == []
    finally:
        del folder_paths.folder_names_and_paths["more_loras"]


def test_a_file_in_another_folder_of_its_type_is_not_replaced(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    """The folder that files go to has become another one: the old one counts first no more than any file."""
    new_home = depot_world.base / "fast"
    new_home.mkdir()
    folder_paths.folder_names_and_paths["loras"][0].append(str(new_home))
    point(depot_world, fetched, origin, "/new", NEW)
    depot_world.model("loras", NAME).rename(new_home / NAME)
    assert ask(depot_world) == OLD and origin.hits("/new") == []


# -- without a sha256


def test_without_a_sha256_another_url_or_size_counts_and_the_file_comes_once(
    depot_world: World, origin: Origin
) -> None:
    plain: dict[str, Any] = {"with_sha256": False, "with_size": False}
    depot_world.write_manifest({})
    with depot_world.depot(depot_hash="off") as depot:
        point(depot_world, depot, origin, "/1", OLD, **plain)
        assert ask(depot_world) == OLD
        origin.assets["/1"].body = SAME_SIZE
        assert ask(depot_world) == OLD, "nobody asks a source whether it has something else by now"
        point(depot_world, depot, origin, "/2", NEW, **plain)
        assert ask(depot_world) == NEW == ask(depot_world)
        assert origin.bytes_sent("/2") < 2 * len(NEW)
        point(depot_world, depot, origin, "/2", SAME_SIZE, with_sha256=False, rate=None)
        assert ask(depot_world) == SAME_SIZE == ask(depot_world)
        assert origin.bytes_sent("/2") < 2 * len(SAME_SIZE) + len(NEW)


def test_a_sha256_that_a_manifest_gains_is_compared_before_anything_is_fetched(
    depot_world: World, origin: Origin
) -> None:
    depot_world.write_manifest({})
    with depot_world.depot(depot_hash="off") as depot:
        point(depot_world, depot, origin, "/1", OLD, with_sha256=False)
        ask(depot_world)
        sent = origin.bytes_sent()
        point(depot_world, depot, origin, "/1", OLD)
        assert ask(depot_world) == OLD and origin.bytes_sent() == sent
        entry = depot.entry("loras", NAME)
        assert depot.outdated.stamp_of(entry) is None, "it is compared once"
        point(depot_world, depot, origin, "/3", SAME_SIZE)
        assert ask(depot_world) == SAME_SIZE


# -- new bytes that cannot be had


@pytest.mark.parametrize("behaviour", [{"status": 404}, {"wrong": True}], ids=["gone", "wrong bytes"])
def test_the_old_bytes_are_used_with_a_warning_until_the_new_ones_can_be_had(
    depot_world: World, origin: Origin, fetched: Depot, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, behaviour: dict[str, Any],
) -> None:
    wrong = behaviour.pop("wrong", False)
    point(depot_world, fetched, origin, "/new", NEW, rate=None, **behaviour)
    if wrong:
        origin.assets["/new"].body = safetensors(len(NEW), seed=9)
    with caplog.at_level(logging.ERROR):
        assert ask(depot_world) == OLD
    (said,) = [record.getMessage() for record in caplog.records if "OUTDATED" in record.getMessage()]
    assert said.startswith("loras/a.safetensors is OUTDATED, and its old bytes go on being used")
    assert "tried again at the first need after 60 s." in said
    (problem,) = fetched.problems()
    assert problem.message.startswith("the manifest names other bytes, and the old ones go on being used")
    assert fetched.usable_path("loras", NAME) == str(depot_world.model("loras", NAME))
    hits = len(origin.hits("/new"))
    assert ask(depot_world) == OLD and len(origin.hits("/new")) == hits, "it is not tried at each need"
    with pytest.raises(DownloadFailed):
        fetched.fetch("loras", NAME)  # who asks for it by name hears why not
    assert depot_world.model("loras", NAME).read_bytes() == OLD

    origin.assets["/new"].status, origin.assets["/new"].body = None, NEW
    now = outdated.monotonic()
    monkeypatch.setattr(outdated, "monotonic", lambda: now + 61)
    assert ask(depot_world) == NEW and fetched.problems() == []


def test_the_pause_grows_with_each_try_and_a_new_entry_is_tried_at_once(
    depot_world: World, origin: Origin, fetched: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    point(depot_world, fetched, origin, "/new", NEW)
    entry, clock = fetched.entry("loras", NAME), [0.0]
    monkeypatch.setattr(outdated, "monotonic", lambda: clock[0])
    pauses = []
    for _ in range(7):
        fetched.outdated.note_failure(entry, DownloadFailed("no"))
        fetched.outdated.note_failure(entry, DownloadFailed("no, says another who waited for the same"))
        begin = clock[0]
        while not fetched.outdated.is_wanted(entry):
            clock[0] += 30
        pauses.append(clock[0] - begin)
    assert pauses == [60, 120, 240, 480, 960, 1800, 1800]
    fetched.outdated.note_failure(entry, DownloadFailed("no"))
    point(depot_world, fetched, origin, "/same", SAME_SIZE)
    assert fetched.outdated.is_wanted(fetched.entry("loras", NAME))


def test_a_download_that_somebody_stops_leaves_the_old_bytes_to_the_node_that_waits(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    point(depot_world, fetched, origin, "/new", NEW, rate=100_000)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(ask(depot_world)))
    thread.start()
    wait_until(lambda: origin.bytes_sent("/new"))
    (transfer,) = fetched.active_transfers()
    fetched.transfers.cancel(transfer.id)
    thread.join()
    assert got == [OLD] and not fetched.outdated.is_wanted(fetched.entry("loras", NAME))


def test_a_disk_without_room_for_both_keeps_the_old_bytes(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    point(depot_world, fetched, origin, "/new", NEW)
    object.__setattr__(fetched.options, "depot_reserve", 1 << 60)
    fetched.transfers._services.room.reserve = 1 << 60
    assert ask(depot_world) == OLD
    assert "needs" in fetched.problems()[0].message


# -- eviction


def test_an_outdated_file_is_not_evicted_and_counts_as_the_depots_own(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    for path, body in (("/new", NEW), ("/same", SAME_SIZE)):
        point(depot_world, fetched, origin, path, body)
        plan = fetched.plan_eviction(Limits(max_size=0))
        (verdict,) = plan.staying
        assert verdict.reason == survey.OUTDATED and verdict.model.is_own and plan.going == ()
    point(depot_world, fetched, origin, "/old", OLD)
    assert len(fetched.plan_eviction(Limits(max_size=0)).going) == 1


def test_a_pin_holds_for_the_new_bytes_as_for_the_old(
    depot_world: World, origin: Origin, fetched: Depot
) -> None:
    fetched.pin("loras", NAME)
    point(depot_world, fetched, origin, "/new", NEW)
    assert ask(depot_world) == NEW
    (verdict,) = fetched.plan_eviction(Limits(max_size=0)).staying
    assert verdict.reason == "it is pinned"


def test_verify_says_that_a_file_is_outdated(depot_world: World, origin: Origin, fetched: Depot) -> None:
    assert list(wrong_files(fetched, with_hashes=True)) == []
    point(depot_world, fetched, origin, "/same", SAME_SIZE)
    (sentence,) = wrong_files(fetched, with_hashes=False)
    assert sentence.endswith(
        "is outdated: it was fetched, and the manifest names other bytes now. They are fetched when a node "
        "needs them, or by python -m comfy_depot fetch loras/a.safetensors")


# -- the content that a name stands for


def test_the_content_of_a_name_changes_with_the_manifest_and_not_with_the_download(
    depot_world: World, origin: Origin
) -> None:
    def content() -> str | None:
        return contents_of([("7", NAME, ())]).get("7", {}).get(f"loras/{NAME}")

    depot_world.write_manifest({})
    assert content() is None, "no depot is started"
    with depot_world.depot(depot_hash="off") as depot:
        assert content() is None, "no manifest names it"
        for with_sha256 in (True, False):
            plain = {"with_sha256": with_sha256}
            point(depot_world, depot, origin, f"/old{with_sha256}", OLD, **plain)
            in_cloud = content()
            ask(depot_world)
            assert content() == in_cloud is not None
            point(depot_world, depot, origin, f"/new{with_sha256}", NEW, **plain)
            wanted = content()
            assert wanted != in_cloud
            ask(depot_world)
            assert content() == wanted
        depot.outdated.note_failure(depot.entry("loras", NAME), DownloadFailed("no"))
        assert content() == wanted, "what is there is there"


def test_the_content_is_that_of_the_old_bytes_while_these_must_serve_and_a_new_try_has_one_of_its_own(
    depot_world: World, origin: Origin, fetched: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> str:
        return fetched.outdated.content_of(fetched.entry("loras", NAME))

    old = content()
    point(depot_world, fetched, origin, "/new", NEW, status=404)
    wanted = content()
    assert ask(depot_world) == OLD and content() == old
    now = outdated.monotonic()
    monkeypatch.setattr(outdated, "monotonic", lambda: now + 61)
    assert content() not in (old, wanted), "what ran for the first try was given the old bytes"


def test_the_content_of_a_users_file_changes_with_the_file(depot_world: World, origin: Origin) -> None:
    depot_world.write_manifest({})
    with depot_world.depot(depot_hash="off") as depot:
        point(depot_world, depot, origin, "/old", OLD)
        entry = depot.entry("loras", NAME)
        put_by_hand(depot_world, OLD)
        before = depot.outdated.content_of(entry)
        assert before == depot.outdated.content_of(entry)
        put_by_hand(depot_world, SAME_SIZE)
        assert depot.outdated.content_of(entry) != before

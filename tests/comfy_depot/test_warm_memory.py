"""Pinned models come into memory in the background, give way to prompts, and say how far they are."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import pytest

from comfy_depot.host import QueuedPrompt
from comfy_depot.options import Budget
from comfy_depot.warm_memory import NOT_KEPT
from tests.comfy_depot.pinned import Pinned
from tests.comfy_depot.world import World, queued
from tests.fakes.origin import Origin, safetensors
from tests.fakes.waiting import wait_until


@pytest.fixture
def pinned(depot_world: World) -> Pinned:
    return Pinned(depot_world)


@pytest.mark.slow
def test_what_the_command_line_pins_is_loaded_at_start_in_its_order_and_stays(
    pinned: Pinned, caplog: pytest.LogCaptureFixture
) -> None:
    pinned.write("a1", "a2", "b", "other")
    pins = ("checkpoints/b.safetensors", "checkpoints/a*")
    with caplog.at_level(logging.INFO), pinned.start(pin=pins) as depot:
        pinned.wait_for(a1="ready", a2="ready", b="ready")
        assert pinned.reads == ["b", "a1", "a2"]
        assert "checkpoints/b.safetensors is in memory after 0." in caplog.text
        for one in depot.residents.models():
            assert one["kept"] and not one["in_use"] and one["pinned"] is not None
        assert pinned.resident("b")["pinned"]["by"] == ["--pin checkpoints/b.safetensors"]
        depot.residents.free_idle()
        assert pinned.in_memory() == {"a1", "a2", "b"}
    events = [(one["name"][:-12], one["state"]) for _, one in pinned.world.events if one["kind"] == "memory"]
    assert events == [(name, state) for name in ("b", "a1", "a2")
                      for state in ("waiting", "loading", "ready")]


def test_a_model_that_is_only_in_the_cloud_is_fetched_after_those_on_the_disk(pinned: Pinned) -> None:
    pinned.write("here")
    with Origin() as origin:
        url = origin.put("/c.safetensors", safetensors(5000))
        pinned.world.write_manifest({"checkpoints": {
            "c.safetensors": {"url": url, "size": 5000}, "huge.safetensors": {"url": url, "size": 10**15}}})
        pins = ("checkpoints/c*", "checkpoints/h*")
        with pinned.start(pin=pins, pin_budget=Budget(size=10000)) as depot:
            wait_until(lambda: pinned.states() == {"c": "ready", "here": "ready", "huge": "failed"})
            assert pinned.reads == ["here", "c"]
            (huge,) = [one for one in depot.warm_memory.pinned() if one.state == "failed"]
            assert "do not fit into --pin-budget" in (huge.message or ""), "nothing of it is fetched"
        assert len({hit.path for hit in origin.hits()}) == 1
    events = [one for _, one in pinned.world.events if one["kind"] == "memory"]
    states = [one["state"] for one in events if one["name"] == "c.safetensors"]
    assert states == ["waiting", "fetching", "loading", "ready"]


def test_what_cannot_be_fetched_or_loaded_fails_with_the_reason_and_the_others_come(
    pinned: Pinned, caplog: pytest.LogCaptureFixture
) -> None:
    pinned.write("bad", "good")
    pinned.refusals["bad"] = ValueError("no workflow has loaded it yet")
    with Origin() as origin:  # which has nothing
        pinned.world.write_manifest({"checkpoints": {"c.safetensors": f"{origin.url}/c.safetensors"}})
        fails_and_the_others_come(pinned, caplog)


def fails_and_the_others_come(pinned: Pinned, caplog: pytest.LogCaptureFixture) -> None:
    with pinned.start(pin=("checkpoints/*",)) as depot:
        wait_until(lambda: pinned.states() == {"bad": "failed", "good": "ready", "c": "failed"})
        messages = {one.name[:-12]: one.message or "" for one in depot.warm_memory.pinned()}
        assert messages["bad"] == "no workflow has loaded it yet" and "127.0.0.1" in messages["c"]
        assert "checkpoints/bad.safetensors was not loaded ahead: no workflow" in caplog.text
        depot.warm_memory.look()
        assert pinned.reads == ["good"], "it is not tried again at once"
        pinned.load(pinned.path("bad"))
        assert pinned.states()["bad"] == "ready", "a workflow has loaded it"
        pinned.refusals.clear()
        assert {one.name[:-12]: one.state for one in depot.warm_memory.warm_all()}["good"] == "ready"


def test_a_host_that_loads_nothing_ahead_pins_what_a_workflow_loads(pinned: Pinned) -> None:
    pinned.write("a")
    pinned.world.load_model = lambda folder, name: False
    with pinned.start(pin=("checkpoints/a.safetensors",)) as depot:
        pinned.wait_for(a="failed")
        assert depot.warm_memory.pinned()[0].message == NOT_KEPT
        pinned.load(pinned.path("a"))
        assert pinned.states() == {"a": "ready"} and pinned.in_memory() == {"a"}


def test_a_loader_that_keeps_nothing_is_said(pinned: Pinned) -> None:
    pinned.write("a")
    pinned.world.load_model = lambda folder, name: True
    with pinned.start(pin=("checkpoints/a.safetensors",)) as depot:
        pinned.wait_for(a="failed")
        assert depot.warm_memory.pinned()[0].message == NOT_KEPT


class Watched(list[QueuedPrompt]):
    """The queue; it counts how often somebody looks."""

    looks = 0

    def __getitem__(self, which: Any) -> Any:
        self.looks += 1
        return super().__getitem__(which)


def test_prompts_go_first_but_not_for_ever(pinned: Pinned) -> None:
    pinned.write("a", "b")
    pinned.world.prompts = queue = Watched([queued("p")])
    with pinned.start() as depot:
        depot.warm_memory._patience = 1e9
        pinned.pin("a.safetensors")
        before = queue.looks
        wait_until(lambda: queue.looks > before + 2)
        assert pinned.reads == [] and pinned.states() == {"a": "waiting"}
        queue.clear()
        pinned.wait_for(a="ready")
        queue.append(queued("p"))
        depot.warm_memory._patience = 0.0
        pinned.pin("b.safetensors")
        pinned.wait_for(b="ready")


def test_what_is_unpinned_while_it_waits_for_prompts_is_not_loaded(pinned: Pinned) -> None:
    pinned.write("a", "b")
    pinned.world.prompts = queue = Watched([queued("p")])
    with pinned.start() as depot:
        depot.warm_memory._patience = 1e9
        pinned.pin("a.safetensors")
        before = queue.looks
        wait_until(lambda: queue.looks > before + 2)
        pinned.unpin("a.safetensors")
        pinned.pin("b.safetensors")
        queue.clear()
        pinned.wait_for(b="ready")
        assert pinned.reads == ["b"]


def test_one_model_is_loaded_at_a_time(pinned: Pinned) -> None:
    pinned.write("a", "b", "c")
    at_once, most = [0], [0]

    def count(name: str) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        at_once[0] -= 1

    pinned.before_load = count
    with pinned.start(pin=("checkpoints/*",)):
        pinned.wait_for(a="ready", b="ready", c="ready")
    assert most == [1]


def test_a_replaced_file_is_loaded_again_and_takes_over_the_pin(pinned: Pinned) -> None:
    pinned.write("a")
    with pinned.start(pin=("checkpoints/a.safetensors",)) as depot:
        pinned.wait_for(a="ready")
        pinned.write("new", size=13)
        os.replace(pinned.path("new"), pinned.path("a"))
        depot.warm_memory.wake()
        wait_until(lambda: [one["bytes"] for one in depot.residents.models()] == [13])
        assert pinned.reads == ["a", "a"] and pinned.resident("a")["pinned"] is not None


def test_a_file_that_is_deleted_leaves_its_model_ready_and_says_so(pinned: Pinned) -> None:
    pinned.write("a", "b")
    with pinned.start(pin=("checkpoints/a.safetensors", "checkpoints/b*")) as depot:
        pinned.wait_for(a="ready", b="ready")
        for name in "ab":
            os.unlink(pinned.path(name))
        depot.warm_memory.look()
        assert {(one.name, one.state, one.message) for one in depot.warm_memory.pinned()} == {
            ("a.safetensors", "ready", "Its file is gone."), ("b.safetensors", "ready", "Its file is gone.")}


def test_a_twin_of_what_is_in_memory_is_pinned_without_reading_it(pinned: Pinned) -> None:
    pinned.write("a")
    os.link(pinned.path("a"), pinned.path("twin"))
    with pinned.start(pin=("checkpoints/twin.safetensors",)) as depot:
        pinned.wait_for(twin="ready")
        given = pinned.load(pinned.path("a"))
        assert given[0].model.is_pinned and pinned.reads == ["twin"]
        (one,) = depot.residents.models()
        assert one["names"] == ["checkpoints/a.safetensors", "checkpoints/twin.safetensors"]


def test_pins_that_do_not_fit_any_more_are_told_and_the_first_ones_hold(pinned: Pinned) -> None:
    pinned.write("a1", "a2", "a3", size=1000)
    with pinned.start(pin=("checkpoints/*",), pin_budget=Budget(size=2500)) as depot:
        wait_until(lambda: sorted(pinned.states().values()) == ["failed", "ready", "ready"])
        (failed,) = [one for one in depot.warm_memory.pinned() if one.state == "failed"]
        assert failed.name == "a3.safetensors" and (failed.message or "").startswith(
            "Its 1.0 kB do not fit into --pin-budget: 2.0 kB of 2.5 kB are pinned. Unpin another model")
        kept = pinned.load(pinned.path("a3"))  # a workflow needs it all the same
        one = pinned.resident("a3")
        assert one["pinned"] is None
        assert "does not fit into --pin-budget; goes with its last user" in one["why"]
        assert kept[0].model.is_pinned is not True and len(depot.residents.pinned()) == 2


def test_a_pin_of_another_process_is_taken_up(pinned: Pinned) -> None:
    from comfy_depot.memory_pins import MemoryPins

    pinned.write("a")
    with pinned.start() as depot:
        depot.warm_memory._pause = 0.01
        depot.warm_memory.wake()
        other = MemoryPins(depot.options.depot_dir)
        other.change(lambda state: state.pinned("checkpoints/a.safetensors", "me", 1.0))
        pinned.wait_for(a="ready")
        other.change(lambda state: state.unpinned("checkpoints/a.safetensors", other.setup))
        wait_until(lambda: not pinned.in_memory())


def test_a_model_is_loaded_on_request_and_belongs_to_the_resident_budget(pinned: Pinned) -> None:
    pinned.write("a", "b")
    with pinned.start(resident_budget=Budget(size=1500)) as depot:
        depot.warm_memory.ask("checkpoints", "a.safetensors")
        wait_until(lambda: [one.state for one in depot.warm_memory.asked()] == ["ready"])
        depot.warm_memory.ask("checkpoints", "b.safetensors")
        wait_until(lambda: pinned.in_memory() == {"b"})
        assert depot.warm_memory.ask("checkpoints", "b.safetensors").state == "ready"
        assert pinned.reads == ["a", "b"]


def test_a_pattern_that_means_no_model_is_warned_of_and_holds_what_comes(
    pinned: Pinned, caplog: pytest.LogCaptureFixture
) -> None:
    pinned.write("sdxl_base", "sd15")
    with pinned.start(pin=("checkpoints/sdlx*", "chekpoints/a*")) as depot:
        wait_until(lambda: "'chekpoints/a*'" in caplog.text)
        assert ("--pin checkpoints/sdlx*: No known model is called 'checkpoints/sdlx*'. Near: "
                "sdxl_base.safetensors. Such a model is pinned when it comes") in caplog.text
        assert "There is no folder type 'chekpoints'. Did you mean checkpoints?" in caplog.text
        pins = depot.pinning.report()["pins"]
        assert [pin["models"] for pin in pins] == [[], []] and "Near: sdxl_base" in pins[0]["warning"]
        pinned.write("sdlx_new")
        depot.warm_memory.wake()
        pinned.wait_for(sdlx_new="ready")
        assert depot.pinning.report()["pins"][0]["warning"] is None
        assert caplog.text.count("'checkpoints/sdlx*'") == 1

"""Pins are planned against the budget before anything changes, and carried out in one step."""

from __future__ import annotations

import re
from typing import Any

import pytest

from comfy_depot.errors import ModelUnavailable
from comfy_depot.memory_pins import NotPinned
from comfy_depot.options import Budget
from comfy_depot.pinning import UNTIL_RESTART, OverBudget
from tests.comfy_depot.pinned import Pinned
from tests.comfy_depot.world import World

GROUPS = (("still", ("checkpoints/s*",)), ("video", ("checkpoints/v*",)))


@pytest.fixture
def pinned(depot_world: World) -> Pinned:
    return Pinned(depot_world)


def carry_out(pinned: Pinned, plan: str, *args: Any, is_dry_run: bool = False, **options: Any) -> Any:
    pinning = pinned.depot.pinning
    return pinning.carry_out(lambda: getattr(pinning, plan)(*args, **options), is_dry_run=is_dry_run)


def test_a_plan_says_what_would_be_pinned_and_what_it_takes_and_changes_nothing(pinned: Pinned) -> None:
    pinned.write("a1", "a2", "b")
    entry = {"url": "https://host.example/a", "size": 7}
    pinned.world.write_manifest({"checkpoints": {"a3.safetensors": entry}})
    with pinned.start() as depot:
        plan = carry_out(pinned, "plan_pin", "checkpoints", "a*", "alice", is_dry_run=True).as_json()
        assert [(one["name"], one["bytes"]) for one in plan["models"]] == [
            ("a1.safetensors", 1000), ("a2.safetensors", 1000), ("a3.safetensors", 7)]
        assert plan["pinned_bytes"] == 2007 and [pin["by"] for pin in plan["pins"]] == ["alice"]
        assert depot.memory_pins.all() == () and pinned.reads == []


def test_over_the_budget_nothing_changes_and_the_error_lists_who_takes_the_room(pinned: Pinned) -> None:
    pinned.write("a1", "a2", "b")
    with pinned.start(pin=("checkpoints/a*",), pin_budget=Budget(size=2500)) as depot:
        pinned.wait_for(a1="ready", a2="ready")
        with pytest.raises(OverBudget) as caught:
            carry_out(pinned, "plan_pin", "checkpoints", "b.safetensors", "bob")
        text = str(caught.value)
        assert text.startswith(
            "checkpoints/b.safetensors cannot be pinned: all pinned models would take 3.0 kB, and "
            "--pin-budget is 2.5 kB. Nothing has changed. Pinned in memory are 2.0 kB: "
            "checkpoints/a1.safetensors (1.0 kB, by --pin checkpoints/a*); ")
        assert "Unpin one, or start with a larger --pin-budget." in text
        assert [one.name for one in caught.value.pinned] == [f"checkpoints/a{n}.safetensors" for n in "12"]
        assert len(depot.memory_pins.all()) == 1 and pinned.in_memory() == {"a1", "a2"}


def test_without_a_budget_the_memory_of_the_device_is_the_limit(pinned: Pinned) -> None:
    pinned.write("a")
    pinned.world.bytes_of_device = 999
    with pinned.start(), pytest.raises(OverBudget, match=r"the device has 1\.0 kB\. .*No model is pinned"):
        carry_out(pinned, "plan_pin", "checkpoints", "a.safetensors", "me")
    with pinned.start(pin_budget=Budget(share=0.5)) as depot:
        assert depot.pinning.budget == 499


def test_two_names_of_one_content_count_once(pinned: Pinned) -> None:
    import os

    pinned.write("a")
    os.link(pinned.path("a"), pinned.path("twin"))
    with pinned.start(pin_budget=Budget(size=1500)):
        plan = carry_out(pinned, "plan_pin", "checkpoints", "*", "me")
        assert plan.bytes == 1000 and len(plan.targets) == 2


def test_a_pin_by_request_holds_over_a_restart_until_it_is_let_go(pinned: Pinned) -> None:
    pinned.write("a")
    with pinned.start():
        pinned.pin("a.safetensors")
        pinned.wait_for(a="ready")
    with pinned.start():
        pinned.wait_for(a="ready")
        plan = carry_out(pinned, "plan_unpin", "checkpoints", "a.safetensors")
        assert plan.pins == () and plan.message is None
        assert pinned.in_memory() == set(), "nothing else keeps it"


def test_a_pin_of_the_command_line_is_let_go_until_the_restart_and_the_answer_says_so(pinned: Pinned) -> None:
    pinned.write("a")
    with pinned.start(pin=("checkpoints/a*",)):
        pinned.wait_for(a="ready")
        assert carry_out(pinned, "plan_unpin", "checkpoints", "a*").message == UNTIL_RESTART
        assert pinned.in_memory() == set() and pinned.states() == {}
    with pinned.start(pin=("checkpoints/a*",)):
        pinned.wait_for(a="ready")


@pytest.mark.parametrize("name, message", [
    ("b.safetensors", r"'checkpoints/b\.safetensors' is not pinned in memory\. What is: GET /depot/models"),
    ("a.safetensors", r"is held by --pin checkpoints/a\* \('checkpoints/a\*'\): unpin that pattern, 'checkp"),
    ("s1.safetensors", r"is held by group still \('checkpoints/s\*'\): switch to another group, or unpin \{"),
    ("s*", r"is held by group still"),
])
def test_what_cannot_be_unpinned_says_what_holds_it(pinned: Pinned, name: str, message: str) -> None:
    pinned.write("a", "b", "s1")
    with pinned.start(pin=("checkpoints/a*",), pin_group=GROUPS), pytest.raises(NotPinned, match=message):
        carry_out(pinned, "plan_unpin", "checkpoints", name)


def test_a_name_that_nobody_knows_is_refused(pinned: Pinned) -> None:
    pinned.write("sdxl_base")
    with pinned.start():
        with pytest.raises(ModelUnavailable, match="'none.safetensors' is in no manifest"):
            carry_out(pinned, "plan_pin", "checkpoints", "none.safetensors", "me")
        with pytest.raises(ModelUnavailable, match=r"called 'checkpoints/sdlx\*'\. Near: sdxl_base"):
            carry_out(pinned, "plan_pin", "checkpoints", "sdlx*", "me")
        with pytest.raises(ModelUnavailable, match="no folder type 'chekpoints'. Did you mean checkpoints"):
            carry_out(pinned, "plan_pin", "chekpoints", "*", "me")


def test_switching_groups_lets_the_old_one_go_and_loads_the_new_one(pinned: Pinned) -> None:
    pinned.write("s1", "s2", "v1", "v2")
    with pinned.start(pin_group=GROUPS, pin_budget=Budget(size=2000)) as depot:
        pinned.wait_for(s1="ready", s2="ready")
        assert carry_out(pinned, "plan_group", "video", is_dry_run=True).bytes == 2000
        assert pinned.in_memory() == {"s1", "s2"}
        carry_out(pinned, "plan_group", "video")
        pinned.wait_for(v1="ready", v2="ready")
        assert pinned.in_memory() == {"v1", "v2"}
        assert [group["is_active"] for group in depot.memory_pins.groups()] == [False, True]
    pinned.reads.clear()
    with pinned.start(pin_group=GROUPS):
        pinned.wait_for(v1="ready", v2="ready")
        assert sorted(pinned.reads) == ["v1", "v2"], "the group that was active is again"
        carry_out(pinned, "plan_group", "video", is_on=False)
        assert pinned.in_memory() == set() and pinned.states() == {}


def test_a_group_that_does_not_fit_leaves_the_old_one_as_it_is(pinned: Pinned) -> None:
    pinned.write("s1", "v1", "v2", "v3")
    with pinned.start(pin_group=GROUPS, pin_budget=Budget(size=2500)) as depot:
        pinned.wait_for(s1="ready")
        with pytest.raises(OverBudget, match=r"group 'video' cannot be pinned: .* would take 3\.0 kB, .*s1"):
            carry_out(pinned, "plan_group", "video")
        assert pinned.states() == {"s1": "ready"} and pinned.reads == ["s1"]
        assert [group["is_active"] for group in depot.memory_pins.groups()] == [True, False]


@pytest.mark.parametrize("group, is_on, message", [
    ("none", True, "There is no group 'none' of pinned models. There are: still, video."),
    ("video", False, "The group 'video' is not the active one, so it is not pinned."),
    ("video", True, "No known model is called 'checkpoints/v*'."),
])
def test_a_group_that_cannot_be_switched_to_says_why(
    pinned: Pinned, group: str, is_on: bool, message: str
) -> None:
    pinned.write("s1")
    errors = (NotPinned, ModelUnavailable)
    with pinned.start(pin_group=GROUPS), pytest.raises(errors, match=re.escape(message)):
        carry_out(pinned, "plan_group", group, is_on=is_on)


def test_without_groups_the_error_says_how_to_name_one(pinned: Pinned) -> None:
    with pinned.start(), pytest.raises(NotPinned, match="Name one: --pin-group NAME=GLOB"):
        carry_out(pinned, "plan_group", "video")


def test_the_report_tells_who_pinned_what_and_how_far_it_is(pinned: Pinned) -> None:
    pinned.write("a", "s1")
    with pinned.start(pin_group=GROUPS, pin_budget=Budget(size=5000)) as depot:
        pinned.pin("a.safetensors")
        pinned.wait_for(a="ready", s1="ready")
        report = depot.pinning.report()
        assert (report["budget"], report["pinned_bytes"], report["problem"]) == (5000, 2000, None)
        group, own = report["pins"]
        assert (group["by"], own["by"], own["pattern"]) == ("group still", "me", "checkpoints/a.safetensors")
        assert own["models"] == [{"folder": "checkpoints", "name": "a.safetensors", "bytes": 1000,
                                  "state": "ready", "message": None}]
        assert report["groups"] == [
            {"name": "still", "patterns": ["checkpoints/s*"], "is_active": True},
            {"name": "video", "patterns": ["checkpoints/v*"], "is_active": False}]


def test_pins_by_request_are_not_endless(pinned: Pinned, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy_depot import pinning

    pinned.write("a", "b")
    monkeypatch.setattr(pinning, "MOST_PINS", 1)
    with pinned.start():
        pinned.pin("a.safetensors")
        with pytest.raises(OverBudget, match="1 patterns are pinned by request; no more can be. Unpin"):
            pinned.pin("b.safetensors")

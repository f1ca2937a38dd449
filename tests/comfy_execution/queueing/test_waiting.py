"""The order of waiting prompts, and the fields of a request that decide it."""

import random

import pytest

from comfy_execution.errors import InvalidRequestError
from comfy_execution.queueing.schedule import Schedule, read_schedule, schedule_of
from comfy_execution.queueing.waiting import QueueItem, WaitingPrompts


def item(name, number=0, **fields):
    return QueueItem((number, name, {}, fields, [], {}))


def waiting(*items):
    return WaitingPrompts(items)


def run_all(prompts):
    return "".join(prompts.pop()[1] for _ in range(len(prompts)))


def test_higher_priorities_run_first_and_then_lower_numbers():
    prompts = waiting(item("a", 1), item("b", 0), item("c", 9, priority=2), item("d", 3, priority=-1.5))
    assert run_all(prompts) == "cbad"


def test_tenants_take_turns_inside_a_priority():
    prompts = waiting(*(item(name, tenant=name.lower()) for name in "AAAABBC"))
    prompts.push(item("X", priority=1, tenant="a"))
    assert run_all(prompts) == "XABCABAA"


def test_a_tenant_that_comes_new_begins_behind_those_that_wait():
    """Otherwise whoever invents a name for each prompt would always be next."""
    prompts = waiting(*(item(name, tenant=name) for name in "AABB"))
    assert prompts.pop()[1] == "A"
    prompts.push(item("N", tenant="new"))
    assert run_all(prompts) == "BANB"


def test_front_is_the_front_of_the_own_tenants_line():
    prompts = waiting(item("a", 1, tenant="A"), item("b", 1, tenant="B"), item("f", -2, tenant="B"))
    assert run_all(prompts) == "afb"


def test_what_was_running_comes_before_every_priority():
    prompts = waiting(item("a", priority=9))
    prompts.push_first(item("r"))
    assert [one[1] for one in prompts.in_order()] == ["r", "a"]
    assert run_all(prompts) == "ra"


def test_the_shown_order_is_the_order_of_running():
    chance = random.Random(7)
    prompts = WaitingPrompts()
    for number in range(300):
        prompts.push(item(str(number), chance.choice([0, number]), priority=chance.randrange(3),
                          tenant=chance.choice("abcd")))
        if chance.random() < 0.3:
            shown = prompts.in_order()
            assert prompts[0] is shown[0]
            assert prompts.pop() is shown[0]
        if chance.random() < 0.2 and len(prompts):
            doomed = chance.choice(list(prompts))
            assert prompts.remove_if(lambda one, doomed=doomed: one is doomed) is doomed
    shown = prompts.in_order()
    assert len(shown) == len(prompts) == len(list(prompts))
    assert [prompts.pop() for _ in shown] == shown


def test_removing_takes_the_first_that_fits_and_says_so():
    prompts = waiting(item("late", 5), item("soon", 1), item("p", priority=3))
    assert prompts.remove_if(lambda one: one[1] in ("late", "soon"))[1] == "soon"
    assert prompts.remove_if(lambda one: one[1] == "soon") is None
    assert run_all(prompts) == "plate"


@pytest.mark.parametrize(
    ("fields", "kind", "part"),
    [
        ({"priority": "high"}, "invalid_priority", "higher ones run first"),
        ({"priority": True}, "invalid_priority", "must be a number"),
        ({"priority": float("inf")}, "invalid_priority", "must be a number"),
        ({"priority": 10**400}, "invalid_priority", "must be a number"),
        ({"tenant": 7}, "invalid_tenant", "1 to 200 printable"),
        ({"tenant": ""}, "invalid_tenant", "1 to 200 printable"),
        ({"tenant": "a\nb"}, "invalid_tenant", "1 to 200 printable"),
        ({"tenant": "x" * 201}, "invalid_tenant", "1 to 200 printable"),
        ({"timeout_seconds": 0}, "invalid_timeout_seconds", "greater than 0"),
        ({"timeout_seconds": "5"}, "invalid_timeout_seconds", "greater than 0"),
        ({"timeout_seconds": False}, "invalid_timeout_seconds", "greater than 0"),
    ],
)
def test_a_bad_field_is_refused_with_its_reason(fields, kind, part):
    with pytest.raises(InvalidRequestError) as refused:
        read_schedule(fields)
    assert refused.value.kind == kind and part in refused.value.message
    assert schedule_of((0, "made by a pack", {}, fields, [])) == Schedule()


def test_fields_that_are_missing_or_null_are_the_defaults():
    assert read_schedule({"priority": None}) == Schedule(0.0, "", None)
    assert read_schedule({"priority": -2, "tenant": "é", "timeout_seconds": 0.5}) == Schedule(-2.0, "é", 0.5)

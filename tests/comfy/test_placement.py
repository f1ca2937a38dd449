"""What leaves a device and what stays: the plan is a pure function, so every rule is a table."""

import random

import pytest

from comfy.placement import BYTES_NOT_WORTH_STREAMING, Plan, Room, Standing, choose_resident, plan_placement


def on(name, size, **facts) -> Standing:
    """A model that is on the device as a whole."""
    return Standing(name, size, on_device=size, **facts)


def test_nothing_moves_when_there_is_room():
    plan = plan_placement([Standing("a", 50)], [on("b", 40)], Room(free=60, to_run=10))
    assert plan == Plan((), {"a": 50}, 0)


def test_what_is_on_the_device_already_needs_no_room():
    assert plan_placement([on("a", 50)], [on("b", 40)], Room(free=10, to_run=10)).leaving == ()


@pytest.mark.parametrize(
    ("others", "leaving"),
    [
        ([on("old", 10, last_used=1), on("new", 10, last_used=2)], ("old",)),
        ([on("slow", 10, seconds_to_return=9.0, last_used=1),
          on("fast", 10, seconds_to_return=1.0, last_used=2)], ("fast",)),
        # per byte: a large model that takes longer in all is cheaper than a small one that takes less
        ([on("large", 100, seconds_to_return=2.0), on("small", 10, seconds_to_return=1.0)], ("large",)),
        # half again as slow is no difference: then the one that was not used for longer
        ([on("a", 10, seconds_to_return=1.0, last_used=2),
          on("b", 10, seconds_to_return=1.3, last_used=1)], ("b",)),
        # what takes no time to speak of is all the same
        ([on("a", 10, seconds_to_return=0.04, last_used=2), on("b", 10, last_used=1)], ("b",)),
        ([on("old", 5, last_used=1), on("new", 5, last_used=2), on("newest", 5, last_used=3)],
         ("old", "new")),
        ([on("pinned", 10, last_used=1, is_pinned=True), on("new", 10, last_used=2)], ("new",)),
    ],
)  # fmt: skip
def test_the_cheapest_to_bring_back_goes_first_then_the_least_recently_used(others, leaving):
    assert plan_placement([Standing("a", 10)], others, Room(free=0)).leaving == leaving


def test_pinned_models_never_leave_whatever_is_asked():
    plan = plan_placement([], [on("a", 10, is_pinned=True), on("b", 10)], Room(free=0, to_run=1e30))
    assert plan.leaving == ("b",)


def test_a_run_goes_in_small_pieces_before_weights_are_streamed():
    plan = plan_placement([Standing("a", 50)], [], Room(free=60, to_run=100, least_to_run=10))
    assert plan.resident == {"a": 50}


def test_what_does_not_fit_is_streamed_and_the_fraction_is_in_the_plan():
    plan = plan_placement([Standing("a", 100)], [on("b", 20)], Room(free=40, to_run=30, least_to_run=10))
    assert plan == Plan(("b",), {"a": 50}, 0)


def test_the_largest_model_is_streamed_first():
    plan = plan_placement([Standing("a", 100), Standing("b", 30)], [], Room(free=60))
    assert plan.resident == {"a": 30, "b": 30}
    assert plan_placement([Standing("a", 100), Standing("b", 30)], [], Room(free=20)).resident == {
        "a": 0, "b": 20
    }  # fmt: skip


def test_a_share_is_the_most_that_stays_even_with_room():
    assert plan_placement([Standing("a", 100)], [], Room(free=1000), share=0.5).resident == {"a": 50}
    assert plan_placement([Standing("a", 100)], [], Room(free=1000), share=0.0).resident == {"a": 0}


def test_a_model_that_is_there_gives_way_to_a_larger_run():
    plan = plan_placement([on("a", 100)], [], Room(free=10, to_run=50, least_to_run=40))
    assert plan.resident == {"a": 70}


@pytest.mark.parametrize("whole", [{"is_whole": True}, {}])
def test_what_must_be_whole_is_never_streamed_and_the_missing_bytes_are_told(whole):
    model = Standing("a", 100, is_pinned=not whole)
    plan = plan_placement([model], [on("b", 20)], Room(free=40, to_run=5), share=0.0, **whole)
    assert plan == Plan(("b",), {"a": 100}, 40)


def test_a_run_that_is_too_large_is_not_the_fault_of_the_weights():
    plan = plan_placement([Standing("a", 10)], [], Room(free=20, to_run=500), is_whole=True)
    assert plan == Plan((), {"a": 10}, 0)


def test_no_plan_takes_more_than_there_is_or_moves_more_than_it_must():
    chance = random.Random(4)
    for _ in range(2000):
        wanted = [Standing(("w", i), chance.randint(1, 50), is_pinned=chance.random() < 0.2)
                  for i in range(chance.randint(1, 3))]  # fmt: skip
        others = [on(("o", i), chance.randint(1, 50), last_used=i, is_pinned=chance.random() < 0.3,
                     seconds_to_return=chance.random()) for i in range(chance.randint(0, 5))]  # fmt: skip
        to_run = chance.randint(0, 40)
        room = Room(chance.randint(0, 80), to_run, chance.randint(0, to_run))
        plan = plan_placement(wanted, others, room)
        sizes = {one.name: one.size for one in others}
        pinned = {one.name for one in [*wanted, *others] if one.is_pinned}
        free = room.free + sum(sizes[name] for name in plan.leaving)
        assert not pinned & set(plan.leaving)
        assert all(0 <= plan.resident[one.name] <= one.size for one in wanted)
        assert all(plan.resident[one.name] == one.size for one in wanted if one.is_pinned)
        if not plan.bytes_missing:
            assert sum(plan.resident.values()) <= free
        if plan.leaving:  # without the last one there would not have been room
            assert sum(one.size for one in wanted) + to_run > free - sizes[plan.leaving[-1]]
        if sum(plan.resident.values()) < sum(one.size for one in wanted):
            assert set(plan.leaving) == set(sizes) - pinned  # streaming is the last resort


LARGE = 10 * BYTES_NOT_WORTH_STREAMING


def test_all_layers_stay_when_they_fit():
    assert choose_resident([("a", LARGE), ("b", 1)], LARGE + 1) == {"a", "b"}


def test_layers_stay_spread_over_the_model_so_that_copies_hide_behind_computing():
    layers = [(str(i), LARGE) for i in range(20)]
    resident = choose_resident(layers, 12 * LARGE)
    assert len(resident) == 10  # room for two on their way
    gaps = [int(name) for name in sorted(resident, key=int)]
    assert {after - before for before, after in zip(gaps, gaps[1:], strict=False)} == {2}


def test_small_layers_stay_first():
    layers = [(f"large {i}", LARGE) for i in range(3)] + [(f"small {i}", 100) for i in range(10)]
    assert choose_resident(layers, 2 * LARGE + 1000) == {f"small {i}" for i in range(10)}


def test_nothing_stays_without_room():
    assert choose_resident([("a", LARGE), ("b", 10)], 0) == set()
    assert choose_resident([], 0) == set()


def test_resident_layers_and_two_on_their_way_fit_into_the_budget():
    chance = random.Random(5)
    for _ in range(500):
        layers = [(str(place), chance.randint(1, 3 * BYTES_NOT_WORTH_STREAMING))
                  for place in range(chance.randint(1, 30))]  # fmt: skip
        total, largest = sum(size for _, size in layers), max(size for _, size in layers)
        budget = chance.randint(0, total)
        resident = choose_resident(layers, budget)
        taken = sum(size for name, size in layers if name in resident)
        assert taken == total == budget or taken + 2 * largest <= budget or not resident

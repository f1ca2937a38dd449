"""What is dropped first: the pure rule, in examples and properties."""

from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_execution.results.budget import Kept, plan_drops, total_bytes

SHARED = 7
"""Address of a block."""


def drops(entries, budget, **more):
    return plan_drops(entries, budget, **more).drops


def test_nothing_goes_while_all_fits():
    assert drops({b"a": Kept(10, 1), b"b": Kept(10, 1)}, 20) == []


def test_large_and_cheap_goes_before_small_and_dear():
    entries = {b"latent": Kept(1_000, 20.0), b"picture": Kept(10_000, 1.0), b"number": Kept(1_000, 0.0)}
    assert drops(entries, 0) == [b"number", b"picture", b"latent"]
    assert drops(entries, 11_500) == [b"number"]


def test_what_was_not_used_for_long_goes_before_what_is_worth_a_little_less():
    entries = {b"old": Kept(10, 1.2, used=0), b"new": Kept(10, 1.0, used=9)}
    assert drops(entries, 10, now=9) == [b"old"]
    entries[b"old"].used = 9
    assert drops(entries, 10, now=9) == [b"new"]


def test_among_equals_the_older_goes_first():
    entries = {b"new": Kept(10, 1.0, used=600), b"old": Kept(10, 1.0, used=5)}
    assert drops(entries, 10, now=100_000) == [b"old"]


def test_results_in_use_stay_even_if_they_are_too_much():
    entries = {b"a": Kept(100, 0.0), b"b": Kept(1, 9.0)}
    plan = plan_drops(entries, 0, in_use={b"a"})
    assert plan.drops == [b"b"] and plan.bytes_after == 100


def test_a_result_is_dearer_when_what_it_was_made_from_is_gone():
    entries = {
        b"sampled": Kept(10, 5.0, sources=(b"model",)), b"other": Kept(10, 6.0), b"model": Kept(1000, 30.0),
    }  # fmt: skip
    assert drops(entries, 0) == [b"model", b"other", b"sampled"]
    plan = plan_drops(entries, 0)
    assert plan.seconds == {b"model": 30.0, b"other": 6.0, b"sampled": 35.0}
    del entries[b"model"]
    entries[b"sampled"].gone = {b"model": 30.0}
    assert drops(entries, 10) == [b"other"]
    entries[b"model"] = Kept(0, 30.0)  # it has come back
    assert drops(entries, 10, in_use={b"model"}) == [b"sampled"]


def test_only_the_longest_path_above_counts():
    """A sum over all paths would double with each diamond of a ladder."""
    entries = {b"0": Kept(100**50, 1.0)}
    for i in range(1, 50):
        above = b"%d" % (i - 1)
        entries[b"%d" % i] = Kept(100 ** (50 - i), 1.0, sources=(above, above))
    assert plan_drops(entries, 0).seconds[b"49"] == 50


def test_shared_memory_counts_once_and_goes_with_its_last_holder():
    entries = {b"model": Kept(1, 9.0, {SHARED: 1000}), b"lora": Kept(1, 1.0, {SHARED: 1000})}
    assert total_bytes(entries) == 1002
    assert plan_drops(entries, 1001).bytes_after == 1001
    plan = plan_drops(entries, 500)
    assert plan.drops == [b"lora", b"model"] and plan.bytes_after == 0


def test_what_shares_its_memory_with_a_result_in_use_is_small():
    entries = {
        b"used": Kept(1, 1.0, {SHARED: 1000}), b"lora": Kept(1, 1.0, {SHARED: 1000}), b"big": Kept(100, 1.0),
    }  # fmt: skip
    assert drops(entries, 1002, in_use={b"used"}) == [b"big"]


def test_the_number_of_results_is_limited_as_well():
    entries = {b"%d" % i: Kept(1, 1.0 + i) for i in range(10)}
    assert drops(entries, 1000, most=7) == [b"0", b"1", b"2"]


kept = st.builds(
    Kept,
    st.integers(0, 1000),
    st.floats(0, 100),
    st.dictionaries(st.integers(0, 4), st.just(500), max_size=2),
    st.integers(0, 9),
    st.lists(st.sampled_from([b"%d" % i for i in range(12)]), max_size=3).map(tuple),
)
stores = st.lists(kept, max_size=12).map(lambda many: {b"%d" % i: one for i, one in enumerate(many)})


@settings(max_examples=60, deadline=None)
@given(stores, st.integers(0, 8000), st.sets(st.integers(0, 11)), st.randoms())
def test_the_budget_holds_and_the_plan_is_one_and_true(entries, budget, used, shuffling):
    in_use = {b"%d" % i for i in used}
    plan = plan_drops(entries, budget, in_use=in_use, now=9)
    left = {key: one for key, one in entries.items() if key not in plan.drops}
    assert plan.bytes_after == total_bytes(left)
    assert plan.bytes_after <= budget or left.keys() <= in_use
    assert not in_use & set(plan.drops) and len(set(plan.drops)) == len(plan.drops)
    before_last = {key: one for key, one in entries.items() if key not in plan.drops[:-1]}
    assert not plan.drops or total_bytes(before_last) > budget
    mixed = list(entries.items())
    shuffling.shuffle(mixed)
    assert plan_drops(dict(mixed), budget, in_use=in_use, now=9).drops == plan.drops


@settings(max_examples=40, deadline=None)
@given(stores, st.integers(0, 8000), st.integers(0, 8000))
def test_a_smaller_budget_drops_the_same_and_more(entries, one, other):
    less, more = sorted((one, other), reverse=True)
    few, many = drops(entries, less), drops(entries, more)
    assert many[: len(few)] == few


@settings(max_examples=40, deadline=None)
@given(stores, st.integers(0, 9000), st.data())
def test_what_is_no_smaller_and_no_dearer_never_outlives(entries, budget, data):
    size, larger = data.draw(st.integers(1, 500)), data.draw(st.integers(0, 500))
    seconds, dearer = data.draw(st.floats(0.1, 50)), data.draw(st.floats(0, 50))
    entries = {
        **entries, b"large and cheap": Kept(size + larger, seconds, used=5),
        b"small and dear": Kept(size, seconds + dearer, used=5),
    }  # fmt: skip
    gone = drops(entries, budget, now=9)
    if (larger or dearer) and b"small and dear" in gone:
        assert b"large and cheap" in gone[: gone.index(b"small and dear")]

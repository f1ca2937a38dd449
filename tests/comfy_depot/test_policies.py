"""Eviction policies: each by hand on small traces, all of them against their promises on random ones."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import eviction_traces
from comfy_depot import forecast, replay
from comfy_depot.policies import LRU, POLICIES, SERVING, SIEVE, GreedyDual, Key, Policy, SimulatedCache
from tests.fakes import plain_forecast

NAMES = "abcdefgh"


def key(name: str) -> Key:
    return ("loras", name)


def use_all(policy: Policy, names: Iterable[str], size: int = 1) -> None:
    for time, name in enumerate(names):
        policy.use(float(time), key(name), size)


def order(policy: Policy) -> str:
    return "".join(name for _, name in policy.first_to_go())


def test_lru_lets_the_longest_unused_go() -> None:
    policy = LRU()
    use_all(policy, "abcab")
    assert order(policy) == "cab"


def test_sieve_passes_over_what_was_used_again_and_takes_its_mark() -> None:
    policy = SIEVE()
    use_all(policy, "abcda")
    assert order(policy) == "bcda"
    policy.gone(key("b"))  # the hand went over a, which has no mark any more
    use_all(policy, "e")
    assert order(policy) == "cdea", "the hand goes on where it is, and around"
    use_all(policy, "c")
    policy.gone(key("d"))
    assert order(policy) == "eac"


def test_sieve_goes_around_once_when_all_are_marked() -> None:
    policy = SIEVE()
    use_all(policy, "abcabc")
    assert order(policy) == "abc"
    policy.gone(key("a"))
    use_all(policy, "c")
    assert order(policy) == "bc", "b has lost its mark when the hand went around"


def test_greedy_dual_counts_uses_per_byte_and_lets_old_fame_fade() -> None:
    policy = GreedyDual(by_size=True)
    policy.use(0, key("large"), 4_000_000_000)
    policy.use(1, key("large"), 4_000_000_000)
    policy.use(2, key("small"), 1_000_000_000)
    assert [name for _, name in policy.first_to_go()] == ["large", "small"]
    by_count = GreedyDual(by_size=False)
    use_all(by_count, "aaab")
    for name in "bcdef":  # each new one begins with the count of the one that left
        by_count.gone(key(name))
        by_count.use(9, key(chr(ord(name) + 1)), 1)
    assert order(by_count) == "ag", "a was used three times, long ago"


@pytest.mark.parametrize("name", POLICIES)
@given(steps=st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=60))
@settings(max_examples=25, deadline=None)
def test_each_policy_names_what_is_on_the_disk_once_and_looking_changes_nothing(
    name: str, steps: list[tuple[str, bool]]
) -> None:
    policy, untouched, there = POLICIES[name](5), POLICIES[name](5), set()
    for time, (letter, leaves) in enumerate(steps):
        for one in (policy, untouched):
            if leaves:
                one.gone(key(letter))
            else:
                one.use(time, key(letter), 1 + ord(letter) % 3)
        (there.discard if leaves else there.add)(key(letter))
        next(policy.first_to_go(), None)  # a look that ends early
        assert sorted(policy.first_to_go()) == sorted(there)
    assert list(policy.first_to_go()) == list(untouched.first_to_go())


def test_a_simulated_disk_never_holds_more_than_its_size() -> None:
    cache, chance = SimulatedCache(LRU(), 100), random.Random(1)
    there: dict[Key, int] = {}
    for time in range(500):
        name = key(chance.choice(NAMES))
        assert cache.use(time, name, 10 + ord(name[1]) % 40) == (name in there)
        there = {one: 10 + ord(one[1]) % 40 for one in cache.policy.first_to_go()}
        assert sum(there.values()) <= 100 and name in there
    assert not cache.use(500, key("huge"), 101) and key("huge") not in set(cache.policy.first_to_go())


def missed(name: str, trace: replay.Trace, share: float) -> tuple[float, float]:
    """Bytes missed and misses, as ratios to LRU."""
    size = int(trace.distinct_bytes() * share)
    ours, lru = replay.replay(trace, size, name), replay.replay(trace, size, "lru")
    return ours.bytes_missed / lru.bytes_missed, ours.misses / lru.misses


@pytest.mark.parametrize("kind", ["steep", "many tenants", "scans"])
def test_forecast_misses_less_than_lru_on_traffic_of_workflows(kind: str) -> None:
    of_bytes, of_objects = missed("forecast", eviction_traces.traces(kind, 11, 6000), 0.05)
    assert of_bytes < 0.98 and of_objects < 0.9


def test_forecast_keeps_up_with_lru_where_the_last_use_is_all_there_is_to_know() -> None:
    of_bytes, of_objects = missed("forecast", eviction_traces.traces("recency only", 11, 6000), 0.05)
    assert of_bytes < 1.02 and of_objects < 1.02


def test_forecast_turns_to_lru_when_rates_mislead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast.ByRate, "_lowest", lambda self, count: sorted(  # most recently used first
        self._scales, key=lambda name: -self._rates.last_use(name))[:count])
    trace = eviction_traces.traces("recency only", 3, 6000)
    assert missed("forecast", trace, 0.1)[0] < 1.2, "most recently used first alone misses many times as much"


@pytest.mark.parametrize("kind", [*eviction_traces.KINDS, "recency only"])
def test_forecast_decides_as_its_plain_formulas_do(kind: str) -> None:
    trace = eviction_traces.traces(kind, 5, 700)
    size = int(trace.distinct_bytes() * 0.05)
    quick, plain = forecast.Forecast(size), plain_forecast.Forecast(size)
    caches = SimulatedCache(quick, size), SimulatedCache(plain, size)
    for when, name, bytes_of_use in trace:
        was_there = {cache.use(when, name, bytes_of_use) for cache in caches}
        assert len(was_there) == 1
    assert list(quick.first_to_go()) == list(plain.first_to_go())


def test_forecast_learns_that_a_scan_is_not_worth_keeping() -> None:
    policy = POLICIES["forecast"](20)
    for turn in range(300):
        use_all(policy, "abcdefgh")
        policy.use(0, key(f"once{turn}"), 1)
        policy.gone(key(f"once{turn - 3}"))
    assert [name for _, name in policy.first_to_go()][:3] == ["once297", "once298", "once299"], (
        "LRU would let a go before the last of the scan")


def test_forecast_forgets_the_models_that_were_not_used_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_MOST_REMEMBERED", 100)
    rates = forecast.Rates()
    for number in range(1000):
        rates.use(key(str(number)))
    assert len(rates.states) <= 100 + 64 and rates.last_use(key("999")) == 1000
    assert rates.last_use(key("0")) == 0
    order = forecast.ByRate(rates)
    for name in ("999", "0", "998"):
        order.use(0, key(name), 1)
    assert [name for _, name in order.first_to_go()] == ["0", "998", "999"], "what was forgotten goes first"


def test_production_may_choose_policies_that_a_replay_knows() -> None:
    assert set(SERVING) <= set(POLICIES) and SERVING[0] == "lru"

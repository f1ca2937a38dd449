"""Replaying traces: what is read, what is counted, and that nothing beats the bound."""

from __future__ import annotations

import pytest

from benchmarks import eviction_traces
from comfy_depot import replay
from comfy_depot.access import Access
from comfy_depot.options import Budget
from comfy_depot.policies import POLICIES
from comfy_depot.replay import Trace


def trace_of(names: str, size: int = 10) -> Trace:
    return Trace.of((float(time), ("", name), size) for time, name in enumerate(names))


def test_misses_are_counted_by_number_and_by_bytes() -> None:
    result = replay.replay(trace_of("abacab"), 20, "lru")
    assert (result.misses, result.bytes_missed) == (4, 40)  # a b - c - b
    assert result.object_miss_ratio == result.byte_miss_ratio == 4 / 6


def test_belady_keeps_what_comes_next() -> None:
    assert replay.replay(trace_of("abcabcabc"), 20, "lru").misses == 9
    assert replay.replay(trace_of("abcabcabc"), 20, "belady").misses == 6


def test_a_model_larger_than_the_disk_is_missed_and_evicts_nothing() -> None:
    trace = Trace.of([(0, ("", "a"), 10), (1, ("", "b"), 99), (2, ("", "a"), 10), (3, ("", "b"), 99)])
    for policy in (*POLICIES, "belady"):
        result = replay.replay(trace, 20, policy)
        assert (result.misses, result.bytes_missed) == (3, 208), policy


def test_no_policy_goes_below_the_bound() -> None:
    trace = eviction_traces.traces("default", 0, 2000)
    for share in (0.02, 0.2, 1.0):
        size = replay.disk_bytes(trace, Budget(share=share))
        bound = replay.replay(trace, size, "bound")
        for policy in (*POLICIES, "belady"):
            result = replay.replay(trace, size, policy)
            assert result.misses >= bound.misses - 1e-6, policy
            assert result.bytes_missed >= bound.bytes_missed * (1 - 1e-9), policy
    assert bound.misses == result.misses == len(trace.keys), "with room for all only first uses miss"


def test_the_columns_of_the_log_are_read_newest_first_or_not() -> None:
    lines = ["time,folder,name,prompt,node,tenant,bytes,outcome", "2.5,loras,a,p,4,,10,hit",
             "1.5,loras,b,p,4,,20,hit", "", "0.5,loras,a,p,4,,10,fetched"]
    assert list(replay.read_csv(lines, shown_as="t")) == [
        (0.5, ("loras", "a"), 10), (1.5, ("loras", "b"), 20), (2.5, ("loras", "a"), 10)]


def test_uses_in_any_order_are_sorted_by_time() -> None:
    lines = ["key,size,time", "b,1,2", "a,1,1", "c,1,3"]
    assert [key for _, (_, key), _ in replay.read_csv(lines, shown_as="t")] == ["a", "b", "c"]


def test_times_and_sizes_may_be_written_for_people_and_a_missing_size_is_taken_from_elsewhere() -> None:
    lines = ["time,model,size", "1970-01-01T00:00:10Z,x,2K", "11,x,"]
    assert list(replay.read_csv(lines, shown_as="t")) == [(10.0, ("", "x"), 2048), (11.0, ("", "x"), 2048)]


@pytest.mark.parametrize(
    "lines, words",
    [
        ([], "t.csv: the first line names no time, model and size. Write the columns time,key,size"),
        (["1,a,2"], "the first line names no time"),
        (["time,key,size", "1,a,2", "soon,a,2"], "t.csv, line 3: .*soon.*Write the columns"),
        (["time,key,size", "nan,a,2"], "line 2: 'nan' is no time"),
        (["time,key,size", "1,a,big"], "line 2: 'big' is not a size"),
        (["time,key,size", "1,a"], "line 2: "),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(lines: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replay.read_csv(lines, shown_as="t.csv")


def test_the_access_log_is_a_trace() -> None:
    rows = [Access(time, "loras", "a", "p", "1", None, 5, "hit") for time in (2.0, 1.0)]
    assert [time for time, _, _ in replay.of_log(rows)] == [1.0, 2.0]


def test_generated_traces_have_models_of_all_sizes_and_workflows_that_belong_together() -> None:
    trace = eviction_traces.traces("default", 0, 5000)
    sizes = {key: size for _, key, size in trace}
    assert min(sizes.values()) >= 20_000_000 and 20e9 < max(sizes.values()) <= 24e9
    together = {key[0] for time, key, _ in trace if time == trace.times[0]}
    assert {"checkpoints", "vae"} <= together
    assert list(trace) == list(eviction_traces.traces("default", 0, 5000)), "the seed decides"

"""How many calls are served at once: measured, and no more than pays."""

import pytest

from comfy_execution.merge_sizes import Profile, next_size

INFINITE = float("inf")


@pytest.mark.parametrize(("seconds", "limit", "expected"), [
    ({}, 8, 1),  # first learn what one takes
    ({1: 1.0}, 8, 2),
    ({1: 1.0}, 1, 1),
    ({1: 1.0, 2: 0.6}, 8, 4),  # it pays: try more
    ({1: 1.0, 2: 0.6}, 3, 3),
    ({1: 1.0, 2: 0.6, 4: 0.4}, 4, 4),
    ({1: 1.0, 2: 0.6, 4: 0.59}, 8, 4),  # it hardly pays: no more
    ({1: 1.0, 2: 0.6, 4: 0.7}, 8, 2),
    ({1: 1.0, 2: 0.99}, 8, 2),
    ({1: 1.0, 2: 1.2}, 8, 1),  # on this machine it does not pay at all
    ({1: 1.0, 2: 0.6, 4: INFINITE}, 8, 2),  # memory was full
    ({1: 1.0, 2: INFINITE}, 8, 1),
    ({1: 1.0, 2: 0.6, 3: 0.5}, 8, 6),  # so many waited
    ({1: 1.0, 2: 0.6, 4: 0.3, 8: 0.2}, 4, 4),  # the limit is smaller after a restart
])  # fmt: skip
def test_more_at_once_are_tried_as_long_as_it_pays(seconds, limit, expected):
    assert next_size(seconds, limit) == expected


def test_a_profile_keeps_kinds_apart_and_follows_slowly():
    profile = Profile()
    profile.note("a", 1, 1.0)
    assert (profile.next_size("a", 8), profile.next_size("b", 8)) == (2, 1)
    profile.note("a", 2, 1.0)  # 0.5 each
    profile.note("a", 2, 8.0)  # one slow run does not turn it around at once
    assert profile.next_size("a", 8) == 1
    for _ in range(20):
        profile.note("a", 2, 1.0)
    assert profile.next_size("a", 8) == 4
    profile.note_failure("a", 4)
    assert profile.next_size("a", 8) == 2


def test_it_remembers_some_kinds_only():
    profile = Profile()
    for number in range(2000):
        profile.note(number, 1, 1.0)
    assert (profile.next_size(0, 4), profile.next_size(1999, 4)) == (1, 2)

"""The rate that is shown: steady where the link is steady, and not before anything can be said."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from comfy_depot import rate
from comfy_depot.rate import ByteRate

LINK = 20_000_000  # bytes per second
LOOKS = [n * 0.02 for n in range(1, 11)] + [0.2 + n * 0.2 for n in range(1, 60)]
"""Seconds at which a download is looked at: often until something has come."""


def shown(samples: Iterable[tuple[float, int]], of: ByteRate | None = None) -> list[float]:
    """The rate after each (time, bytes that are there)."""
    measured, found = of or ByteRate(), []
    for now, done in samples:
        measured.see(now, done)
        found.append(measured.bytes_per_second)
    return found


@pytest.mark.parametrize("kept", [0, 5_000_000_000])
@pytest.mark.parametrize("burst", [0, 8_000_000])
def test_a_steady_link_has_a_steady_rate_from_the_first_value_on(kept: int, burst: int) -> None:
    """Whatever was there before, and whatever the buffers on the way give at once."""
    begins = 0.1
    samples = [(now, kept + (burst + int((now - begins) * LINK) if now > begins else 0)) for now in LOOKS]
    rates = [one for one in shown(samples) if one]
    assert len(rates) > 50 and all(one == pytest.approx(LINK, rel=0.01) for one in rates)


def test_nothing_is_shown_before_a_moment_of_it_was_seen() -> None:
    samples = [(now, int(now * LINK)) for now in LOOKS]
    early = [one for one, (now, _) in zip(shown(samples), samples, strict=True)
             if now < LOOKS[0] + rate.SECONDS_TO_KNOW - 0.001]
    assert early and not any(early)


def test_bytes_that_come_in_lumps_make_it_waver_a_little_only() -> None:
    samples = [(n * 0.2, int(n // 4 * 0.8 * LINK)) for n in range(100)]
    rates = shown(samples)[30:]
    assert all(0.75 * LINK < one < 1.25 * LINK for one in rates)


def test_a_change_of_the_link_is_seen_within_seconds_and_never_overshot() -> None:
    measured, done, rates = ByteRate(), 0, []
    for n in range(150):
        done += int(LINK * 0.2) if n < 50 else int(LINK * 0.05)
        rates += shown([(n * 0.2, done)], measured)
    after = rates[50:]
    assert after == sorted(after, reverse=True) and after[-1] == pytest.approx(LINK / 4, rel=0.02)
    assert after[5 * 10] < 0.3 * LINK  # ten seconds later


def test_a_link_that_brings_nothing_goes_towards_zero() -> None:
    measured = ByteRate()
    shown(((n * 0.2, int(n * 0.2 * LINK)) for n in range(50)), measured)
    rates = shown(((10 + n * 0.2, int(9.8 * LINK)) for n in range(50)), measured)
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.05 * LINK


def test_after_a_pause_it_begins_anew() -> None:
    measured = ByteRate()
    shown(((n * 0.2, n * LINK) for n in range(40)), measured)
    assert measured.bytes_per_second == pytest.approx(5 * LINK)
    begins = 7.8 + rate.SECONDS_TO_FORGET + 1
    again = shown(((begins + n * 0.2, (40 + n) * LINK // 5) for n in range(30)), measured)
    assert again[0] == 0 and again[-1] == pytest.approx(LINK, rel=0.01)


@pytest.mark.parametrize("kept", [1.0, 0.9, 0.0])
def test_another_connection_after_a_moment_goes_on_with_what_is_known(kept: float) -> None:
    """Also where some of what had come is fetched again."""
    measured = ByteRate()
    shown(((n * 0.2, int(n * 0.2 * LINK)) for n in range(50)), measured)
    there = kept * 9.8
    rates = shown([(10.3 + n * 0.2, int((there + n * 0.2) * LINK)) for n in range(10)], measured)
    assert all(0.8 * LINK < one <= 1.05 * LINK for one in rates)

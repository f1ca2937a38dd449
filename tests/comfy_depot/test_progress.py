"""What stands beside a progress bar."""

from __future__ import annotations

import pytest

from comfy_depot.progress import shown_rate, shown_time


@pytest.mark.parametrize(("seconds", "text"), [
    (None, ""), (0.2, "0:00"), (59.6, "1:00"), (123, "2:03"), (3723, "1:02:03"), (90_000, "25:00:00"),
])  # fmt: skip
def test_the_time_left_is_shown_as_clocks_do(seconds: float | None, text: str) -> None:
    assert shown_time(seconds) == text


def test_a_rate_has_a_unit_and_one_that_is_not_known_is_not_shown() -> None:
    assert (shown_rate(4_404_019), shown_rate(0)) == ("4.2 MiB/s", "")

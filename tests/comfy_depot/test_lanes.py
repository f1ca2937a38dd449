"""Who waits for a model has the link: the others get what is left."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from comfy_depot import lanes
from comfy_depot.lanes import FLOOR_SHARE, Governor, Lanes
from comfy_depot.services import Priority
from tests.fakes.fetching import entry, transfers, until
from tests.fakes.origin import Origin, safetensors

MB = 1_000_000


def follow(link: float, *, most: float = math.inf, seconds: float = 60.0) -> list[tuple[float, float, float]]:
    """(time, rate of the urgent class, rate of the others) when both share a link of so many MB/s, the others
    take all they may, and the urgent class can take `most` at best.
    """
    governor, now, urgent, rows = Governor(0.0), 0.0, 0.0, []
    while now < seconds:
        now += lanes.TICK_SECONDS
        others = min(governor.rate, link * MB)
        rate = min(most * MB, max(link * MB - others, link * MB * 0.1))
        others = min(others, link * MB - rate)
        urgent += rate * lanes.TICK_SECONDS
        governor.look(now, int(urgent))
        rows.append((now, rate / MB, others / MB))
    return rows


def test_on_a_link_that_is_full_the_others_get_a_tenth_at_most_whatever_is_tried() -> None:
    rows = follow(40.0)
    urgent, others = sum(row[1] for row in rows), sum(row[2] for row in rows)
    assert urgent / (urgent + others) > 0.92
    worst = min(sum(row[1] for row in rows[start:start + 40]) for start in range(0, len(rows) - 40, 10))
    assert worst / 40 > 0.85 * 40, "no two seconds in which the one who waits is much slower"


def test_where_the_urgent_one_cannot_use_the_link_the_others_get_the_rest() -> None:
    rows = follow(40.0, most=10.0)
    assert sum(urgent for _, urgent, _ in rows) / len(rows) > 9.0
    assert next(now for now, _, others in rows if others > 19) < 6
    assert sum(others for _, _, others in rows[len(rows) // 2:]) / len(rows) * 2 > 15


def test_an_urgent_download_to_which_nothing_comes_holds_nobody_up_for_long() -> None:
    governor = Governor(0.0)
    rates = {number / 10: governor.look(number / 10, 0) for number in range(1, 30)}
    assert rates[1.0] == lanes.LEAST_RATE and math.isinf(rates[2.5])


def test_another_urgent_download_makes_the_others_wait_again() -> None:
    governor = Governor(0.0)
    for number in range(1, 200):
        governor.look(number / 10, number * MB)  # 10 MB/s, and never slower
    assert math.isinf(governor.rate)
    governor.restart(20.0)
    assert governor.rate == pytest.approx(FLOOR_SHARE * 10 * MB, rel=0.01)
    for number in range(1, 8):  # and as that one is not slower either, they soon have what they had
        governor.look(20.0 + number / 10, (200 + number) * MB)
    assert math.isinf(governor.rate)


def test_a_lane_of_one_class_takes_all_and_asks_nobody() -> None:
    all_lanes = Lanes()
    lane = all_lanes.enter("a", 2)
    assert lane.take(1 << 18) == 1 << 18 and not all_lanes.is_contended


def test_the_less_urgent_of_two_waits_until_the_other_has_left() -> None:
    all_lanes = Lanes()
    low, high = all_lanes.enter("a", 1), all_lanes.enter("b", 0)
    assert high.take(1 << 18) == 1 << 18
    taken: list[int] = []

    def read() -> None:
        while len(taken) < 100:
            taken.append(low.take(1 << 18))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    time.sleep(0.15)
    assert sum(taken) <= 3 * lanes.CHUNK_BYTES
    high.leave()
    thread.join(2)
    assert taken[-1] == 1 << 18


def test_a_lane_that_becomes_urgent_waits_no_longer_and_one_that_is_shut_does_not_either() -> None:
    all_lanes = Lanes()
    all_lanes.enter("b", 0)
    for free in ("move", "leave"):
        low = all_lanes.enter("a", 2)
        all_lanes._free_at[2] = time.monotonic() + 5  # so many wait before this one
        thread = threading.Thread(target=low.take, args=(1 << 18,), daemon=True)
        thread.start()
        low.move(0) if free == "move" else low.leave()
        thread.join(0.5)
        assert not thread.is_alive()


@pytest.mark.slow
def test_demand_has_nine_tenths_of_a_full_link_while_four_preloads_run(tmp_path: Path) -> None:
    body = safetensors(48 << 20)
    with Origin(rate_total=32 << 20) as origin, transfers(tmp_path, depot_connections=4) as ours:
        urls = [origin.put(f"/{n}", body, etag='"x"') for n in range(5)]
        ahead = [ours.fetch(entry(url, name=f"{n}.safetensors"), tmp_path / f"{n}.safetensors",
                            priority=Priority.PRELOAD) for n, url in enumerate(urls[:4])]
        until(lambda: all(one.bytes_per_second for one in ahead))
        wanted = ours.fetch(entry(urls[4], name="4.safetensors"), tmp_path / "4.safetensors")
        until(lambda: origin.bytes_sent("/4") > 0)
        time.sleep(0.3)
        before = [origin.bytes_sent(f"/{n}") for n in range(5)]
        time.sleep(0.3)
        came = [origin.bytes_sent(f"/{n}") - past for n, past in enumerate(before)]
        assert came[4] / sum(came) > 0.8
        wanted.stop()
        until(lambda: wanted.is_finished)
        before = [origin.bytes_sent(f"/{n}") for n in range(4)]
        until(lambda: all(origin.bytes_sent(f"/{n}") > past + (1 << 20) for n, past in enumerate(before)))

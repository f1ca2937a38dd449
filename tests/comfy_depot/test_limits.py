"""Limits: requests in a moving minute, bytes shared by the transfers of a host."""

from __future__ import annotations

import time
from pathlib import Path

from comfy_depot.limits import MemoryLimits, Quota
from tests.fakes.fetching import entry, transfers, until
from tests.fakes.origin import Origin, safetensors, sha256

MIB = 1 << 20


def test_a_host_has_its_own_limit_or_that_of_each_other_host() -> None:
    quota = Quota(100, (("a.example", 7), ("*", 300)))
    assert [quota.of("A.example"), quota.of("b.example")] == [7, 300]
    assert [quota.least("a.example"), quota.least("b.example"), Quota().least("a")] == [7, 100, 0]


def test_without_limits_nothing_waits() -> None:
    assert MemoryLimits().take("a", 1000) == 0 and MemoryLimits().bytes_per_second("a") == 0


def test_requests_of_a_minute_are_taken_all_or_none() -> None:
    limits = MemoryLimits(requests=Quota(10, (("a", 4),)))
    assert limits.take("a", 3) == 0
    assert 50 < limits.take("a", 2) <= 60
    assert limits.take("a", 1) == 0, "the refused request has taken something"
    assert limits.take("b", 6) == 0
    assert limits.take("b", 1) > 0, "the total is spent"


def test_more_requests_than_a_minute_has_take_the_whole_minute() -> None:
    limits = MemoryLimits(requests=Quota(hosts=(("a", 4),)))
    assert limits.most_requests("a") == 4
    assert limits.take("a", 8) == 0 and limits.take("a", 1) > 0


def test_the_bytes_of_a_host_are_shared_by_its_transfers() -> None:
    limits = MemoryLimits(rate=Quota(hosts=(("a", 900),)))
    with limits.share("a"), limits.share("a"), limits.share("b"):
        assert [limits.bytes_per_second("a"), limits.bytes_per_second("b")] == [450, 0]
    assert limits.bytes_per_second("a") == 900


def test_a_transfer_waits_for_its_turn_and_says_so(tmp_path: Path) -> None:
    class OneAtATime(MemoryLimits):
        open = False

        def take(self, source: str, requests: int) -> float:
            return 0.0 if self.open else 0.05

    limits = OneAtATime()
    with Origin() as origin, transfers(tmp_path, limits=limits) as ours:
        url = origin.put("/a", safetensors(2000))
        transfer = ours.fetch(entry(url), tmp_path / "models" / "a.safetensors")
        until(lambda: transfer.state == "waiting")
        time.sleep(0.2)
        assert origin.log == [] and not transfer.is_finished
        limits.open = True
        assert transfer.wait().exists()


def test_the_rate_of_a_host_is_held(tmp_path: Path) -> None:
    body, rate = safetensors(2 * MIB), Quota(hosts=(("127.0.0.1", 4 * MIB),))
    with Origin() as origin, transfers(tmp_path, depot_rate=rate) as ours:
        started = time.monotonic()
        ours.fetch(entry(origin.put("/a", body)), tmp_path / "models" / "a.safetensors").wait()
    assert time.monotonic() - started > 0.3


def test_a_start_takes_one_request_per_connection_and_no_more_than_there_are(tmp_path: Path) -> None:
    body, limits = safetensors(3 * MIB), MemoryLimits(requests=Quota(hosts=(("127.0.0.1", 3),)))
    with Origin() as origin, transfers(tmp_path, limits=limits) as ours:
        url = origin.put("/a", body)
        ours.fetch(entry(url, sha256=sha256(body)), tmp_path / "models" / "a.safetensors").wait()
    assert limits.take("127.0.0.1", 1) > 0


def test_of_a_hosts_rate_those_who_wait_share_nineteen_parts_and_the_others_one() -> None:
    limits = MemoryLimits(Quota(hosts=(("a.example", 2000),)))
    share = limits.share
    with share("a.example"), share("a.example", lambda: 1), share("a.example", lambda: 2):
        assert limits.bytes_per_second("a.example") == 1900
        assert limits.bytes_per_second("a.example", 1) == limits.bytes_per_second("a.example", 2) == 50
        with limits.share("a.example"):
            assert limits.bytes_per_second("a.example") == 950
    with limits.share("a.example", lambda: 1):
        assert limits.bytes_per_second("a.example", 1) == 2000

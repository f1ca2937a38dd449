"""Mirrors in the order of what was measured, which is forgotten slowly."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_depot import speeds as speeds_module
from comfy_depot.speeds import HALF_LIFE_SECONDS, UNKNOWN, Speeds
from tests.fakes.fetching import entry, transfers
from tests.fakes.origin import Origin, safetensors, sha256

MIB = 1 << 20


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def host(url: str) -> str:
    return url


def test_fast_hosts_come_first_and_equal_ones_stay_as_they_are(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path)
    assert speeds.in_order(["b", "a"], host) == ["b", "a"]
    speeds.note("a", 100 * MIB, 1)
    speeds.note("c", 100 * MIB, 100)
    assert speeds.in_order(["c", "b", "a", "d"], host) == ["a", "b", "d", "c"]


def test_a_fast_host_that_fails_comes_last_all_the_same(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path)
    speeds.note("a", 1000 * MIB, 1)
    speeds.note_failure("a")
    speeds.note("b", MIB, 1)
    assert speeds.in_order(["a", "b"], host) == ["b", "a"]


def test_another_process_knows_it_too_and_the_file_holds_hosts_only(tmp_path: Path) -> None:
    Speeds(tmp_path).note("a.example", 100 * MIB, 1)
    assert Speeds(tmp_path).of("a.example") > UNKNOWN
    assert [file.name for file in tmp_path.iterdir()] == ["speeds.json"]


def test_what_was_measured_is_forgotten_by_halves(tmp_path: Path) -> None:
    clock = Clock()
    speeds = Speeds(tmp_path, clock)
    speeds.note_failure("a")
    assert speeds.of("a") < UNKNOWN / 100
    clock.now += HALF_LIFE_SECONDS
    assert UNKNOWN * 0.49 < speeds.of("a") < UNKNOWN * 0.51


def test_a_few_bytes_are_no_measurement_and_the_file_does_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speeds_module, "MOST_HOSTS", 20)
    speeds = Speeds(tmp_path)
    speeds.note("a", 1000, 10)
    assert not speeds.file.exists()
    for number in range(25):
        speeds.note(f"h{number}", MIB, 1)
    assert len(speeds._read()) == 20


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path)
    speeds.file.write_text('{"a": 3}')
    assert speeds.of("a") == UNKNOWN
    speeds.note("a", 100 * MIB, 1)
    assert speeds.of("a") > UNKNOWN


def test_a_mirror_that_sent_wrong_bytes_is_asked_last_the_next_time(tmp_path: Path) -> None:
    good, bad = safetensors(MIB, 1), safetensors(MIB, 2)
    with Origin() as origin, transfers(tmp_path) as ours:
        first, second = origin.put("/bad", bad), origin.at("localhost", origin.put("/good", good))
        for name in ("a", "b"):
            origin.log.clear()
            wanted = entry(first, second, name=name, sha256=sha256(good))
            assert ours.fetch(wanted, tmp_path / "m" / name).wait().read_bytes() == good
        assert origin.hits("/bad") == [], "the mirror with wrong bytes was asked first again"

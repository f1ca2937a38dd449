"""Leases: one holder over threads and processes, and whoever comes next has it at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from comfy_depot.layout import Layout
from comfy_depot.leases import FileLeases
from tests.fakes.fetching import until


def test_threads_take_turns_and_the_waiting_one_is_asked_meanwhile(tmp_path: Path) -> None:
    place, leases = Layout(tmp_path).place(tmp_path / "a"), FileLeases()
    place.lock.parent.mkdir()
    inside: list[int] = []
    most: list[int] = []
    asked: list[float] = []

    def work() -> None:
        with leases.hold(place, on_wait=lambda: asked.append(time.monotonic())):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1] and asked


def test_who_waits_may_give_up(tmp_path: Path) -> None:
    place, leases = Layout(tmp_path).place(tmp_path / "a"), FileLeases()
    place.lock.parent.mkdir()

    def give_up() -> None:
        raise TimeoutError

    with leases.hold(place, on_wait=lambda: None):
        with pytest.raises(TimeoutError), leases.hold(place, on_wait=give_up):
            pass
    until(lambda: not place.lock.exists())

"""Work in the background gives way, and the thread beside it does not."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace

import psutil
import pytest

from comfy_depot import background


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux has priorities of threads")
def test_one_thread_is_lowered_and_no_other() -> None:
    found = {}

    def work() -> None:
        thread = threading.get_native_id()
        background.lower_priority()
        found["nice"] = os.getpriority(os.PRIO_PROCESS, thread)
        found["disk"] = psutil.Process(thread).ionice().ioclass

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), psutil.Process().ionice()
    one = threading.Thread(target=work)
    one.start()
    one.join()
    assert found == {"nice": 19, "disk": psutil.IOPRIO_CLASS_IDLE}
    assert before == (os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), psutil.Process().ionice())


@pytest.mark.parametrize(("battery", "is_on"), [
    (None, False),
    (SimpleNamespace(power_plugged=True), False),
    (SimpleNamespace(power_plugged=False), True),
    (SimpleNamespace(power_plugged=None), False),  # it does not tell
])  # fmt: skip
def test_a_machine_without_a_plug_lives_on_its_battery(
    monkeypatch: pytest.MonkeyPatch, battery: object, is_on: bool
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert background.is_on_battery() is is_on

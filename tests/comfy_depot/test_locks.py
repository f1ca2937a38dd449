"""The lock file that processes share."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from comfy_depot.locks import file_lock

HOLDER = """
import sys, time
from pathlib import Path
from comfy_depot.locks import file_lock
with file_lock(Path(sys.argv[1]), on_wait=lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        waits: list[float] = []

        def on_wait() -> None:
            waits.append(time.monotonic())
            if len(waits) == 2:
                holder.kill()

        with file_lock(path, on_wait=on_wait, pause=0.02):
            assert len(waits) >= 2
            assert time.monotonic() - waits[1] < 2


def test_the_one_who_waits_may_give_up_and_the_file_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def give_up() -> None:
        raise TimeoutError

    with file_lock(path, on_wait=give_up), pytest.raises(TimeoutError), file_lock(path, on_wait=give_up):
        pass
    assert not path.exists()
    with file_lock(path, on_wait=give_up):
        pass

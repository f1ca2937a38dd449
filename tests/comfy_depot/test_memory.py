"""The memory that counts is the smallest of what the machine and the groups around the process allow."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from comfy_depot import memory

TOTAL = psutil.virtual_memory().total


@pytest.mark.parametrize("own, limits, expected", [
    ("0::/a/b\n", {}, TOTAL),
    ("0::/a/b\n", {"a/b/memory.max": "max"}, TOTAL),
    ("0::/a/b\n", {"a/b/memory.max": "4096"}, 4096),
    ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "8192"}, 8192),
    ("0::/outside/of/here\n", {"memory.max": "4096"}, 4096),  # in a container the own path leads nowhere
    ("9:cpu:/x\n4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "4096"}, 4096),
    ("", {"memory/memory.limit_in_bytes": "9223372036854771712"}, TOTAL),  # version 1 has no word for none
])  # fmt: skip
def test_limits_of_containers_count(tmp_path: Path, own: str, limits: dict[str, str], expected: int) -> None:
    for name, text in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own)
    assert memory.bytes_allowed(groups=tmp_path / "groups", own=tmp_path / "own") == expected


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert memory.bytes_allowed(groups=tmp_path / "none", own=tmp_path / "none") == TOTAL

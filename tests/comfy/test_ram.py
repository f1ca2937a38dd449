"""How much RAM there is, also inside a container."""

import psutil
import pytest

from comfy.ram import group_limits, read_ram

GB = 1024**3


def system(root, cgroup, **files):
    """A file system with /proc/self/cgroup and files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_version_2_counts_unused_cache_as_free(tmp_path):
    root = system(
        tmp_path, "0::/\n",
        **{"memory.max": f"{8 * GB}\n", "memory.current": f"{6 * GB}\n",
           "memory.stat": f"anon 5\ninactive_file {2 * GB}\n"},
    )  # fmt: skip
    assert list(group_limits(root)) == [(8 * GB, 4 * GB)]


def test_every_group_above_limits_too(tmp_path):
    root = system(
        tmp_path, "0::/user/app\n",
        **{"user/app/memory.max": "max\n", "user/app/memory.current": "10\n",
           "user/memory.max": "1000\n", "user/memory.current": "300\n"},
    )  # fmt: skip
    assert list(group_limits(root)) == [(1000, 300)]


def test_version_1_and_its_number_for_no_limit(tmp_path):
    root = system(
        tmp_path, "5:cpu:/x\n4:hugetlb,memory:/docker/abc\n0::/\n",
        **{"memory/memory.limit_in_bytes": "5000\n", "memory/memory.usage_in_bytes": "3000\n",
           "memory/memory.stat": "total_inactive_file 1000\n",
           "memory/docker/memory.limit_in_bytes": "9223372036854771712\n",
           "memory/docker/memory.usage_in_bytes": "1\n"},
    )  # fmt: skip
    assert list(group_limits(root)) == [(5000, 2000)]


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/../..\n"])
def test_what_cannot_be_read_is_no_limit(tmp_path, text):
    assert list(group_limits(tmp_path)) == []
    assert list(group_limits(system(tmp_path, text, **{"memory.max": "?"}))) == []


def test_the_smaller_of_machine_and_group_counts(tmp_path):
    machine = psutil.virtual_memory()
    assert read_ram(tmp_path).total == machine.total
    root = system(
        tmp_path, "0::/\n", **{"memory.max": "5000", "memory.current": "9000", "memory.stat": ""}
    )
    ram = read_ram(root)
    assert (ram.total, ram.available) == (5000, 0)

"""What it costs to compute the sha256 of a library in idle time, and how soon it gives way.

    python benchmarks/idle_hashing.py [--folder DIR] [--gigabytes 1] [--stops 30]

Makes files in DIR (on a disk, not in memory), drops them from the page cache, and lets a depot read them
while a prompt comes again and again. Another file lies in the page cache, as a model does that was used.
Printed are the rate, processor seconds per GiB, the longest time from a prompt until no byte is read and no
file is open, and how much of the files the page cache holds before and after.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import statistics
import sys
import tempfile
import threading
import time
from argparse import Namespace
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import comfy_depot  # noqa: E402
import folder_paths  # noqa: E402
from comfy_depot.depot import Depot  # noqa: E402
from comfy_depot.hasher import Hasher  # noqa: E402
from comfy_depot.host import Host, QueuedPrompt  # noqa: E402
from comfy_depot.options import Options  # noqa: E402

MIB = 1 << 20
LONG_AGO = 1_700_000_000


def write(file: Path, size: int) -> Path:
    """A file of random bytes that is on the disk and not in the page cache."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        for _ in range(size // MIB):
            opened.write(os.urandom(MIB))
        opened.flush()
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    os.utime(file, (LONG_AGO, LONG_AGO))
    return file


def share_in_cache(files: list[Path]) -> float:
    """The share of their pages that the page cache holds (mincore)."""
    there = whole = 0
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
            pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
            start = ctypes.c_char.from_buffer(mapped)
            ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages)
            del start
            there, whole = there + sum(page & 1 for page in pages), whole + len(pages)
    return there / whole


def processor_seconds() -> float:
    """Of the thread that reads."""
    (thread,) = [one.native_id for one in threading.enumerate() if one.name == "depot-hash"]
    return sum(one.user_time + one.system_time for one in psutil.Process().threads() if one.id == thread)


def wait_until(depot: Depot, *states: str) -> float:
    """Seconds until the hasher is in one of these states."""
    began = time.perf_counter()
    while depot.hasher.stats()["state"] not in states:
        time.sleep(0.001)
    return time.perf_counter() - began


def measure(depot: Depot, prompts: list[QueuedPrompt], stops: int) -> None:
    """Read the library, with stops on the way."""
    depot.hasher = Hasher(depot, pause=0.05)
    depot.hasher.start()
    size, waits, paused = depot.hasher.stats()["bytes_to_do"], [], 0.0
    began = time.perf_counter()
    for _ in range(stops):
        wait_until(depot, "reading", "done")
        time.sleep(0.1)
        stopped = time.perf_counter()
        prompts.append(QueuedPrompt("p", {}, ()))
        waits.append(wait_until(depot, "waiting", "done"))
        prompts.clear()
        wait_until(depot, "reading", "done")
        paused += time.perf_counter() - stopped
    wait_until(depot, "done")
    seconds = time.perf_counter() - began - paused
    print(f"rate while it reads            {size / seconds / MIB:8.1f} MiB/s")
    print(f"processor seconds per GiB      {processor_seconds() / size * (1 << 30):8.2f}")
    print(f"until it has stopped: median   {statistics.median(waits) * 1000:8.1f} ms")
    print(f"until it has stopped: longest  {max(waits) * 1000:8.1f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--stops", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        base, prompts = Path(folder), list[QueuedPrompt]()
        folder_paths.apply_arguments(Namespace(base_directory=str(base)))
        cold = [write(base / "models" / "loras" / f"{n}.safetensors", 128 * MIB)
                for n in range(max(1, round(arguments.gigabytes * 8)))]
        hot = write(base / "models" / "checkpoints" / "hot.safetensors", 128 * MIB)
        hot.read_bytes()
        before = share_in_cache([hot]), share_in_cache(cold)
        host = Host(queued_prompts=lambda most: prompts[:most])
        options = Options(base / "manifests", depot_dir=base / "depot")
        depot = comfy_depot.start(options, host)
        assert depot is not None
        depot.index.indexer.update()
        depot.hasher.close()
        measure(depot, prompts, arguments.stops)
        print(f"of the hot file in the cache   {before[0]:8.0%} before, {share_in_cache([hot]):.0%} after")
        print(f"of the others in the cache     {before[1]:8.0%} before, {share_in_cache(cold):.0%} after")
        comfy_depot.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

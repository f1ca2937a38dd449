"""Whether several servers that fill one small disk keep its budget: looked at every 10 ms.

    python benchmarks/disk_budget.py [--seconds 20] [--processes 2] [--transfers 4]

Mounts a tmpfs (as root; else a folder in /dev/shm is watched), puts many more models into a manifest than
fit, and lets every process fetch random ones at the same time. Once with `--depot-max-size`, once with the
disk itself and `--depot-reserve` as the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import comfy_depot
import folder_paths
from comfy_depot.errors import DepotError, DiskFull
from comfy_depot.options import Options
from tests.fakes.disk import bytes_on_disk
from tests.fakes.origin import Origin, safetensors

MIB = 1 << 20
DISK = 64 * MIB
MODELS = 40


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a tmpfs of its own, where that may be mounted."""
    shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="depot-budget-", dir=shared))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)],
                             capture_output=True, check=False).returncode == 0
    if not mounted:
        print(f"No tmpfs can be mounted here; {folder} is watched instead; "
              "only --depot-max-size means much then.")
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def work(base: Path, state: Path, seconds: float, transfers: int, max_size: int | None, reserve: int) -> None:
    """One process: fetch random models in several threads; prints what came of it."""
    folder_paths.apply_arguments(Namespace(base_directory=str(base)))
    depot = comfy_depot.start(Options(
        model_manifests=state / "model_manifests", depot_dir=state / "depot", depot_reserve=reserve,
        depot_max_size=max_size, depot_allow_hosts=("127.0.0.1",)))
    assert depot is not None
    counts = {"fetched": 0, "refused": 0, "failed": 0}
    names = [entry.name for entry in depot.catalogue]
    end = time.monotonic() + seconds

    def fetch(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end:
            try:
                depot.fetch("loras", names[min(len(names) - 1, int(chance.paretovariate(0.6)) - 1)])
                counts["fetched"] += 1
            except DiskFull:
                counts["refused"] += 1
                time.sleep(0.05)
            except DepotError as error:
                counts["failed"] += 1
                print(error, file=sys.stderr)

    threads = [threading.Thread(target=fetch, args=(os.getpid() + number,)) for number in range(transfers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    comfy_depot.stop()
    print(json.dumps(counts))


def run(arguments: argparse.Namespace, *, max_size: int | None, reserve: int) -> None:
    """Let the processes work on one disk and report the most that was used."""
    with small_disk() as disk, tempfile.TemporaryDirectory() as aside, Origin(rate_total=80 * MIB) as origin:
        (disk / "models" / "loras").mkdir(parents=True)
        (Path(aside) / "model_manifests").mkdir()
        chance, entries = random.Random(1), {}
        for number in range(MODELS):
            size = int(chance.uniform(1, 12) * MIB)
            entries[f"m{number}.safetensors"] = {
                "url": origin.put(f"/{number}", safetensors(size, number)), "size": size}
        (Path(aside) / "model_manifests" / "m.json").write_text(json.dumps({"loras": entries}))
        command = [sys.executable, __file__, "--work", str(disk), aside, "--seconds", str(arguments.seconds),
                   "--transfers", str(arguments.transfers), "--reserve", str(reserve),
                   *(["--max-size", str(max_size)] if max_size is not None else [])]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                     for _ in range(arguments.processes)]
        used, least_free, samples = 0, DISK, 0
        while any(process.poll() is None for process in processes):
            used = max(used, bytes_on_disk(disk / "models"))
            usage = os.statvfs(disk)
            least_free = min(least_free, usage.f_bavail * usage.f_frsize)
            samples += 1
            time.sleep(0.01)
        counts = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
        fetched = {key: sum(one[key] for one in counts) for key in counts[0]}
        limit = f"{max_size / MIB:.2f} MiB" if max_size is not None else "none"
        print(f"budget {limit}, reserve {reserve / MIB:.2f} MiB: at most {used / MIB:.2f} MiB used, at least "
              f"{least_free / MIB:.2f} MiB free, in {samples} samples; {fetched}; "
              f"{origin.bytes_sent() / MIB:.0f} MiB sent")
        if max_size is not None and used > max_size or least_free < reserve:
            raise SystemExit("The budget was exceeded.")


def main() -> None:
    """Both kinds of limit, or (for itself) one working process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--transfers", type=int, default=4, help="of each process at the same time")
    parser.add_argument("--work", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--max-size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--reserve", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(*arguments.work, arguments.seconds, arguments.transfers, arguments.max_size, arguments.reserve)
        return
    run(arguments, max_size=40 * MIB, reserve=0)
    run(arguments, max_size=None, reserve=8 * MIB)


if __name__ == "__main__":
    main()

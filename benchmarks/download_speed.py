"""How much of a link a depot download uses when one connection gets an eighth of it.

    python benchmarks/download_speed.py [--size 240] [--link 40] [--runs 3]

A loopback origin in a process of its own throttles each connection to link / 8 and all together to the link
(MiB per second). Measured is the whole way from `fetch` to the file under its final name, as the plain form
of a manifest has it (safetensors header checked, no digest), and once with a sha256, which is computed when
the file is whole. Controls: one connection, and eight bare readers that keep nothing, which show what the
origin can give on this machine at this moment. Exit status 1 below 0.95 of the link.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MIB = 1 << 20
WANTED = 0.95


def serve(pipe: Connection, size: int, link: float) -> None:
    """The origin's process: send the URL and digest, then serve until told to stop."""
    from tests.fakes.origin import Origin, safetensors, sha256

    body = safetensors(size)
    with Origin(rate_per_connection=link / 8, rate_total=link) as origin:
        url = origin.put("/model.safetensors", body)
        origin.assets["/model.safetensors"].validator()  # made once, before the clock runs
        pipe.send((url, sha256(body)))
        pipe.recv()


def seconds_to_fetch(url: str, connections: int, digest: str | None = None) -> float:
    """Seconds from `fetch` to the file, with a daemon that runs already."""
    from comfy_depot.manifest import Entry
    from comfy_depot.options import Options
    from comfy_depot.transfers import Transfers

    with tempfile.TemporaryDirectory() as folder:
        options = Options(
            depot_dir=Path(folder) / "state",
            depot_connections=connections,
            depot_allow_hosts=("127.0.0.1",),
            depot_reserve=0,
        )
        transfers = Transfers(options, publish=lambda event, data: None)
        try:
            transfers.daemon.ensure()
            entry = Entry("checkpoints", "model.safetensors", (url,), sha256=digest)
            started = time.perf_counter()
            transfers.fetch(entry, Path(folder) / "models" / "model.safetensors").wait()
            return time.perf_counter() - started
        finally:
            transfers.close()


def seconds_to_read(url: str, size: int) -> float:
    """Seconds in which eight connections read an eighth each and keep nothing."""

    def read(start: int, end: int) -> None:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-{end - 1}"})
        with urllib.request.urlopen(request) as answer:
            while answer.read(1 << 18):
                pass

    started = time.perf_counter()
    threads = [threading.Thread(target=read, args=(n * size // 8, (n + 1) * size // 8)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=240, help="MiB of the file")
    parser.add_argument("--link", type=float, default=40, help="MiB per second of the link")
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    origin = context.Process(target=serve, args=(there, chosen.size * MIB, chosen.link * MIB), daemon=True)
    origin.start()
    url, digest = here.recv()
    ideal = chosen.size / chosen.link
    print(f"{chosen.size} MiB over a link of {chosen.link:g} MiB/s, {chosen.link / 8:g} MiB/s per connection")
    ratios = []
    for number in range(chosen.runs):
        seconds = seconds_to_fetch(url, connections=8)
        ratios.append(ideal / seconds)
        print(f"depot, 8 connections, run {number + 1}: {seconds:6.2f} s = {ratios[-1]:.3f} of the link")
    seconds = seconds_to_fetch(url, connections=8, digest=digest)
    print(f"depot with a sha256:          {seconds:6.2f} s = {ideal / seconds:.3f} of the link")
    seconds = seconds_to_fetch(url, connections=1)
    print(f"control, 1 connection:        {seconds:6.2f} s = {ideal / seconds:.3f} of the link")
    seconds = seconds_to_read(url, chosen.size * MIB)
    print(f"control, 8 bare readers:      {seconds:6.2f} s = {ideal / seconds:.3f} of the link")
    here.send("stop")
    origin.join()
    best = sorted(ratios)[len(ratios) // 2]
    print(f"median {best:.3f} (wanted: {WANTED})")
    return 0 if best >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())

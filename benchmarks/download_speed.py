"""How much of a link a depot download uses when one connection gets an eighth of it.

    python benchmarks/download_speed.py [--size 240] [--link 40] [--runs 3]

A loopback origin in a process of its own throttles each connection to link / 8 and all together to the link
(MiB per second). Measured is the whole way from `fetch` to the verified file under its final name, in turns:

- without a digest in the manifest (the header of the safetensors file is checked);
- with a sha256, which follows the download closely (decision 14), and as a control only at the end;
- eight files of an eighth of the size at once.

Controls: one connection, and eight bare readers that keep nothing, which show what the origin can give on
this machine at this moment. Exit status 1 below 0.95 of the link, with and without a digest, below three
times one connection, or when eight files take longer than one (5 % of noise are granted).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MIB = 1 << 20
WANTED = 0.95


def serve(pipe: Connection, size: int, link: float) -> None:
    """The origin's process: send the URL and digest, then serve until told to stop."""
    from tests.fakes.origin import Origin, safetensors, sha256

    body, part = safetensors(size), safetensors(size // 8)
    with Origin(rate_per_connection=link / 8, rate_total=link) as origin:
        url = origin.put("/model.safetensors", body)
        parts = [origin.put(f"/part-{number}.safetensors", part) for number in range(8)]
        for asset in origin.assets.values():
            asset.validator()  # made once, before the clock runs
        pipe.send((url, sha256(body), parts))
        pipe.recv()


def seconds_to_fetch(urls: list[str], connections: int, digest: str | None = None) -> float:
    """Seconds from `fetch` to the last file, with a daemon that runs already."""
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
            started = time.perf_counter()
            under_way = []
            for url in urls:
                name = url.rsplit("/", 1)[1]
                entry = Entry("checkpoints", name, (url,), sha256=digest)
                under_way.append(transfers.fetch(entry, Path(folder) / "models" / name))
            for transfer in under_way:
                transfer.wait()
            return time.perf_counter() - started
        finally:
            transfers.close()


def seconds_with_the_digest_at_the_end(url: str, digest: str) -> float:
    """The control: nothing is hashed before the file is whole."""
    from comfy_depot import download

    usual = download.LEAST_TO_DIGEST_AHEAD
    download.LEAST_TO_DIGEST_AHEAD = 1 << 62
    try:
        return seconds_to_fetch([url], 8, digest)
    finally:
        download.LEAST_TO_DIGEST_AHEAD = usual


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
    url, digest, parts = here.recv()
    ideal = chosen.size / chosen.link
    print(f"{chosen.size} MiB over a link of {chosen.link:g} MiB/s, {chosen.link / 8:g} MiB/s per connection")
    ways: dict[str, Callable[[], float]] = {
        "depot, no digest": lambda: seconds_to_fetch([url], 8),
        "depot, sha256": lambda: seconds_to_fetch([url], 8, digest),
        "depot, eight files": lambda: seconds_to_fetch(parts, 8),
        "sha256 at the end": lambda: seconds_with_the_digest_at_the_end(url, digest),
        "8 bare readers": lambda: seconds_to_read(url, chosen.size * MIB),
    }
    shares: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(chosen.runs):
        for name, way in ways.items():
            shares[name].append(ideal / way())
        said = ", ".join(f"{name} {of[-1]:.3f}" for name, of in shares.items())
        print(f"run {number + 1}: {said}", flush=True)
    one = ideal / seconds_to_fetch([url], connections=1)
    here.send("stop")
    origin.join()
    middle = {name: statistics.median(of) for name, of in shares.items()}
    print(f"{'share of the link':20} median")
    for name, share in {**middle, "one connection": one}.items():
        print(f"{name:20} {share:.3f}")
    return 0 if is_good(middle, one) else 1


def is_good(middle: dict[str, float], one: float) -> bool:
    """Whether the targets are met."""
    whole = middle["depot, no digest"]
    return (
        min(whole, middle["depot, sha256"]) >= WANTED
        and whole >= 3 * one
        and middle["depot, eight files"] >= 0.95 * whole
    )


if __name__ == "__main__":
    sys.exit(main())

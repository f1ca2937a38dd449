"""What models inside archives cost beside plain files, and what kills cost them.

    python benchmarks/bundle_fetch.py [--member 32] [--members 8] [--link 40] [--kills 10]

A loopback origin in a process of its own throttles all connections together to the link (MiB per second) and
counts the bytes that it sends. In turns, in one run:

- one member of a zip and of a tar, and a plain file of the same bytes;
- all members of a tar.gz asked for at once, and the same archive as a plain file;
- the bytes that reach the disk for a tar.gz with its archive there and in `--depot-scratch`;
- a process that fetches a member of a tar.gz is killed with SIGKILL at random moments until it has it: bytes
  sent beyond the archive for each kill, and looks at the model's name that found anything but all of it.

Exit status 1 when one member costs more than its own bytes and 3 MiB, all at once more than 1.05 of the
archive, a kill more than 4 MiB, or an unverified name was seen.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from comfy_depot.manifest import Bundle, Entry
from comfy_depot.options import Options
from comfy_depot.transfers import Transfers
from tests.fakes.origin import Origin, safetensors, sha256

MIB = 1 << 20
ALLOWED = ("127.0.0.1",)


def archives(bodies: dict[str, bytes]) -> dict[str, bytes]:
    """The same members in three forms."""
    made = {name: io.BytesIO() for name in ("zip", "tar", "tar.gz")}
    with zipfile.ZipFile(made["zip"], "w") as archive:
        for name, body in bodies.items():
            archive.writestr(name, body)
    for form, mode in (("tar", "w:"), ("tar.gz", "w:gz")):
        options = {"compresslevel": 1} if form == "tar.gz" else {}
        with tarfile.open(fileobj=made[form], mode=mode, **options) as archive:
            for name, body in bodies.items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))
    return {form: buffer.getvalue() for form, buffer in made.items()}


def serve(pipe: Connection, member: int, members: int, link: float) -> None:
    """The origin's process: send urls, sizes and a digest, then what was sent since the last question."""
    bodies = {f"{number}.safetensors": safetensors(member, number) for number in range(members)}
    with Origin(rate_total=link) as origin:
        urls = {"plain": origin.put("/plain", bodies["0.safetensors"])}
        sizes = {"plain": member}
        for form, body in archives(bodies).items():
            urls[form], sizes[form] = origin.put(f"/{form}", body), len(body)
        for asset in origin.assets.values():
            asset.validator()  # made once, before the clock runs
        pipe.send((urls, sizes, sha256(bodies["0.safetensors"])))
        while pipe.recv() is not None:
            pipe.send(origin.bytes_sent())
            origin.log.clear()


def entry_of(url: str, form: str, number: int, digest: str | None = None) -> Entry:
    """The model that is the n-th member, or the plain file."""
    name = f"{number}.safetensors"
    return Entry("loras", name, (url,), sha256=digest, bundle=None if form == "plain" else Bundle(name))


def seconds_to_fetch(entries: list[Entry], base: Path, scratch: Path | None = None) -> tuple[float, int]:
    """Seconds until all stand, and the bytes that this process and aria2c gave to a disk for it."""
    options = Options(
        depot_dir=base / "state", depot_allow_hosts=ALLOWED, depot_reserve=0, depot_scratch=scratch
    )
    ours = Transfers(options, publish=lambda event, data: None)
    try:
        ours.daemon.ensure()
        begun, written = time.perf_counter(), bytes_written()
        for transfer in [ours.fetch(entry, base / "models" / entry.name) for entry in entries]:
            transfer.wait()
        return time.perf_counter() - begun, bytes_written() - written
    finally:
        ours.close()


def bytes_written() -> int:
    """What this process and those below it gave to disks so far; a tmpfs is none."""
    me = psutil.Process()
    return sum(process.io_counters().write_bytes for process in (me, *me.children(recursive=True)))


def work(url: str, base: Path) -> None:
    """The process that is killed: fetch the first member and end."""
    seconds_to_fetch([entry_of(url, "tar.gz", 0)], base)


def kills(url: str, size: int, most: int, base: Path) -> tuple[int, int]:
    """Kill fetchers at random moments, then let one come to its end; kills, and looks that found a part."""
    file, chance, wrong, killed = base / "models" / "0.safetensors", random.Random(5), 0, 0
    over = threading.Event()

    def look() -> None:
        nonlocal wrong
        while not over.wait(0.001):
            if file.exists() and file.stat().st_size != size:
                wrong += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    while not file.exists():
        process = subprocess.Popen([sys.executable, __file__, "--work", url, str(base)])
        try:
            process.wait(None if killed >= most else 1.5 + chance.uniform(0, 2.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    over.set()
    watcher.join()
    return killed, wrong


def measure(arguments: argparse.Namespace, pipe: Connection) -> bool:
    """All of it; whether everything held."""
    urls, sizes, digest = pipe.recv()

    def sent() -> int:
        pipe.send("sent")
        return int(pipe.recv())

    def fetched(entries: list[Entry], scratch: Path | None = None) -> tuple[float, int, int]:
        with tempfile.TemporaryDirectory() as folder:
            sent()
            seconds, written = seconds_to_fetch(entries, Path(folder), scratch)
            return seconds, sent(), written

    def holds(is_good: bool, text: str) -> bool:
        print(text, "" if is_good else "<-- too much")
        return is_good

    plain, _, _ = fetched([entry_of(urls["plain"], "plain", 0, digest)])
    good = True
    for form in ("zip", "tar"):
        seconds, cost, _ = fetched([entry_of(urls[form], form, 0, digest)])
        good &= holds(cost <= sizes["plain"] + 3 * MIB,
                      f"one member of a {form}: {cost / sizes['plain']:.3f} of its bytes, "
                      f"{cost / sizes[form]:.3f} of the archive's, {seconds / plain:.2f} of a file's time")
    whole = Entry("loras", "whole.bin", (urls["tar.gz"],))
    alone, _, _ = fetched([whole])
    all_of_them = [entry_of(urls["tar.gz"], "tar.gz", number) for number in range(arguments.members)]
    seconds, cost, on_disk = fetched(all_of_them)
    good &= holds(cost <= 1.05 * sizes["tar.gz"],
                  f"all members of a tar.gz at once: {cost / sizes['tar.gz']:.3f} of its bytes, "
                  f"{seconds / alone:.2f} of the time of the archive as a plain file")
    if Path("/dev/shm").is_dir():
        _, _, in_memory = fetched(all_of_them, Path("/dev/shm"))
        print(f"archive in /dev/shm: {in_memory / max(on_disk, 1):.2f} of the bytes written to the disk")
    with tempfile.TemporaryDirectory() as folder:
        sent()
        killed, wrong = kills(urls["tar.gz"], sizes["plain"], arguments.kills, Path(folder))
        waste = (sent() - sizes["tar.gz"]) / max(killed, 1) / MIB
    return good & holds(waste <= 4 and not wrong,
                        f"{killed} kills: {waste:.2f} MiB sent again for each, {wrong} unverified names seen")


def main() -> int:
    """Measure, or (for itself) be the one who is killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--member", type=int, default=32, help="MiB")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--link", type=float, default=40, help="MiB per second")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work[0], Path(arguments.work[1]))
        return 0
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, daemon=True,
        args=(theirs, arguments.member * MIB, arguments.members, arguments.link * MIB))
    server.start()
    try:
        return 0 if measure(arguments, ours) else 1
    finally:
        ours.send(None)
        server.join(10)


if __name__ == "__main__":
    sys.exit(main())

"""Seconds from the request to tensors in memory, over the seconds that the network takes alone.

    python benchmarks/stream_load.py [--size 800] [--rates 200,400] [--runs 3] [--folder DIR]

A server of its own (sockets and sendfile; `tests/fakes/origin.py` cannot send 400 MB/s beside a download
on two cores) gives a safetensors file at a limited rate in MB/s. The floor is bytes over that rate. In turns,
each in a process of its own:

- depot: a node asks for the path, and `load_torch_file` for the tensors; with a sha256 in the manifest, with
  the digests of pieces (blake2b), and with none;
- no stream: the first with `--depot-stream off`; digest at the end: besides, with a download in any order
  and its sha256 computed when it is whole;
- aria2, then load: aria2c to its end, sha256 of the file, load. Warm: with what is in the page cache. Cold:
  the file was written to the disk and has left memory, as where memory is smaller than models;
- bare readers: eight connections that keep nothing, which show what server and machine can do.

Memory holds a tensor when each of its pages was touched. The digest of every tensor is compared with what
the safetensors library makes of the source. Memory is the peak of the resident size over the file, mapped
pages included. Also printed: the digests of the file alone, because no verified download is faster.

Exit status 1 when a tensor differs, or when a depot with stream takes more than 1.15 of the longest of
floor, bare readers and the digest that the manifest asks for.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WANTED = 1.15
CREDIT_SECONDS = 0.05  # what a late thread may make good
WAYS = ("depot, sha256", "depot, pieces", "depot, no digest", "no stream", "digest at the end",
        "aria2, then load, warm", "aria2, then load, cold", "bare readers")  # fmt: skip


# --- the server


class Throttle:
    """Lets so many bytes per second go, for all connections together."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free_at, self._lock = rate, 0.0, threading.Lock()

    def wait(self, size: int) -> None:
        """Return when `size` more bytes may go."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now - CREDIT_SECONDS, self._free_at or now) + size / self._rate
            pause = self._free_at - now
        if pause > 0.001:
            time.sleep(pause)


def serve(file: str, megabytes_per_second: float) -> None:
    """The server's process: print the port, then answer until it is killed."""
    throttle, source = Throttle(megabytes_per_second * 1e6), os.open(file, os.O_RDONLY)
    server = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(server.getsockname()[1], flush=True)
    while True:
        client, _ = server.accept()
        threading.Thread(target=answer, args=(client, source, throttle), daemon=True).start()


def answer(client: socket.socket, source: int, throttle: Throttle) -> None:
    """One connection, with ranges, until it ends."""
    size, data = os.fstat(source).st_size, b""
    with client, contextlib.suppress(OSError):
        while True:
            while b"\r\n\r\n" not in data:
                piece = client.recv(1 << 16)
                if not piece:
                    return
                data += piece
            head, data = data.split(b"\r\n\r\n", 1)
            wanted = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d*)", head)
            start = int(wanted[1]) if wanted else 0
            end = min(int(wanted[2]) + 1, size) if wanted and wanted[2] else size
            lines = ["HTTP/1.1 206 Partial Content" if wanted else "HTTP/1.1 200 OK", 'ETag: "1"',
                     "Accept-Ranges: bytes", f"Content-Length: {end - start}"]
            if wanted:
                lines.append(f"Content-Range: bytes {start}-{end - 1}/{size}")
            client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            while start < end and not head.startswith(b"HEAD"):
                throttle.wait(count := min(end - start, 1 << 17))
                start += os.sendfile(client.fileno(), source, start, count)


# --- one measurement, in a process of its own


def load_and_touch(path: str) -> dict[str, Any]:
    """The state dict, with every page of it in memory."""
    import torch

    import comfy.utils

    tensors: dict[str, Any] = comfy.utils.load_torch_file(path)
    for tensor in tensors.values():
        tensor.reshape(-1).view(torch.uint8)[::4096].sum()
    return tensors


def digest_of(tensors: dict[str, Any]) -> str:
    """One digest over the names, kinds, shapes and bytes of all tensors."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return found.hexdigest()


def by_depot(way: str, url: str, promise: dict[str, Any], folder: Path) -> tuple[float, dict[str, Any]]:
    """As a loader node does it: seconds, tensors."""
    import comfy.utils  # noqa: F401 - what a server has loaded by then
    import comfy_depot
    import folder_paths
    from comfy.cli_args import args
    from comfy_depot import download
    from comfy_depot.host import Executing, Host
    from comfy_depot.options import Options

    args.cpu, args.base_directory = True, str(folder)
    folder_paths.apply_arguments(args)
    (folder / "models/checkpoints").mkdir(parents=True)
    wanted = {"depot, pieces": ["pieces"], "depot, no digest": []}.get(way, ["sha256"])
    entry = {"url": url} | {field: promise[field] for field in wanted}
    (folder / "models.json").write_text(json.dumps({"checkpoints": {"m.safetensors": entry}}))
    if way == "digest at the end":
        download.LEAST_TO_DIGEST_AHEAD = 1 << 62
    stream = "on" if way.startswith("depot") else "off"
    options = Options(model_manifests=folder, depot_dir=folder / "depot", depot_reserve=0,
                      depot_allow_hosts=("127.0.0.1",), depot_stream=stream)
    depot = comfy_depot.start(options, Host(current_node=lambda: Executing("prompt", "1")))
    assert depot is not None
    depot.transfers.daemon.ensure()
    started = time.perf_counter()
    tensors = load_and_touch(folder_paths.get_full_path_or_raise("checkpoints", "m.safetensors"))
    seconds = time.perf_counter() - started
    comfy_depot.stop()
    return seconds, tensors


def by_aria2(way: str, url: str, promise: dict[str, Any], folder: Path) -> tuple[float, dict[str, Any]]:
    """aria2c to its end, sha256, load."""
    import comfy.utils  # noqa: F401 - what a server has loaded by then
    from comfy_depot import hashing
    from comfy_depot.aria2 import binary

    file = folder / "m.safetensors"
    command = [binary(), "--quiet", "--no-conf", "-x8", "-s8", "-k1M", "--file-allocation=none"]
    started = time.perf_counter()
    subprocess.run([*command, f"--dir={folder}", f"--out={file.name}", url], check=True)
    out_of_the_clock = time.perf_counter()
    if way.endswith("cold"):
        with open(file, "rb") as written:
            os.fsync(written.fileno())
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started += time.perf_counter() - out_of_the_clock
    assert hashing.sha256_file(file) == promise["sha256"]
    tensors = load_and_touch(str(file))
    return time.perf_counter() - started, tensors


def by_bare_readers(url: str, size: int) -> float:
    """Seconds in which eight connections read an eighth each and keep nothing."""

    def read(start: int, end: int) -> None:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-{end - 1}"})
        with urllib.request.urlopen(request) as response:
            buffer = bytearray(1 << 18)
            while response.readinto(buffer):
                pass

    threads = [threading.Thread(target=read, args=(n * size // 8, (n + 1) * size // 8)) for n in range(8)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def peak_bytes() -> int:
    """Largest resident size so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure(way: str, url: str, promise: dict[str, Any], size: int, parent: str) -> dict[str, Any]:
    """Seconds, digest of the tensors and peak memory of one way."""
    if way == "bare readers":
        return {"seconds": by_bare_readers(url, size)}
    import torch

    torch.set_num_threads(1)
    load = by_aria2 if way.startswith("aria2") else by_depot
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        before = peak_bytes()
        seconds, tensors = load(way, url, promise, Path(folder))
        return {"seconds": seconds, "peak": (peak_bytes() - before) / size, "digest": digest_of(tensors)}


# --- all of them


def write_source(path: Path, size: int) -> None:
    """A file like a checkpoint: many tensors of different sizes, in float16."""
    import torch
    from safetensors.torch import save_file

    chance = torch.Generator().manual_seed(1)
    widths, tensors, bytes_left = [320, 640, 1280, 2560], {}, size
    while bytes_left > 0:
        rows = widths[len(tensors) % 4]
        tensor = torch.randn(rows, 2048, generator=chance).half()
        tensors[f"model.block.{len(tensors)}.weight"] = tensor
        bytes_left -= tensor.numel() * 2
    save_file(tensors, path, metadata={"format": "pt"})


def run(way: str, url: str, promise: dict[str, Any], size: int, folder: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    given = json.dumps([way, url, promise, size, folder])
    command = [sys.executable, __file__, "--measure", "-"]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, input=given)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def compare(source: Path, rate: float, runs: int, folder: str, expected: str) -> bool:
    """Measure all ways at one rate and print them; returns whether all is as it should be."""
    from comfy_depot import hashing, piece_hashes

    size, alone = source.stat().st_size, {}
    started = time.perf_counter()
    promise: dict[str, Any] = {"sha256": hashing.sha256_file(source)}
    alone["sha256"] = time.perf_counter() - started
    pieces = piece_hashes.digests_of(source, 8 << 20, "blake2b")
    promise["pieces"] = {"bytes": pieces.length, "blake2b": pieces.digests}
    alone["pieces"] = time.perf_counter() - started - alone["sha256"]
    floor = size / rate / 1e6
    server = subprocess.Popen([sys.executable, __file__, "--serve", str(source), str(rate)],
                              stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/m.safetensors"
    try:
        results = [{way: run(way, url, promise, size, folder) for way in WAYS} for _ in range(runs)]
    finally:
        server.kill()
        server.wait()
    digests = ", ".join(f"{name} {seconds / floor:.2f}" for name, seconds in alone.items())
    print(f"\n{size / 1e6:.0f} MB at {rate:g} MB/s: floor {floor:.2f} s; digests alone: {digests} of it")
    for way in WAYS:
        each = [result[way] for result in results]
        shares = " ".join(f"{one['seconds'] / floor:.2f}" for one in each)
        peak = f"   peak memory {max(one['peak'] for one in each):.2f}" if "peak" in each[0] else ""
        median = statistics.median(one["seconds"] for one in each) / floor
        print(f"{way:<26} {median:.2f} of the floor ({shares}){peak}")
    exact = all(one.get("digest", expected) == expected for result in results for one in result.values())
    print("every tensor is exact" if exact else "TENSORS DIFFER")
    seconds = {way: statistics.median(result[way]["seconds"] for result in results) for way in WAYS}
    least = max(floor, seconds["bare readers"])
    bounds = {"depot, sha256": max(least, alone["sha256"]), "depot, pieces": max(least, alone["pieces"]),
              "depot, no digest": least}
    return exact and all(seconds[way] <= WANTED * bound for way, bound in bounds.items())


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=800, help="MB of the file")
    parser.add_argument("--rates", default="200,400", help="MB per second")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where files are downloaded to (default: /tmp)")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve[0], float(chosen.serve[1]))
    if chosen.measure:
        print(json.dumps(measure(*json.load(sys.stdin))))
        return 0
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as source_folder:
        source = Path(source_folder) / "m.safetensors"
        write_source(source, chosen.size * 10**6)
        from safetensors.torch import load_file

        expected = digest_of(load_file(source))
        good = [compare(source, float(rate), chosen.runs, chosen.folder or tempfile.gettempdir(), expected)
                for rate in chosen.rates.split(",")]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

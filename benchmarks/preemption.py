"""What a node that waits gets of the link while models are fetched ahead, and what fetching ahead saves.

    python benchmarks/preemption.py [--link 40] [--runs 3] [--short]

1. Share. A depot with its real aria2c fetches four models ahead from an origin of `link` MiB per second in
   all, and then a node asks for a fifth. The origin counts what it sends: the share of the fifth from 300 ms
   after it was asked for, for a second, and for as long as it takes.
2. Time to the last model. A server is sent a prompt of four loaders, one after the other, from an origin that
   gives each connection a 40th of the link, so that one download alone gets a fifth of it: fetched ahead
   (`--depot-preload 4`) and not (`--depot-preload 0`). The same where one download can take the whole link.

Exit status 1 when a share is below 0.9, or when fetching ahead saves less than half of the time where it
could save three quarters.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MIB = 1 << 20
MODELS = 5
PACK = '''
import folder_paths

class WaitForModel:
    """Opens a model and passes on how many it has opened."""
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": (folder_paths.get_filename_list("loras"),)},
                "optional": {"before": ("INT", {"forceInput": True})}}
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = ("INT",), "run", True, "benchmark"
    def run(self, name, before=0):
        folder_paths.get_full_path_or_raise("loras", name)
        return {"ui": {"count": [before + 1]}, "result": (before + 1,)}

class DoNothing:
    """Runs once, so that everything is loaded."""
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = ("INT",), "run", True, "benchmark"
    def run(self):
        return {"ui": {"count": [0]}, "result": (0,)}

NODE_CLASS_MAPPINGS = {"WaitForModel": WaitForModel, "DoNothing": DoNothing}
'''


def serve(pipe: Connection, size: int) -> None:
    """The origin's process. It obeys: rates, start and stop of counting."""
    from tests.fakes.origin import Origin, safetensors

    body = safetensors(size)
    with Origin() as origin:
        urls = [origin.put(f"/{number}.safetensors", body, etag='"same"') for number in range(MODELS)]
        paths = list(origin.assets)
        pipe.send(urls)
        rows: list[tuple[float, list[int]]] = []
        while (order := pipe.recv()) is not None:
            if order == "rows":
                pipe.send(rows)
            else:
                origin.rate_per_connection, origin.total.rate = order
                rows = []
                counted = origin.log
                counted.clear()
                threading.Thread(target=_count, args=(origin, paths, rows), daemon=True).start()


def _count(origin: object, paths: list[str], rows: list[tuple[float, list[int]]]) -> None:
    end = time.time() + 120
    while time.time() < end and len(rows) < 12_000:
        rows.append((time.time(), [origin.bytes_sent(path) for path in paths]))  # type: ignore[attr-defined]
        time.sleep(0.01)


@contextmanager
def origin_of(size: int) -> Iterator[tuple[Connection, list[str]]]:
    """An origin in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, size), daemon=True)
    process.start()
    try:
        yield here, here.recv()
    finally:
        here.send(None)
        process.join(5)


def shares_of_one_run(pipe: Connection, urls: list[str], link: float) -> tuple[float, float, float]:
    """(share from 0.3 to 1.3 s, share from 0.3 s to the end, seconds to a tenth of a second with 0.9)."""
    from comfy_depot.manifest import Entry
    from comfy_depot.options import Options
    from comfy_depot.transfers import Priority, Transfers

    pipe.send((None, link * MIB))
    with tempfile.TemporaryDirectory() as folder:
        transfers = Transfers(
            Options(depot_dir=Path(folder) / "state", depot_allow_hosts=("127.0.0.1",), depot_reserve=0),
            publish=lambda event, data: None,
        )
        try:
            def fetch(number: int, priority: Priority):  # type: ignore[no-untyped-def]
                entry = Entry("loras", f"{number}.safetensors", (urls[number],))
                return transfers.fetch(entry, Path(folder) / "models" / entry.name, priority=priority)

            ahead = [fetch(number, Priority.PRELOAD) for number in range(4)]
            while min(one.bytes_done for one in ahead) < 2 * MIB:
                time.sleep(0.05)
            began = time.time()
            fetch(4, Priority.DEMAND).wait()
            ended = time.time()
        finally:
            transfers.close()
    pipe.send("rows")
    rows = pipe.recv()
    reached = next((after / 10 for after in range(100)
                    if _share(rows, began + after / 10, began + after / 10 + 0.1) >= 0.9), float("nan"))
    return (_share(rows, began + 0.3, began + 1.3), _share(rows, began + 0.3, ended - 0.1), reached)


def _share(rows: list[tuple[float, list[int]]], start: float, end: float) -> float:
    """Of the bytes that left in this time, those of the last model."""
    first = min(rows, key=lambda row: abs(row[0] - start))[1]
    last = min(rows, key=lambda row: abs(row[0] - end))[1]
    sent = [after - before for before, after in zip(first, last)]
    return sent[-1] / sum(sent) if sum(sent) else 0.0


def seconds_to_the_last_model(urls: list[str], preload: int) -> float:
    """From POST /prompt of four loaders in a row until the prompt has run, with a fresh server."""
    import json

    from tests.fakes.server_process import ServerProcess

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "model_manifests").mkdir()
        (base / "model_manifests/models.json").write_text(json.dumps(
            {"loras": {f"{number}.safetensors": url for number, url in enumerate(urls[:4])}}))
        (base / "custom_nodes").mkdir()
        (base / "custom_nodes/waiting.py").write_text(PACK)
        graph: dict[str, object] = {}
        for number in range(4):
            inputs: dict[str, object] = {"name": f"{number}.safetensors"}
            if number:
                inputs["before"] = [str(number - 1), 0]
            graph[str(number)] = {"class_type": "WaitForModel", "inputs": inputs}
        options = ("--depot-allow-hosts", "127.0.0.1", "--depot-reserve", "0", "--depot-preload",
                   str(preload))
        with ServerProcess(base, *options) as server:
            _run(server, {"1": {"class_type": "DoNothing", "inputs": {}}})  # torch is loaded now
            began = time.perf_counter()
            _run(server, graph)
            return time.perf_counter() - began


def _run(server, graph: dict[str, object]) -> None:  # type: ignore[no-untyped-def]
    prompt_id = server.post_json("/prompt", {"prompt": graph})["prompt_id"]
    while True:
        entry = server.get_json(f"/history/{prompt_id}").get(prompt_id)
        if entry is not None:
            if entry["status"]["status_str"] != "success":
                raise SystemExit(f"The prompt failed: {entry['status']}")
            return
        time.sleep(0.02)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--link", type=float, default=40, help="MiB per second")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="one run of the share, with smaller files")
    chosen = parser.parse_args()
    link, runs = chosen.link, 1 if chosen.short else chosen.runs
    good = True
    with origin_of(int(link * (3 if chosen.short else 8)) * MIB) as (pipe, urls):
        for number in range(runs):
            second, whole, reached = shares_of_one_run(pipe, urls, link)
            print(f"run {number + 1}: share of the one that is waited for, 0.3 to 1.3 s after it was asked "
                  f"for: {second:.3f}; from 0.3 s to its end: {whole:.3f}; 0.9 reached after {reached:.1f} s",
                  flush=True)
            good = good and second >= 0.9 and whole >= 0.9
    if chosen.short:
        return 0 if good else 1
    with origin_of(int(link) * 4 * MIB) as (pipe, urls):
        for words, per_connection in (("a connection gets a 40th of the link", link / 40),
                                      ("one download can take the link", None)):
            times: dict[int, list[float]] = {4: [], 0: []}
            for _ in range(runs):
                for preload in times:
                    pipe.send((per_connection and per_connection * MIB, link * MIB))
                    times[preload].append(seconds_to_the_last_model(urls, preload))
            ahead, after = statistics.median(times[4]), statistics.median(times[0])
            print(f"{words}: four models in {ahead:.1f} s fetched ahead, {after:.1f} s one after the other: "
                  f"{ahead / after:.2f}", flush=True)
            good = good and (per_connection is None or ahead < 0.5 * after)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

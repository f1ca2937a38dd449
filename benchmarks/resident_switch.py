"""Switching between two checkpoints on running ComfyUI servers: A, B, A, B, ... seconds per switch.

    python benchmarks/resident_switch.py --models DIR --write            two checkpoints of random weights
    python benchmarks/resident_switch.py --models DIR --url A --url B    measure servers that have them

DIR is a `checkpoints` folder that all servers see. Each prompt loads one of the two files and decodes an
empty latent of 16 x 16 with its VAE, so that the weights are needed and little else happens. The servers
take turns. The first load of each file is not counted. With --pid, it is counted how often the process began
to map one of the files, which both programs do to read it; a look every few milliseconds may miss one, but
adds none. With --force every loader runs again in each prompt, which tells a model that stays from a stored
result; other servers ignore it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

NAMES = ("switch_a.safetensors", "switch_b.safetensors")


def write(folder: Path, dtype: str) -> None:
    """Two full-size SD1.5 files with different content."""
    import safetensors.torch

    from benchmarks.parity_upstream import write_checkpoint

    write_checkpoint(folder / NAMES[0], tiny=False, dtype_name=dtype)
    weights = safetensors.torch.load_file(folder / NAMES[0])
    safetensors.torch.save_file({name: weight * 1.001 for name, weight in weights.items()}, folder / NAMES[1])


def prompt(name: str, seed: int) -> dict[str, Any]:
    """Loads a checkpoint and decodes with it; the colour of another node makes each prompt a new one."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 16, "height": 16, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "EmptyImage",
              "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": seed}},
        "5": {"class_type": "ImageBatch", "inputs": {"image1": ["3", 0], "image2": ["4", 0]}},
        "6": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
    }


@dataclass
class Server:
    """A running server and what was measured on it."""

    url: str
    pid: int | None = None
    seconds: list[float] = field(default_factory=list)
    times_mapped: int = 0

    def run(self, graph: dict[str, Any], **fields: Any) -> float:
        """Seconds from the request until the history has the prompt."""
        started = time.perf_counter()
        prompt_id = self._ask("/prompt", {"prompt": graph, **fields})["prompt_id"]
        while not (found := self._ask(f"/history/{prompt_id}")):
            time.sleep(0.002)
        status = found[prompt_id]["status"]
        if status["status_str"] != "success":
            raise SystemExit(f"{self.url} failed: {status['messages'][-1]}")
        return time.perf_counter() - started

    def watch(self) -> None:
        """Count from now on how often the process maps one of the files anew."""
        mapped: set[str] = set()
        first = True
        while self.pid is not None:
            maps = Path(f"/proc/{self.pid}/maps").read_text()
            now = {name for name in NAMES if name in maps}
            self.times_mapped += 0 if first else len(now - mapped)
            mapped, first = now, False
            time.sleep(0.003)

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.loads(answer.read())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of the two checkpoints")
    parser.add_argument("--write", action="store_true", help="write them, and do no more")
    parser.add_argument("--dtype", default="float16", choices=["float16", "float32"])
    parser.add_argument("--url", action="append", default=[], help="of a server, such as http://127.0.0.1:8188")
    parser.add_argument("--pid", action="append", default=[], type=int, help="its process, in the same order")
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--force", action="store_true", help="ask for every node to run again")
    options = parser.parse_args()
    if options.write:
        write(options.models, options.dtype)
        return
    servers = [Server(url, pid) for url, pid in itertools.zip_longest(options.url, options.pid)]
    fields = {"force": True} if options.force else {}
    for server in servers:
        for name in NAMES:
            print(f"{server.url} first {name}: {server.run(prompt(name, 0), **fields):.2f} s")
        threading.Thread(target=server.watch, daemon=True).start()
    for turn in range(options.switches):
        for server in servers:
            server.seconds.append(server.run(prompt(NAMES[turn % 2], turn + 1), **fields))
    print(f"{options.switches} switches")
    for server in servers:
        seconds = sorted(server.seconds)
        read = f"   files mapped {server.times_mapped} times" if server.pid else ""
        print(f"{server.url}: median {statistics.median(seconds):.3f} s, "
              f"least {seconds[0]:.3f}, most {seconds[-1]:.3f}{read}")
    if len(servers) == 2:
        first, second = (statistics.median(server.seconds) for server in servers)
        print(f"{servers[1].url} takes {second / first:.1f} x the time of {servers[0].url}")


if __name__ == "__main__":
    main()

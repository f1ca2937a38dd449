"""How many pictures per second waiting prompts give when they are sampled together, and how alike they are.

    python benchmarks/merge_requests.py [--model CHECKPOINT] [--size 64] [--steps 20] [--most 8]

Two of our servers on the same checkpoint (the demo model, unless another is named), one with
`--merge-requests`. In turns, each gets the same prompts while its queue is paused, with texts and seeds of
their own; time runs from the resume to the last picture. Then the pictures of both are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.server_process import ServerProcess  # noqa: E402  (after the path is set)

COLOURS = ("red", "green", "blue")
SHAPES = ("circle", "square", "triangle")


def graph(model: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """A picture with a text and a seed of its own."""
    prompt: dict[str, Any] = json.loads((ROOT / "tests/data/demo_prompt.json").read_text(encoding="utf-8"))
    prompt = copy.deepcopy(prompt)
    prompt["4"]["inputs"]["ckpt_name"] = model
    prompt["5"]["inputs"].update(width=options.size, height=options.size)
    prompt["6"]["inputs"]["text"] = f"a {COLOURS[number % 3]} {SHAPES[number // 3 % 3]}"
    prompt["3"]["inputs"].update(seed=number, steps=options.steps, sampler_name=options.sampler)
    return prompt


def pictures_per_second(
    server: ServerProcess, prompts: list[dict[str, Any]]
) -> tuple[float, list[dict[str, Any]]]:
    """(pictures per second, history entries)."""
    server.post_json("/depot/queue/pause", {})
    ids = [server.post_json("/prompt", {"prompt": prompt})["prompt_id"] for prompt in prompts]
    start = time.perf_counter()
    server.post_json("/depot/queue/resume", {})
    while server.get_json("/prompt")["exec_info"]["queue_remaining"]:
        time.sleep(0.01)
    seconds = time.perf_counter() - start
    return len(prompts) / seconds, [server.wait_for_history(prompt_id) for prompt_id in ids]


def pixels(server: ServerProcess, entry: dict[str, Any]) -> Any:
    """The picture of a prompt."""
    import numpy as np
    from PIL import Image

    (shown,) = [image for output in entry["outputs"].values() for image in output["images"]]
    place = f"/view?filename={shown['filename']}&subfolder={shown['subfolder']}&type={shown['type']}"
    with Image.open(io.BytesIO(server.request("GET", place)[1])) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def measure(options: argparse.Namespace) -> None:
    """Start both, take turns, print."""
    model = Path(options.model).resolve()
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, extra in (("alone", ()), ("together", ("--merge-requests", str(options.most)))):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "models/checkpoints").mkdir(parents=True)
            try:
                (folder / "models/checkpoints" / model.name).symlink_to(model)
            except OSError:  # not everybody may link on Windows
                shutil.copy(model, folder / "models/checkpoints")
            servers[name] = stack.enter_context(ServerProcess(folder, *extra))
        rates: dict[str, list[float]] = {name: [] for name in servers}
        number, worst = 0, 0
        for _ in range(options.rounds + 1):  # the first one warms up, and learns how many at once pay
            prompts = [graph(model.name, number + i, options) for i in range(options.prompts)]
            number += options.prompts
            entries = {}
            for name, server in servers.items():
                rate, entries[name] = pictures_per_second(server, copy.deepcopy(prompts))
                rates[name].append(rate)
            for pair in zip(*entries.values()):
                one, other = (pixels(server, entry) for server, entry in zip(servers.values(), pair))
                worst = max(worst, abs(one - other).max())
        alone, together = (statistics.median(rates[name][1:]) for name in servers)
        merged = servers["together"].get_json("/depot/cache")["merged"]
        print(f"{options.size} x {options.size}, {options.steps} steps, at most {options.most} together: "
              f"{alone:.2f} and {together:.2f} pictures/s, {together / alone:.2f} times as many; "
              f"{merged['prompts'] / max(1, merged['calls']):.1f} prompts a call; "
              f"largest difference {worst}/255")  # fmt: skip


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(ROOT / "tests/data/demo_shapes.safetensors"))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sampler", default="euler_ancestral")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--most", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()

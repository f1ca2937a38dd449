"""How long after its start the server answers, and the memory it holds while idle; beside upstream ComfyUI.

    python benchmarks/startup.py [--rounds 5]

Upstream runs too when COMFY_UPSTREAM names a checkout of it; COMFY_UPSTREAM_PYTHON names its Python (default:
this one) and COMFY_UPSTREAM_PYTHONPATH further module folders. The two take turns, so that both meet the same
load of the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.server_process import ServerProcess  # noqa: E402

GOAL_RATIO = 0.3
GOAL_MEGABYTES = 200


def measure(**where: object) -> tuple[float, float]:
    """(seconds to the first answer, megabytes two seconds later) of one fresh server."""
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "custom_nodes").mkdir()  # upstream does not start without it
        server = ServerProcess(Path(base), **where)
        try:
            server.start(seconds=120)
            time.sleep(2)
            assert server.seconds_to_answer is not None
            return server.seconds_to_answer, server.rss_megabytes()
        finally:
            server.stop()


def upstream() -> dict[str, object] | None:
    """How to start upstream, if the environment names a checkout."""
    if not (checkout := os.environ.get("COMFY_UPSTREAM")):
        return None
    extra = {"PYTHONPATH": os.environ.get("COMFY_UPSTREAM_PYTHONPATH", "")}
    python = os.environ.get("COMFY_UPSTREAM_PYTHON", sys.executable)
    return {"main": Path(checkout) / "main.py", "python": python, "environment": extra}


def main() -> None:
    """Measure, print a line per server, and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    servers = {"ours": {}, **({"upstream": peer} if (peer := upstream()) else {})}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, where in servers.items():
            results[name].append(measure(**where))
    median = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in results.items()}
    for name, runs in results.items():
        seconds = sorted(round(seconds, 2) for seconds, _ in runs)
        memory = statistics.median(megabytes for _, megabytes in runs)
        print(f"{name:9} first answer {median[name]:.2f} s (all: {seconds}), idle {memory:.0f} MB")
    print(
        f"goal: idle <= {GOAL_MEGABYTES} MB"
        + (
            f", ratio {median['ours'] / median['upstream']:.2f} (goal <= {GOAL_RATIO})"
            if "upstream" in median
            else ""
        )
    )


if __name__ == "__main__":
    main()

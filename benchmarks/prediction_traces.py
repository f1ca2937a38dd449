"""How well the next model of a tenant is foretold on generated traces, by four methods.

    python benchmarks/prediction_traces.py [--uses 12000] [--seeds 3]
    python benchmarks/prediction_traces.py --write T.csv --kind habits       one trace, for `predict`

The kinds of `eviction_traces.py` have sessions, popularity and drift, but what follows a session is drawn by
lot; so nobody can foretell much there. Three kinds have more to learn: `habits`, where each tenant goes from
model to model by a routine of its own seven times out of ten; `fashion`, where all tenants share one routine;
and `compare`, where tenants go back and forth between two or three models before they choose others.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import eviction_traces
from comfy_depot import predict
from comfy_depot.policies import Key

Use = tuple[float, Key, int, str]
OWN = ("habits", "fashion", "compare")
MODELS, TENANTS = 60, 12


def generate(kind: str, seed: int, uses: int) -> Iterator[Use]:
    """(time, key, size, tenant) of a kind that has something to learn."""
    chance = random.Random(seed)
    names = [f"base{number}.safetensors" for number in range(MODELS)]
    shared = _routine(chance, names)
    routines = [shared if kind == "fashion" else _routine(chance, names) for _ in range(TENANTS)]
    current = [chance.choice(names) for _ in range(TENANTS)]
    pairs = [chance.sample(names, chance.choice((2, 2, 3))) for _ in range(TENANTS)]
    for row in range(uses):
        tenant = min(int(chance.expovariate(0.3)), TENANTS - 1)
        if chance.random() < 0.25:
            if kind == "compare":
                if chance.random() < 0.15:
                    pairs[tenant] = chance.sample(names, chance.choice((2, 2, 3)))
                current[tenant] = chance.choice([one for one in pairs[tenant] if one != current[tenant]])
            elif chance.random() < 0.7:
                current[tenant] = chance.choices(routines[tenant][current[tenant]], weights=(6, 3, 1))[0]
            else:
                current[tenant] = names[min(int(chance.expovariate(0.12)), MODELS - 1)]
        yield row * 20.0, ("checkpoints", current[tenant]), 6_500_000_000, f"tenant{tenant}"


def _routine(chance: random.Random, names: list[str]) -> dict[str, list[str]]:
    """For each model three that may follow."""
    return {name: chance.sample([other for other in names if other != name], 3) for name in names}


def uses_of(kind: str, seed: int, uses: int) -> list[Use]:
    """A trace by the name of its kind."""
    if kind in OWN:
        return list(generate(kind, seed, uses))
    traffic = replace(eviction_traces.KINDS[kind], uses=uses)
    return list(eviction_traces.generate_by_tenant(traffic, seed))


def main() -> None:
    """Compare, or write one trace."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = [*OWN, *eviction_traces.KINDS]
    parser.add_argument("--kind", action="append", choices=kinds)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--uses", type=int, default=12_000)
    parser.add_argument("--write", type=argparse.FileType("w"), metavar="FILE")
    arguments = parser.parse_args()
    if arguments.write is not None:
        writer = csv.writer(arguments.write, lineterminator="\n")
        writer.writerow(("time", "folder", "name", "bytes", "tenant"))
        writer.writerows((f"{time:.1f}", *key, size, tenant) for time, key, size, tenant
                         in uses_of((arguments.kind or OWN)[0], 0, arguments.uses))
        return
    print("checkpoint switches that were foretold: by the first guess / by one of three")
    print(f"{'kind':14} {'switches':>8}", *(f"{method:>13}" for method in predict.METHODS))
    for kind in arguments.kind or kinds:
        traces = [uses_of(kind, seed, arguments.uses) for seed in range(arguments.seeds)]
        cells, switches = [], 0
        for method in predict.METHODS:
            scores = [predict.evaluate(trace, method)["checkpoints"] for trace in traces]
            switches = sum(score.switches for score in scores)
            cells.append(f"{statistics.mean(score.first / score.switches for score in scores):6.3f}/"
                         f"{statistics.mean(score.among_three / score.switches for score in scores):6.3f}")
        print(f"{kind:14} {switches:8}", *cells, flush=True)


if __name__ == "__main__":
    main()

"""How eviction policies fare on generated traces of workflows.

    python benchmarks/eviction_traces.py                            a table over seeds, kinds and disk sizes
    python benchmarks/eviction_traces.py --write T.csv --kind drift --seed 3       one trace, for `replay`
    python benchmarks/eviction_traces.py --check                    does `forecast` decide as plain formulas?

A request uses all models of a workflow: a base model, its VAE and some LoRAs. Tenants work in sessions: they
ask for the same workflow again and again, then for another one, by popularity (Zipf) or by their own taste.
Popularity drifts, new workflows come, and some requests are made once only (somebody tries everything out).
Sizes are those of model files: VAEs and LoRAs from 20 MB to 2 GB, base models from 2 to 24 GB.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from comfy_depot import replay
from comfy_depot.forecast import Forecast
from comfy_depot.policies import Key, SimulatedCache
from tests.fakes import plain_forecast

GB, MB = 10**9, 10**6
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
POLICIES = ("lru", "sieve", "forecast", "gdsf", "lfuda", "belady", "bound")


@dataclass(frozen=True)
class Traffic:
    """One kind of traffic."""

    uses: int = 20_000
    workflows: int = 100
    tenants: int = 20
    zipf: float = 0.9
    """Exponent of the popularity of workflows."""
    stay: float = 0.85
    """Probability that a tenant's next request is for the same workflow."""
    tried_once: float = 0.02
    """Share of requests for a workflow at random."""
    drift: float = 0.005
    """Probability, per request, that one workflow changes its rank."""
    arrivals: float = 0.0
    """Probability, per request, that a new workflow comes and is popular."""


KINDS = {
    "default": Traffic(),
    "flat": Traffic(zipf=0.6),
    "steep": Traffic(zipf=1.3),
    "one tenant": Traffic(tenants=1, stay=0.9),
    "many tenants": Traffic(tenants=100, stay=0.9, workflows=200),
    "long sessions": Traffic(stay=0.97),
    "no sessions": Traffic(stay=0.0),
    "scans": Traffic(tried_once=0.25),
    "drift": Traffic(drift=0.1),
    "arrivals": Traffic(arrivals=0.02, workflows=50),
}


@dataclass
class Workflow:
    """The models that a request uses together."""

    base: Key
    vae: Key
    loras: list[Key]


@dataclass
class World:
    """Workflows and the sizes of their models."""

    random: random.Random
    sizes: dict[Key, int] = field(default_factory=dict)
    workflows: list[Workflow] = field(default_factory=list)

    def add_workflow(self) -> int:
        """A new workflow; its number."""
        number = len(self.workflows)
        large = self.random.choice((2, 2.1, 4.3, 6.5, 6.9, 6.9, 12, 17, 23)) * GB
        base = self._model("checkpoints", f"base{number}", large * self.random.uniform(0.95, 1.04))
        vae = ("vae", f"vae{number % 10}")
        self.sizes.setdefault(vae, int(self.random.uniform(160, 820) * MB))
        loras = [self._model("loras", f"lora{number}-{index}", self._lora_size())
                 for index in range(self.random.choice((0, 1, 2, 4, 8)))]
        self.workflows.append(Workflow(base, vae, loras))
        return number

    def _model(self, folder: str, name: str, size: float) -> Key:
        self.sizes[folder, name] = int(size)
        return folder, name

    def _lora_size(self) -> float:
        return min(2 * GB, max(20 * MB, self.random.lognormvariate(math.log(150 * MB), 0.9)))


def generate(traffic: Traffic, seed: int) -> Iterator[tuple[float, Key, int]]:
    """(time, key, size) of each use."""
    for now, key, size, _ in generate_by_tenant(traffic, seed):
        yield now, key, size


def generate_by_tenant(traffic: Traffic, seed: int) -> Iterator[tuple[float, Key, int, str]]:
    """(time, key, size, tenant) of each use."""
    chance = random.Random(seed)
    world = World(chance)
    ranks = [world.add_workflow() for _ in range(traffic.workflows)]
    chance.shuffle(ranks)
    by_rank = list(itertools.accumulate(1 / (rank + 1) ** traffic.zipf for rank in range(len(ranks))))
    by_tenant = list(itertools.accumulate(1 / (rank + 1) ** 0.8 for rank in range(traffic.tenants)))
    tastes = [chance.sample(ranks, max(2, len(ranks) // 5)) for _ in range(traffic.tenants)]
    sessions: dict[int, list[Key]] = {}
    now, made = 0.0, 0
    while made < traffic.uses:
        now += chance.expovariate(1 / 20)
        if chance.random() < traffic.drift:
            moved = ranks.pop(chance.randrange(len(ranks)))
            ranks.insert(min(len(ranks), int(abs(chance.gauss(0, len(ranks) / 8)))), moved)
        if chance.random() < traffic.arrivals:
            ranks.insert(min(len(ranks), int(chance.expovariate(0.3))), world.add_workflow())
            ranks.pop()
        tenant = chance.choices(range(traffic.tenants), cum_weights=by_tenant)[0]
        if chance.random() < traffic.tried_once:
            models = _choose_models(chance, world.workflows[chance.randrange(len(world.workflows))])
        else:
            if tenant not in sessions or chance.random() >= traffic.stay:
                popular = ranks[chance.choices(range(len(ranks)), cum_weights=by_rank)[0]]
                number = popular if chance.random() < 0.6 else chance.choice(tastes[tenant])
                sessions[tenant] = _choose_models(chance, world.workflows[number])
            models = sessions[tenant]
        for key in models:
            made += 1
            yield now, key, world.sizes[key], f"tenant{tenant}"


def _choose_models(chance: random.Random, workflow: Workflow) -> list[Key]:
    count = min(len(workflow.loras), chance.choice((0, 1, 1, 2, 3)))
    return [workflow.base, workflow.vae, *chance.sample(workflow.loras, count)]


def recency_only(uses: int, seed: int, mean_depth: float = 15) -> Iterator[tuple[float, Key, int]]:
    """What is used next depends on the order of last uses alone: the traffic for which LRU is best."""
    chance = random.Random(seed)
    stack: list[Key] = []
    sizes: dict[Key, int] = {}
    for row in range(uses):
        if len(stack) < 5 or chance.random() < 0.02:
            key = ("", str(len(sizes)))
            sizes[key] = int(chance.choice((0.15, 0.3, 2.1, 6.5, 6.9, 12)) * GB)
        else:
            key = stack.pop(-1 - min(len(stack) - 1, int(chance.expovariate(1 / mean_depth))))
        stack.append(key)
        yield float(row), key, sizes[key]


def traces(kind: str, seed: int, uses: int) -> replay.Trace:
    """A trace by the name of its kind."""
    if kind == "recency only":
        return replay.Trace.of(recency_only(uses, seed))
    return replay.Trace.of(generate(replace(KINDS[kind], uses=uses), seed))


def compare(kinds: list[str], seeds: int, uses: int) -> None:
    """Print, per kind and size, misses over those of LRU: the mean of the seeds, and the worst over all."""
    worst: dict[str, list[tuple[float, float]]] = {name: [] for name in POLICIES[1:]}
    print("bytes missed / misses, as a ratio to LRU: means of", seeds, "seeds of", uses, "uses")
    print(f"{'kind':14} {'disk':>5} {'LRU':>13}", *(f"{name:>13}" for name in POLICIES[1:]))
    for kind in kinds:
        made = [traces(kind, seed, uses) for seed in range(seeds)]
        for share in SHARES:
            results = [{name: replay.replay(trace, int(trace.distinct_bytes() * share), name)
                        for name in POLICIES} for trace in made]
            lru = [one["lru"] for one in results]
            cells = [_cell(statistics.mean(one.byte_miss_ratio for one in lru),
                           statistics.mean(one.object_miss_ratio for one in lru))]
            for name in POLICIES[1:]:
                ratios = [(one[name].bytes_missed / one["lru"].bytes_missed,
                           one[name].misses / one["lru"].misses) for one in results]
                worst[name] += ratios
                cells.append(_cell(*map(statistics.mean, zip(*ratios, strict=True))))
            print(f"{kind:14} {share:5.0%}", *cells, flush=True)
    for word, choose in (("mean", statistics.mean), ("worst", max), ("best", min)):
        cells = [_cell(*map(choose, zip(*worst[name], strict=True))) for name in POLICIES[1:]]
        print(f"{word:14} {'':5} {'':13}", *cells)
    better = sum(ratio[0] < 1 for ratio in worst["forecast"])
    print(f"forecast misses fewer bytes than LRU in {better} of {len(worst['forecast'])} runs")


def check(kinds: list[str], seeds: int, uses: int) -> None:
    """Replay through the quick class of production and the plain formulas; print where they differ."""
    seconds, runs, different = [0.0, 0.0], 0, 0
    for kind, seed, share in itertools.product(kinds, range(seeds), SHARES):
        trace = traces(kind, seed, uses)
        size = int(trace.distinct_bytes() * share)
        missed = []
        for index, policy in enumerate((Forecast(size), plain_forecast.Forecast(size))):
            begin, cache = time.perf_counter(), SimulatedCache(policy, size)
            missed.append([row for row, use in enumerate(trace) if not cache.use(*use)])
            seconds[index] += time.perf_counter() - begin
        runs += 1
        if missed[0] != missed[1]:
            different += 1
            print(f"{kind}, seed {seed}, disk {share:.0%}: {len(missed[0])} misses, plain {len(missed[1])}")
    print(f"{runs} runs of {uses} uses, {different} with other decisions; "
          f"{seconds[0]:.1f} s, plain {seconds[1]:.1f} s")


def _cell(of_bytes: float, of_objects: float) -> str:
    return f"{of_bytes:6.3f}/{of_objects:6.3f}"


def main() -> None:
    """Compare, or write one trace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", action="append", choices=[*KINDS, "recency only"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of --write")
    parser.add_argument("--uses", type=int, default=20_000)
    parser.add_argument("--check", action="store_true", help="compare forecast with its plain formulas")
    parser.add_argument("--write", type=argparse.FileType("w"), metavar="FILE")
    arguments = parser.parse_args()
    kinds = arguments.kind or [*KINDS, "recency only"]
    if arguments.check:
        check(kinds, arguments.seeds, arguments.uses)
        return
    if arguments.write is None:
        compare(kinds, arguments.seeds, arguments.uses)
        return
    writer = csv.writer(arguments.write, lineterminator="\n")
    writer.writerow(("time", "folder", "name", "bytes"))
    writer.writerows((f"{time:.1f}", *key, size)
                     for time, key, size in traces(kinds[0], arguments.seed, arguments.uses))


if __name__ == "__main__":
    main()

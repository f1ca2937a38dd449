"""Which model will a tenant ask for next? Learned from the uses in the access log, use after use.

For each tenant and folder type there is a current model. When another one is used, that is a switch, and this
is what is predicted: a list of models with probabilities. Several simple predictors each give such a list:

    recent        the tenant's other models, the one used last first
    follows       what this tenant has asked for after the current model
    follows all   what any tenant has asked for after the current model
    often         what this tenant asks for most
    popular       what all ask for most, of late
    newest        what anybody has switched to last

    back          the model before the current one

`mix` weighs them: each model has the score sum(weight x log(odds)), and the probabilities are the softmax of
the scores. The weights follow the gradient of the log of the probability that was given to what came (a
conditional logit, with steps as in AdaGrad). So each trace shows by itself which predictors to believe.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_depot.policies import Key

MOST_CANDIDATES = 20
"""Of one predictor."""
LEAST = 0.01
"""The odds of what a predictor did not name."""
STEP = 0.3
FIRST_WEIGHTS = {"follows": 3.0, "follows all": 2.0}
"""What comes after a model says more than what is used much; other predictors begin with 1."""
FIRST_COVERAGE = 0.5

Odds = Mapping[str, float]
"""{name: probability}, which sum up to 1 at most."""


class Tally:
    """Counts of names, in which what was counted `half_life` counts ago counts half."""

    def __init__(self, half_life: float) -> None:
        self._growth = 2 ** (1 / half_life)
        self._unit = 1.0
        self._counts: dict[str, float] = {}
        self._total = 0.0
        self._top: list[tuple[str, float]] = []
        self._age = 0

    def add(self, name: str) -> None:
        """Count one more."""
        self._unit *= self._growth
        self._counts[name] = self._counts.get(name, 0.0) + self._unit
        self._total += self._unit
        self._age += 1
        if self._unit > 1e100:
            self._counts = {name: count / self._unit for name, count in self._counts.items()}
            self._counts = {name: count for name, count in self._counts.items() if count > 1e-9}
            self._total, self._unit = sum(self._counts.values()), 1.0

    def odds(self, without: str) -> Odds:
        """The most frequent names; of large tallies they are found anew now and then only."""
        if not self._top or self._age > len(self._counts) // 100:
            self._top = heapq.nlargest(MOST_CANDIDATES + 1, self._counts.items(), key=lambda item: item[1])
            self._age = 0
        total = self._total - self._counts.get(without, 0.0)
        if total <= 0:
            return {}
        return {name: self._counts.get(name, 0.0) / total for name, _ in self._top if name != without}


@dataclass
class _Stream:
    """What one tenant does in one folder type."""

    current: str | None = None
    order: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Its models; the one used last is the last."""
    often: Tally = field(default_factory=lambda: Tally(40))
    follows: dict[str, Tally] = field(default_factory=lambda: defaultdict(lambda: Tally(8)))


@dataclass
class _Folder:
    """What all tenants do in one folder type."""

    popular: Tally = field(default_factory=lambda: Tally(400))
    follows: dict[str, Tally] = field(default_factory=lambda: defaultdict(lambda: Tally(40)))
    newest: deque[str] = field(default_factory=lambda: deque(maxlen=30))
    weights: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=lambda: defaultdict(lambda: 1e-3))
    """Sums of squares, for the steps."""
    coverage: float = FIRST_COVERAGE
    """How often what came was among the candidates, of late."""


def _by_rank(names: Iterable[str], without: str) -> Odds:
    """Odds that fall with the rank: 1, 1/2, 1/3, ..."""
    listed = [name for name in dict.fromkeys(names) if name != without][:MOST_CANDIDATES]
    total = sum(1 / rank for rank in range(1, len(listed) + 1))
    return {name: 1 / rank / total for rank, name in enumerate(listed, 1)}


METHODS = ("mix", "recent", "markov", "popular")
"""`mix` is what the depot uses; the others are there to compare. `markov` is `follows`, and where that says
nothing `follows all`, then `popular`."""


class Predictor:
    """Learns from uses and says what comes next."""

    def __init__(self, method: str = "mix") -> None:
        self.method = method
        self._streams: dict[tuple[str, str], _Stream] = defaultdict(_Stream)
        self._folders: dict[str, _Folder] = defaultdict(_Folder)

    def use(self, tenant: str, key: Key) -> list[str] | None:
        """Take a use in. For a switch it returns what was predicted before, the most probable first."""
        folder, name = key
        stream, everybody = self._streams[tenant, folder], self._folders[folder]
        before, predicted = stream.current, None
        if before is not None and before != name:
            parts = self._parts(stream, everybody, before)
            odds = self._together(parts, everybody)
            predicted = heapq.nlargest(3, odds, key=odds.__getitem__)
            self._learn(parts, odds, everybody, name)
            stream.follows[before].add(name)
            everybody.follows[before].add(name)
        if before != name:
            stream.often.add(name)
            everybody.popular.add(name)
            everybody.newest.appendleft(name)
            stream.order[name] = None
            stream.order.move_to_end(name)
            stream.current = name
        return predicted

    def next_of(self, tenant: str, folder: str) -> list[tuple[str, float]]:
        """What this tenant will switch to: (name, probability), the most probable first."""
        stream = self._streams.get((tenant, folder))
        if stream is None or stream.current is None:
            return []
        everybody = self._folders[folder]
        odds = self._together(self._parts(stream, everybody, stream.current), everybody)
        return sorted(odds.items(), key=lambda item: -item[1])

    def _parts(self, stream: _Stream, everybody: _Folder, current: str) -> dict[str, Odds]:
        own, general = stream.follows.get(current), everybody.follows.get(current)
        follows = own.odds(current) if own else {}
        follows_all = general.odds(current) if general else {}
        if self.method == "recent":
            return {"recent": _by_rank(reversed(stream.order), current)}
        if self.method == "popular":
            return {"popular": everybody.popular.odds(current)}
        if self.method == "markov":
            return {"markov": follows or follows_all or everybody.popular.odds(current)}
        recent = [name for name in reversed(stream.order) if name != current]
        return {
            "recent": _by_rank(recent, current),
            "back": dict.fromkeys(recent[:1], 1.0),
            "follows": follows,
            "follows all": follows_all,
            "often": stream.often.odds(current),
            "popular": everybody.popular.odds(current),
            "newest": _by_rank(everybody.newest, current),
        }

    def _together(self, parts: dict[str, Odds], everybody: _Folder) -> Odds:
        """The probabilities of all candidates."""
        scores: dict[str, float] = defaultdict(float)
        for part, odds in parts.items():
            weight = everybody.weights.get(part, FIRST_WEIGHTS.get(part, 1.0))
            for name, probability in odds.items():
                scores[name] += weight * _feature(probability)
        highest = max(scores.values(), default=0.0)
        raised = {name: math.exp(score - highest) for name, score in scores.items()}
        total = sum(raised.values()) / everybody.coverage
        return {name: value / total for name, value in raised.items()}

    def _learn(self, parts: dict[str, Odds], odds: Odds, everybody: _Folder, name: str) -> None:
        everybody.coverage += 0.02 * ((name in odds) - everybody.coverage)
        everybody.coverage = max(0.05, everybody.coverage)
        if name not in odds or self.method != "mix":
            return
        total = sum(odds.values())
        for part, own in parts.items():
            expected = sum(odds[other] * _feature(probability) for other, probability in own.items()) / total
            gradient = (_feature(own[name]) if name in own else 0.0) - expected
            everybody.gradients[part] += gradient * gradient
            weight = everybody.weights.get(part, FIRST_WEIGHTS.get(part, 1.0))
            everybody.weights[part] = weight + STEP * gradient / math.sqrt(everybody.gradients[part])


def _feature(probability: float) -> float:
    """0 for what was not named, 1 for what is certain."""
    return math.log(1 + probability / LEAST) / math.log(1 + 1 / LEAST)


@dataclass
class Score:
    """How often a prediction was right."""

    uses: int = 0
    switches: int = 0
    first: int = 0
    """Switches to the most probable model."""
    among_three: int = 0

    def add(self, predicted: list[str] | None, name: str) -> None:
        """One use, and what had been predicted if it was a switch."""
        self.uses += 1
        if predicted is not None:
            self.switches += 1
            self.first += predicted[:1] == [name]
            self.among_three += name in predicted

    def as_json(self) -> dict[str, Any]:
        """Counts and shares; a share is null where there was no switch."""
        def share(count: int) -> float | None:
            return round(count / self.switches, 4) if self.switches else None

        return {"uses": self.uses, "switches": self.switches, "top1": share(self.first),
                "top3": share(self.among_three)}


def evaluate(uses: Iterable[tuple[float, Key, int, str]], method: str = "mix") -> dict[str, Score]:
    """The scores of a method on uses (time, key, size, tenant) in the order of time, each predicted from
    those before: {folder type: score}, with "" for all of them together.
    """
    predictor, scores = Predictor(method), defaultdict[str, Score](Score)
    for _, key, _, tenant in uses:
        predicted = predictor.use(tenant, key)
        for folder in {"", key[0]}:
            scores[folder].add(predicted, key[1])
    return dict(scores)


def in_order(uses: Iterable[tuple[float, Key, int, str]]) -> list[tuple[float, Key, int, str]]:
    """Uses by time; equal times stay in their order, also when the newest came first."""
    listed = list(uses)
    if listed and listed[0][0] > listed[-1][0]:
        listed.reverse()
    return sorted(listed, key=lambda use: use[0])



"""Bodies for POST /prompt that no honest client sends, and a few that one does. A seed always gives the same.

`Hostile(seed, graph).bodies()` goes on forever. Each `Body` says whether it may be accepted: "valid" ones
must be, "refused" ones must not be, and of "any" only the kind of answer is known.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

TEXTS = (
    "",
    " ",
    "0",
    "1",
    "-1",
    "*",
    "a" * 300,
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "é",
    "\u202e",
    "💥",
    "NaN",
    "../../etc/passwd",
    "true",
    "{}",
    "__value__",
    "class_type",
    "\r\nX: y",
    "%s%n",
    "1e400",
)
NUMBERS = (
    0,
    -0.0,
    1,
    -1,
    0.5,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**30,
    10**308,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    float("-inf"),
)
OTHERS = (None, True, False, [], {}, [[]], [{}], {"": {}}, {"__value__": None}, {"__value__": [1, 2]})
FIELDS = (
    "number",
    "front",
    "prompt_id",
    "client_id",
    "extra_data",
    "partial_execution_targets",
    "force",
    "cache",
    "priority",
    "tenant",
    "timeout_seconds",
    "prompt",
)
NEVER_A_BODY = (
    b"",
    b"{",
    b"[",
    b"nonsense",
    b"\xff\xfe\x00",
    b'{"prompt": {',
    b'{"prompt": {}} {}',
    b"'",
    b"\x00" * 10,
    b'{"prompt": \xed\xa0\x80}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"prompt":' + b"9" * 5000 + b"}",
    b"null",
    b"1",
    b'"prompt"',
    b"[]",
    b"true",
    b"{}",
    b"NaN",
)
DEEP = 5000
LARGE = 100_000


@dataclass(frozen=True)
class Body:
    """A body as bytes. `expected` is "valid", "refused" or "any"."""

    name: str
    content: bytes
    expected: str = "any"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


class Hostile:
    """Makes bodies out of an honest graph of a server's nodes."""

    def __init__(
        self, seed: int, graph: dict[str, Any], *, limit: int | None = None, large: int = LARGE
    ) -> None:
        self.random = random.Random(seed)
        self.graph = graph
        self.limit = limit
        """The server's limit of bytes, to go over it now and then."""
        self.large = large

    def bodies(self) -> Iterator[Body]:
        """First one of each kind, then any."""
        kinds: list[Callable[[], Body]] = [
            self.honest,
            self.mutated,
            self.mutated,
            self.mutated,
            self.odd_fields,
            self.odd_links,
            self.circle,
            self.odd_ids,
            self.never_a_body,
            self.odd_header,
            self.deep,
        ]
        rare = [self.large_chain, self.large_circle, self.over_the_limit]
        yield from (make() for make in [*kinds, *rare])
        while True:
            make = self.random.choice(rare if self.random.random() < 0.002 else kinds)
            yield make()

    # -- parts ---------------------------------------------------------------------------------------------

    def junk(self, depth: int = 0) -> Any:
        """Any JSON."""
        kind = self.random.randrange(8 if depth < 3 else 5)
        if kind < 2:
            return self.random.choice(TEXTS)
        if kind == 2:
            return self.random.choice(NUMBERS)
        if kind < 5:
            return copy.deepcopy(self.random.choice(OTHERS))
        if kind == 5:
            return self.random.choice(list(self.graph))
        if kind == 6:
            return [self.junk(depth + 1) for _ in range(self.random.randrange(4))]
        return {self.random.choice(TEXTS): self.junk(depth + 1) for _ in range(self.random.randrange(4))}

    def copied_graph(self) -> dict[str, Any]:
        """The graph with another number in it, so that it runs."""
        graph = copy.deepcopy(self.graph)
        places = [
            (node["inputs"], name)
            for node in graph.values()
            for name, value in node["inputs"].items()
            if type(value) is int
        ]
        inputs, name = self.random.choice(places)
        inputs[name] = self.random.randrange(1, 4)
        return graph

    def body(self, name: str, graph: Any, expected: str = "any", **fields: Any) -> Body:
        """A body of JSON; NaN and infinities go as Python writes them."""
        return Body(name, json.dumps({"prompt": graph, **fields}).encode("ascii"), expected)

    # -- kinds ---------------------------------------------------------------------------------------------

    def honest(self) -> Body:
        """What a client sends."""
        return self.body(
            "honest", self.copied_graph(), "valid", client_id="fuzz", extra_data={"x": [1, None]}
        )

    def mutated(self) -> Body:
        """Some places of an honest body hold something else."""
        whole: Any = {
            "prompt": self.copied_graph(),
            "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}},
        }
        for _ in range(self.random.randrange(1, 4)):
            self._mutate(whole)
        return Body("mutated", json.dumps(whole).encode("ascii"))

    def _mutate(self, whole: Any) -> None:
        places = list(_places(whole))
        if not places:
            return
        where, key = self.random.choice(places)
        action = self.random.randrange(4)
        if action == 0:
            del where[key]
        elif action == 1 and isinstance(where, dict):
            where[self.random.choice(TEXTS)] = where.pop(key)
        elif action == 2:
            where[key] = [where[key]] if self.random.random() < 0.5 else {"__value__": where[key]}
        else:
            where[key] = self.junk()

    def odd_fields(self) -> Body:
        """An honest graph with fields of any shape."""
        names = self.random.sample(FIELDS, self.random.randrange(1, 4))
        content = {"prompt": self.copied_graph(), **{name: self.junk() for name in names}}
        return Body(f"odd {', '.join(names)}", json.dumps(content).encode("ascii"))

    def odd_links(self) -> Body:
        """Links to nowhere, to slots that do not exist, and of odd types."""
        graph = self.copied_graph()
        links = [
            (n["inputs"], k) for n in graph.values() for k, v in n["inputs"].items() if isinstance(v, list)
        ]
        inputs, name = self.random.choice(links)
        place = self.random.randrange(2)
        link = list(inputs[name])
        link[place] = self.junk()
        inputs[name] = link if self.random.random() < 0.9 else link * 2
        return self.body("odd link", graph)

    def circle(self) -> Body:
        """Every link goes to one node, so that it needs itself."""
        graph = self.copied_graph()
        target = self.random.choice([i for i, n in graph.items() if any(map(_is_list, n["inputs"].values()))])
        for node in graph.values():
            node["inputs"].update({k: [target, 0] for k, v in node["inputs"].items() if _is_list(v)})
        return self.body("circle", graph)

    def odd_ids(self) -> Body:
        """Other names of nodes; links follow."""
        names = {one: self.random.choice(TEXTS) + str(place) for place, one in enumerate(self.graph)}
        graph = {names[one]: node for one, node in self.copied_graph().items()}
        for node in graph.values():
            node["inputs"] = {k: [names[v[0]], v[1]] if _is_list(v) else v for k, v in node["inputs"].items()}
        return self.body("odd ids", graph, "valid")

    def never_a_body(self) -> Body:
        """Bytes that are no JSON object with a prompt."""
        return Body("never a body", self.random.choice(NEVER_A_BODY), "refused")

    def odd_header(self) -> Body:
        """An honest body that says that it is something else."""
        kind = self.random.choice(
            (
                "text/plain",
                "application/json; charset=utf-16",
                "application/json; charset=x",
                "multipart/form-data",
                "",
                "application/x-www-form-urlencoded",
            )
        )
        honest = self.body("", self.copied_graph())
        return Body(f"as {kind!r}", honest.content, headers={"Content-Type": kind})

    def deep(self) -> Body:
        """Values nested deeply."""
        graph = self.copied_graph()
        places: list[dict[str, Any]] = [
            {},
            {"extra_pnginfo": {}},
            *(found["inputs"] for found in graph.values()),
        ]
        self.random.choice(places)["deep"] = "HERE"
        text = json.dumps({"prompt": graph, "extra_data": places[0] or places[1]})
        depth = self.random.choice((50, 150, 250, self.random.randrange(300, 1100), DEEP))
        opened, closed = self.random.choice((("[", "]"), ('{"a":', "}"), ('{"__value__":', "}")))
        nested = opened * depth + "0" + closed * depth
        return Body(f"deep {depth}", text.replace('"HERE"', nested).encode("ascii"))

    def large_chain(self) -> Body:
        """As many nodes as anybody would dare."""
        return self.body("large chain", self._chain(), "refused")

    def large_circle(self) -> Body:
        """The same in a circle."""
        graph = self._chain()
        last = str(self.large - 1)
        graph["0"] = {"class_type": graph["1"]["class_type"], "inputs": {"a": [last, 0]}}
        return self.body("large circle", graph, "refused")

    def _chain(self) -> dict[str, Any]:
        """A chain that ends in a node that misses an input, so that nothing is run."""
        step = next(n["class_type"] for n in self.graph.values() if "a" in n["inputs"])
        output = list(self.graph.values())[-1]["class_type"]
        graph: dict[str, Any] = {"0": {"class_type": step, "inputs": {}}}
        for i in range(1, self.large):
            graph[str(i)] = {"class_type": step, "inputs": {"a": [str(i - 1), 0]}}
        graph["end"] = {"class_type": output, "inputs": {"value": [str(self.large - 1), 0]}}
        return graph

    def over_the_limit(self) -> Body:
        """More bytes than the server takes."""
        if self.limit is None:
            return self.never_a_body()
        return self.body("over the limit", self.copied_graph(), "refused", extra_data={"x": "x" * self.limit})


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if _is_list(content) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])

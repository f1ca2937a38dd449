"""Graphs for compare_execution.py: blockers, expansions, order, caching, errors, interruption, the queue."""

from __future__ import annotations

from typing import Any

from benchmarks.execution_client import Post, Prompt, Step
from benchmarks.execution_graphs import (
    CHAIN,
    SCENARIOS,
    TWO_OUTPUTS,
    add,
    again,
    node,
    number,
    numbers,
    renamed,
    shown,
)

__all__ = ["SCENARIOS"]

# -- blockers ----------------------------------------------------------------------------------------------


def blocked(message: str, on: bool = True) -> Prompt:
    """A blocked branch beside a healthy one."""
    return {
        "x": number(),
        "b": node("Block", value=["x", 0], on=on, message=message),
        "c": node("Add", a=["b", 0]),
        "d": node("Add", a=["c", 0]),
        "s": node("Show", value=["d", 0]),
        "good": node("Show", value=["x", 0]),
    }


add("blocker: silent", *again(blocked("")), blocked("", on=False))
add("blocker: with a message", *again(blocked("stop here")))
add("blocker: two consumers", {**blocked("stop"), "e": node("Show", value=["b", 0])})
for message in ("", "odd"):
    add(
        f"blocker: elements {message!r}",
        {
            "x": numbers(4),
            "b": node("BlockOdd", value=["x", 0], message=message),
            "s": node("Show", value=["b", 0]),
            "t": node("ShowList", values=["b", 0]),
            "u": node("Sum", values=["b", 0]),
        },
    )
add(
    "blocker: all outputs",
    {"b": node("BlockAll", message="all"), "s": node("ShowTwo", a=["b", 0], b=["b", 1])},
)
add(
    "blocker: a lazy branch",
    shown(
        x=number(),
        b=node("Block", value=["x", 0], on=True, message="lazy"),
        s=node("Switch", on=True, if_true=["b", 0], if_false=["x", 0]),
    ),
)
add(
    "blocker: into an expansion",
    shown(
        x=number(),
        b=node("Block", value=["x", 0], on=True, message="m"),
        e=node("ExpandAdd", a=["b", 0], b=1),
    ),
)

# -- expansion ---------------------------------------------------------------------------------------------

EXPANSIONS = {
    "ExpandAdd": {"a": 1, "b": 2},
    "ExpandShow": {"value": 1},
    "Loop": {"value": 0, "rounds": 4},
    "ExpandList": {"stop": 3},
    "ExpandListAsValue": {"stop": 3},
    "ExpandMixed": {"value": 1},
    "ExpandShown": {"value": 1},
    "ExpandAsync": {"value": 1},
}
for class_type, inputs in EXPANSIONS.items():
    first = list(inputs)[0]
    changed = {**inputs, first: 7}
    add(
        f"expansion: {class_type}",
        *again({"a": node(class_type, **inputs), "s": node("ShowList", values=["a", 0])}),
        {"a": node(class_type, **changed), "s": node("ShowList", values=["a", 0])},
        renamed({"a": node(class_type, **changed), "s": node("ShowList", values=["a", 0])}),
        {
            "x": number(4),
            "a": node(class_type, **{**inputs, first: ["x", 0]}),
            "s": node("Show", value=["a", 0]),
        },
    )
add("expansion: an output", *again({"x": number(), "a": node("ExpandOutput", value=["x", 0])}))
for class_type in ("ExpandAdd", "ExpandOdd", "ExpandList", "Loop", "ExpandMixed"):
    inputs = {**EXPANSIONS.get(class_type, {"value": 0})}
    inputs[list(inputs)[0]] = ["x", 0]
    add(
        f"expansion: mapped {class_type}",
        *again({"x": numbers(3), "a": node(class_type, **inputs), "s": node("ShowList", values=["a", 0])}),
    )
add(
    "expansion: inner results are kept",
    *[
        {"a": node("ExpandTwo", kept=1, seed=seed), "s": node("ShowTwo", a=["a", 0], b=["a", 1])}
        for seed in (1, 2, 2, 1)
    ],
)
for on in (True, False):
    add(f"expansion: lazy {on}", *again(shown(a=node("ExpandSwitch", on=on, value=1))))
for class_type in ("ExpandFail", "ExpandCircle", "ExpandUnknown"):
    add(
        f"expansion: {class_type}",
        {**shown(a=node(class_type, value=1)), "good": node("Show", value=["x", 0]), "x": number()},
    )
add("expansion: long loop", *again(shown(a=node("Loop", value=0, rounds=120))), is_large=True)

# -- order and asynchronous nodes --------------------------------------------------------------------------

add(
    "order: fork",
    {
        "x": number(),
        "h": node("Add", a=["x", 0]),
        "h2": node("Add", a=["h", 0]),
        "h3": node("Add", a=["h2", 0]),
        "s": node("ShowTwo", a=["h3", 0], b=["x", 0]),
        "p": node("Show", value=["x", 0]),
    },
)
add(
    "order: diamond",
    shown(
        x=number(),
        a=node("Add", a=["x", 0]),
        b=node("Add", a=["x", 0], b=5),
        c=node("Add", a=["a", 0], b=["b", 0]),
    ),
)
add(
    "order: many roots",
    {
        f"{i}{kind}": number(i) if kind == "n" else node("Show", value=[f"{i}n", 0])
        for i in range(5)
        for kind in "sn"
    },
)
add(
    "order: three levels",
    {
        "r": node("ShowTwo", a=["l", 0], b=["m", 0]),
        "l": node("Add", a=["l1", 0], b=["l2", 0]),
        "l1": number(1),
        "l2": node("Add", a=["l3", 0]),
        "l3": number(3),
        "m": node("Pass", value=["m1", 0]),
        "m1": number(4),
        "early": node("Show", value=["m1", 0]),
    },
)
add("async: at once", *again(shown(a=node("AtOnceAsync", value=1), b=node("AtOnceAsync", value=["a", 0]))))
add(
    "async: beside each other",
    {
        "a": node("SleepAsync", value=1, seconds=0.3),
        "b": node("SleepAsync", value=2, seconds=0.15),
        "s": node("ShowTwo", a=["a", 0], b=["b", 0]),
    },
)
add(
    "async: beside a chain",
    {
        "a": node("SleepAsync", value=1, seconds=0.3),
        "s": node("ShowTwo", a=["a", 0], b=["d", 0]),
        "c": number(),
        "d": node("Add", a=["c", 0]),
    },
)
add(
    "async: mapped",
    *again(
        {
            "x": numbers(3),
            "a": node("SleepAsync", value=["x", 0], seconds=0.05),
            "s": node("ShowList", values=["a", 0]),
        }
    ),
)
add("async: an output", *again({"x": number(), "a": node("ShowAsync", value=["x", 0])}))
add(
    "async: fails",
    shown(a=node("FailAsync", value=1, seconds=0.05)),
    shown(a=node("FailAsync", value=1, seconds=0)),
)
add(
    "async: fails beside another",
    {
        "a": node("FailAsync", value=1, seconds=0.05),
        "b": node("SleepAsync", value=1, seconds=0.4),
        "s": node("ShowTwo", a=["a", 0], b=["b", 0]),
    },
    CHAIN,
)
for class_type in ("Context", "ContextAsync"):
    add(
        f"context: {class_type}",
        {"x": numbers(2), "a": node(class_type, value=["x", 0]), "s": node("ShowList", values=["a", 0])},
    )
add("progress", shown(a=node("Progress", value=1, total=3)))

# -- caching -----------------------------------------------------------------------------------------------

add("renamed ids", CHAIN, renamed(CHAIN), CHAIN)
add(
    "equal nodes",
    {"a": node("Count", value=1), "b": node("Count", value=1), "s": node("ShowTwo", a=["a", 0], b=["b", 0])},
)
add("titles", CHAIN, {**CHAIN, "b": {**CHAIN["b"], "_meta": {"title": "another"}}})
add(
    "objects",
    *[{"a": node("Count", value=value), "s": node("Show", value=["a", 0])} for value in (1, 2, 2, 3)],
    CHAIN,
    {"a": node("Count", value=4), "s": node("Show", value=["a", 0])},
)
for class_type in ("CountOfId", "CountEach"):
    prompt = {
        "a": node(class_type, value=1),
        "b": node(class_type, value=1),
        "s": node("ShowTwo", a=["a", 0], b=["b", 0]),
    }
    add(f"not shared: {class_type}", *again(prompt), renamed(prompt))
for kind in ("constant", "time", "nan", "raises", "value"):
    prompt = shown(x=number(), a=node("Changed", kind=kind, value=["x", 0]), b=node("Add", a=["a", 0]))
    add(
        f"is changed: {kind}",
        *again(prompt),
        shown(a=node("ChangedAsync", kind=kind, value=1)),
        shown(a=node("ChangedAsync", kind=kind, value=1)),
    )
add(
    "a literal object",
    *again(shown(a=node("Pass", value={"x": [1, 2], "y": {}}))),
    shown(a=node("Pass", value={"x": [1, 3], "y": {}})),
)
add("numbers and texts that look alike", *[shown(a=node("Pass", value=v)) for v in (1, "1", 1.0, True, None)])
add("a, b, a", CHAIN, shown(z=number(77)), CHAIN)
add("an output comes from the cache", TWO_OUTPUTS, {**TWO_OUTPUTS, "third": node("Show", value=["a", 0])})
add(
    "a failed run keeps results",
    shown(a=node("Count", value=1), b=node("FailOn", value=["a", 0], bad=1)),
    shown(a=node("Count", value=1), b=node("FailOn", value=["a", 0], bad=5)),
)
add(
    "a link instead of a literal",
    shown(a=node("Add", a=1)),
    shown(x=number(1), a=node("Add", a=["x", 0])),
    shown(x=number(2), a=node("Add", a=["x", 0])),
)

# -- errors and interruption -------------------------------------------------------------------------------

add(
    "error: two outputs",
    {**CHAIN, "f": node("Fail", value=["a", 0], message="it fails"), "t": node("Show", value=["f", 0])},
)
add(
    "error: inputs are shown",
    shown(a=numbers(2), f=node("Fail", value=["a", 0], message="list")),
    shown(f=node("Fail", value={"x": 1}, message="object")),
    shown(f=node("Fail", value=None, message="")),
)
add("error: by itself", {"x": node("Fail", value=1, message="one"), "s": node("Show", value=["x", 0])}, CHAIN)
add("interrupt: by the node", shown(x=number(), a=node("InterruptSelf", value=["x", 0])), CHAIN)

SLEEP = shown(x=number(), a=node("Sleep", value=["x", 0], seconds=20))
add("interrupt: in a node", Step((Post(SLEEP),), "a", (("interrupt",),)), CHAIN)
add("interrupt: by id", Step((Post(SLEEP),), "a", (("interrupt", 0),)), CHAIN)
add(
    "interrupt: kept results",
    Step((Post(SLEEP),), "a", (("interrupt",),)),
    shown(x=number(), a=node("Sleep", value=["x", 0], seconds=0.01)),
)
add(
    "interrupt: the one that waits is not touched",
    Step((Post(SLEEP),), "a", (("post", Post(CHAIN)), ("interrupt", 0))),
)
add(
    "interrupt: another prompt's id",
    Step(
        (Post(shown(a=node("Sleep", value=1, seconds=0.3))),), "a", (("post", Post(CHAIN)), ("interrupt", 1))
    ),
)
add(
    "interrupt: an asynchronous node",
    Step(
        (
            Post(
                {
                    "a": node("SleepAsync", value=1, seconds=2),
                    "b": node("Sleep", value=1, seconds=20),
                    "s": node("ShowTwo", a=["a", 0], b=["b", 0]),
                }
            ),
        ),
        "b",
        (("interrupt",),),
    ),
)

# -- the queue ---------------------------------------------------------------------------------------------

SHORT = shown(a=node("Sleep", value=1, seconds=1.0))
LATER = [shown(a=number(100 + i)) for i in range(4)]


def queued(*actions: tuple[Any, ...]) -> Step:
    """Actions while a first prompt runs."""
    return Step((Post(SHORT),), "a", actions)


add("queue: in order", queued(*[("post", Post(prompt)) for prompt in LATER]))
add(
    "queue: front",
    queued(("post", Post(LATER[0])), ("post", Post(LATER[1], {"front": True})), ("post", Post(LATER[2]))),
)
add(
    "queue: numbers",
    queued(
        ("post", Post(LATER[0], {"number": 30000})),
        ("post", Post(LATER[1], {"number": 20000})),
        ("post", Post(LATER[2], {"number": 10000.5})),
    ),
)
add("queue: delete", queued(("post", Post(LATER[0])), ("post", Post(LATER[1])), ("delete", 1)))
add("queue: delete the running one", queued(("post", Post(LATER[0])), ("delete", 0)))
add("queue: clear", queued(("post", Post(LATER[0])), ("post", Post(LATER[1])), ("clear",)))
add("queue: refused ones do not count", queued(("post", Post({"a": number()})), ("post", Post(LATER[0]))))


# -- nodes that describe themselves in a schema ------------------------------------------------------------


def v3(class_type: str, **inputs: Any) -> Prompt:
    """A V3 node that is shown by a V3 node."""
    return {"x": number(3), "a": node(class_type, **inputs), "s": node("V3Show", value=["a", 0])}


add("v3: limits and defaults", *again(v3("V3Add", a=1)), v3("V3Add", a=["x", 0], b=2), v3("V3Add", a=100))
add("v3: asynchronous", *again(v3("V3Async", a=["x", 0])))
add("v3: missing and wrong inputs", v3("V3Add"), v3("V3Add", a="many"), v3("V3Add", a=["s", 0]))
lists = {"x": numbers(3), "a": node("V3Sum", values=["x", 0]), "s": node("ShowList", values=["a", 0])}
add("v3: lists", *again({**lists, "t": node("V3Show", value=["a", 1])}))
for on in (True, False):
    branches = {"t": number(1), "f": number(2)}
    add(f"v3: lazy {on}", {**branches, **v3("V3Switch", on=on, if_true=["t", 0], if_false=["f", 0])})
for kind in ("constant", "nan", "value", "raises"):
    add(f"v3: fingerprint {kind}", *again(v3("V3Changed", kind=kind, value=["x", 0])))
add("v3: validate inputs", v3("V3Judged", text="good"), v3("V3Judged", text="bad"))
add("v3: expansion", *again(v3("V3Expand", value=["x", 0])), v3("V3Expand", value=7))
add("v3: blocker", *again(v3("V3Block", value=1)), v3("V3Block", value=0))
add("v3: hidden", *again({"a": node("V3Hidden", value=1)}))
add("v3: a class is locked", v3("V3Assigns", value=1))
add(
    "v3: not idempotent",
    {
        "a": node("V3Each", value=1),
        "b": node("V3Each", value=1),
        "s": node("ShowTwo", a=["a", 0], b=["b", 0]),
    },
)
grown = {"numbers.number0": 1, "numbers.number1": ["x", 0]}
add("v3: growing inputs", *again(v3("V3Grow", **grown)), v3("V3Grow"), v3("V3Grow", **{"numbers.number0": 5}))
add(
    "v3: inputs by choice",
    *again(v3("V3Mode", **{"mode": "one", "mode.x": 1})),
    v3("V3Mode", mode="one"),
    v3("V3Mode", **{"mode": "two", "mode.x": ["x", 0], "mode.y": "text"}),
    v3("V3Mode", mode="three"),
)

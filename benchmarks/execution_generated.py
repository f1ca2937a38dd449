"""Scenarios of random graphs for compare_execution.py, made by hypothesis; the same seed makes the same ones.

A graph of up to a dozen nodes is run, run again, and run after changes: a literal, a class, new ids, another
set of outputs, a new consumer. Only classes whose order does not depend on time are drawn, and none that is
expected to differ (see EXPECTED in compare_execution.py): no empty lists, no lists out of expansions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.execution_client import Post, Prompt, Scenario, Step
from benchmarks.execution_graphs import node, renamed

Draw = Callable[[Any], Any]

EXAMPLES_FOR_ONE = 4
FEWEST_NODES = 5

SMALL = st.integers(1, 4)
SOURCES = {
    "Number": "value",
    "Range": "stop",
    "ListAndValue": "stop",
    "Count": "value",
    "AtOnceAsync": "value",
}
ONE_INPUT = {
    "Pass": "value",
    "Preview": "value",
    "Save": "value",
    "Reverse": "values",
    "Context": "value",
    "JudgedLink": "value",
    "TakesAny": "value",
    "RawLink": "value",
    "AnyNames": "anything",
}
OF_NUMBERS = {
    "Add": ("a", "b"),
    "Sum": ("values", "plus"),
    "ExpandAdd": ("a", "b"),
    "ExpandOdd": ("value",),
    "ExpandTwo": ("kept", "seed"),
    "ExpandShow": ("value",),
    "FailOn": ("value", "bad"),
    "AtOnceAsync": ("value",),
    "CountEach": ("value",),
    "ExpandMixed": ("value",),
}
NUMBERS = {*SOURCES, *OF_NUMBERS, "Loop"}


def _link_or_number(draw: Draw, prompt: Prompt, numbers: list[str]) -> Any:
    if numbers and draw(st.integers(0, 3)):
        return [draw(st.sampled_from(numbers)), 0]
    return draw(SMALL)


def _draw_node(draw: Draw, prompt: Prompt) -> dict[str, Any]:
    """A node that links to nodes before it."""
    numbers = [one for one, found in prompt.items() if found["class_type"][3:] in NUMBERS]
    kind = draw(st.sampled_from(["source", "numbers", "numbers", "one", "switch", "block", "join", "loop"]))
    if kind == "source" or not prompt:
        class_type = draw(st.sampled_from(sorted(SOURCES)))
        return node(class_type, **{SOURCES[class_type]: draw(SMALL)})
    anything = [draw(st.sampled_from(sorted(prompt))), 0]
    other = [draw(st.sampled_from(sorted(prompt))), 0]
    if kind == "numbers":
        class_type = draw(st.sampled_from(sorted(OF_NUMBERS)))
        names = OF_NUMBERS[class_type]
        more = {"salt": len(prompt)} if class_type.startswith("Expand") else {}
        return node(class_type, **{name: _link_or_number(draw, prompt, numbers) for name in names}, **more)
    if kind == "switch":
        return node("Switch", on=_link_or_number(draw, prompt, []) > 1, if_true=anything, if_false=other)
    if kind == "block":
        message = draw(st.sampled_from(["", "blocked"]))
        return node("Block", value=anything, on=draw(st.booleans()), message=message)
    if kind == "loop":
        return node("Loop", value=draw(SMALL), rounds=draw(SMALL), salt=len(prompt))
    if kind == "join":
        return node("Join", a=anything, b=other)
    class_type = draw(st.sampled_from(sorted(ONE_INPUT)))
    more = {"text": "t"} if class_type == "JudgedLink" else {}
    return node(class_type, **{ONE_INPUT[class_type]: anything}, **more)


@st.composite
def graphs(draw: Draw) -> Prompt:
    """A graph with one to three outputs."""
    prompt: Prompt = {}
    for number in range(draw(st.integers(2, 11))):
        prompt[f"n{number}"] = _draw_node(draw, prompt)
    sources = sorted(prompt)
    for number in range(draw(st.integers(1, 3))):
        source = [draw(st.sampled_from(sources)), 0]
        class_type, name = draw(st.sampled_from([("Show", "value"), ("ShowList", "values")]))
        prompt[f"out{number}"] = node(class_type, **{name: source})
    return prompt


def _with_another_literal(draw: Draw, prompt: Prompt) -> Prompt:
    places = [
        (node_id, name)
        for node_id, found in prompt.items()
        for name, value in found["inputs"].items()
        if type(value) is int and name != "salt" and not found["class_type"].endswith("Loop")
    ]
    if not places:
        return prompt
    node_id, name = draw(st.sampled_from(places))
    found = prompt[node_id]
    return {**prompt, node_id: {**found, "inputs": {**found["inputs"], name: draw(SMALL)}}}


@st.composite
def scenarios(draw: Draw) -> tuple[Step, ...]:
    """A graph, then the same graph changed and run again."""
    prompt = draw(graphs())
    steps = [Step((Post(prompt),))]
    for _ in range(draw(st.integers(2, 4))):
        change = draw(st.sampled_from(["again", "literal", "literal", "renamed", "targets", "consumer"]))
        fields: dict[str, Any] = {}
        if change == "literal":
            prompt = _with_another_literal(draw, prompt)
        elif change == "renamed":
            prompt = renamed(prompt, "r ")
        elif change == "targets":
            outputs = [one for one, found in prompt.items() if found["class_type"].startswith("CmpShow")]
            fields["partial_execution_targets"] = draw(st.lists(st.sampled_from(outputs), unique=True))
        elif change == "consumer":
            source = draw(st.sampled_from(sorted(prompt)))
            if not source.split()[-1].startswith("out"):
                prompt = {**prompt, f"more {len(prompt)}": node("Show", value=[source, 0])}
        steps.append(Step((Post(prompt, fields),)))
    return tuple(steps)


def generated(count: int, number: int) -> list[Scenario]:
    """This many scenarios of a seed, each of other classes: hypothesis likes to vary what it had before."""
    found: dict[tuple[str, ...], tuple[Step, ...]] = {}

    @seed(number)
    @settings(
        max_examples=max(1, EXAMPLES_FOR_ONE * count),
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(scenarios())
    def collect(steps: tuple[Step, ...]) -> None:
        prompt = steps[0].posts[0].prompt
        if len(prompt) >= FEWEST_NODES:
            found.setdefault(tuple(sorted(one["class_type"] for one in prompt.values())), steps)

    if count:
        collect()
    chosen = list(found.values())[-count:] if count else []
    return [Scenario(f"generated {number}.{place}", steps) for place, steps in enumerate(chosen, 1)]

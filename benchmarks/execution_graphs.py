"""The graphs that compare_execution.py runs on two servers: inputs, lists, returns, lazy inputs.

Those about how nodes run are in execution_runs.py.

A graph is written as {id: node(class, input=value or [id, slot])}; the classes are those of
tests/fakes/compare_pack, whose names begin with "Cmp" on the server.
"""

from __future__ import annotations

from typing import Any

from benchmarks.execution_client import PREFIX, Post, Prompt, Scenario, Step

SCENARIOS: list[Scenario] = []


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """An entry of a prompt."""
    return {"class_type": PREFIX + class_type, "inputs": inputs}


def run(prompt: Prompt, **fields: Any) -> Step:
    """One prompt, waited for. `fields` are other fields of the body."""
    return Step((Post(prompt, fields),))


def add(name: str, *steps: Step | Prompt, is_large: bool = False) -> None:
    """A scenario; a prompt stands for the step that runs it."""
    made = tuple(step if isinstance(step, Step) else run(step) for step in steps)
    SCENARIOS.append(Scenario(name, made, is_large=is_large))


def shown(**nodes: Any) -> Prompt:
    """The nodes (a, b, c...), and one that shows the first output of the last of them."""
    return {**nodes, "show": node("Show", value=[list(nodes)[-1], 0])}


def again(prompt: Prompt) -> tuple[Prompt, Prompt]:
    """The prompt twice: the second time it is cached."""
    return prompt, prompt


def renamed(prompt: Prompt, prefix: str = "new ") -> Prompt:
    """The same graph with other ids."""

    def value_of(value: Any) -> Any:
        is_link = isinstance(value, list) and value[0] in prompt
        return [prefix + value[0], value[1]] if is_link else value

    return {
        prefix + node_id: {**one, "inputs": {name: value_of(value) for name, value in one["inputs"].items()}}
        for node_id, one in prompt.items()
    }


def number(value: Any = 1) -> dict[str, Any]:
    """A number."""
    return node("Number", value=value)


def numbers(stop: int = 3) -> dict[str, Any]:
    """A list 0, 1, 2..."""
    return node("Range", stop=stop)


# -- which nodes are considered ----------------------------------------------------------------------------

CHAIN = shown(a=number(), b=node("Add", a=["a", 0], b=2), c=node("Add", a=["b", 0], b=3))
TWO_OUTPUTS = {**CHAIN, "other": node("Show", value=["b", 0])}

add("no outputs", {"a": number()}, {})
add("chain, again, changed", *again(CHAIN), {**CHAIN, "b": node("Add", a=["a", 0], b=9)}, CHAIN)
add(
    "targets",
    run(TWO_OUTPUTS, partial_execution_targets=["other"]),
    run(TWO_OUTPUTS, partial_execution_targets=["show"]),
    TWO_OUTPUTS,
    run(TWO_OUTPUTS, partial_execution_targets=[]),
    run(TWO_OUTPUTS, partial_execution_targets=["a"]),
    run(TWO_OUTPUTS, partial_execution_targets=["gone"]),
)
add("unknown class", {**CHAIN, "x": node("Gone")}, {**CHAIN, "x": {"inputs": {}}}, CHAIN)
add("one output is bad", {**CHAIN, "x": node("Show")}, {**CHAIN, "x": node("Show", value=["gone", 0])})
add(
    "undeclared inputs",
    shown(a=node("Number", value=1, more=2)),
    shown(a=node("Number", value=1, more=3)),
    shown(x=number(5), a=node("Number", value=1, more=["x", 0])),
)
add(
    "undeclared to keywords",
    shown(a=node("Keywords", value=1, more=2)),
    shown(x=number(5), a=node("Keywords", value=1, more=["x", 0])),
)
add("inputs of any name", *again(shown(x=number(5), a=node("AnyNames", one=1, two=["x", 0]))))
add("unneeded nodes", {**CHAIN, "x": number(3), "y": node("Fail", value=1, message="no")})
add("nothing needed runs twice", *again({"a": node("NoInputs"), "show": node("Show", value=["a", 0])}))

# -- validation --------------------------------------------------------------------------------------------

TYPED = {"i": 1, "f": 1.5, "s": "text", "b": True}


def typed(**changed: Any) -> Prompt:
    """A node with an input of each type."""
    return {"a": node("Typed", **{**TYPED, **changed})}


add(
    "literals are converted",
    typed(),
    typed(i="12", f="2.5", s=5, b="false"),
    typed(i=3.7, f=2, b=0),
    typed(i=True, s=None, b=None),
    typed(b=[], s=1.0),
)
add(
    "literals of a wrong type",
    typed(i="many"),
    typed(f="much"),
    typed(i=None),
    typed(f={}),
    typed(i={}),
    typed(i="many", f="much"),
)
add(
    "wrapped values",
    typed(i={"__value__": 5}),
    shown(a=node("Pass", value={"__value__": [1, 2, 3]})),
    shown(a=node("Pass", value={"__value__": ["a", 0]})),
)
add(
    "odd links",
    shown(a=node("Pass", value=[1])),
    shown(a=node("Pass", value=[1, 2, 3])),
    shown(a=number(), b=node("Pass", value=["a", "0"])),
    shown(a=number(), b=node("Pass", value=["a", 9])),
    shown(a=number(), b=node("Pass", value=["a", -1])),
    shown(a=node("Pass", value=["gone", 0])),
    shown(a=number(), b=node("Pass", value=[["a"], 0])),
    shown(a=number(), b=node("Pass", value=[None, 0])),
)
add("a link to a missing node two steps up", shown(a=node("Add", a=["gone", 0]), b=node("Add", a=["a", 0])))
add(
    "limits",
    {"a": node("Limited", i=1, f=0.0)},
    {"a": node("Limited", i=9, f=1.0)},
    {"a": node("Limited", i=0, f=0.5)},
    {"a": node("Limited", i=10, f=1.5)},
    {"x": number(100), "a": node("Limited", i=["x", 0], f=0.5)},
)
add(
    "choices",
    {"a": node("Choice", value="b")},
    {"a": node("Choice", value="x")},
    {"a": node("LongChoice", value="x")},
    {"a": node("Combo", value="a")},
    {"a": node("Combo", value="x")},
    {"a": node("Choice", value=1)},
    {"a": node("Choice", value=None)},
    {"x": node("MakesChoice", value="b"), "a": node("Combo", value=["x", 0])},
    {"x": node("MakesChoice", value="b"), "a": node("Choice", value=["x", 0])},
    {"x": number(), "a": node("Choice", value=["x", 0])},
)
add(
    "missing inputs",
    {"a": node("Typed", i=1)},
    {"a": node("Show")},
    shown(a=node("Switch", on=True)),
    shown(a=node("Add", b=1), b=node("Add", a=["a", 0])),
)
add(
    "types of links",
    shown(a=node("Text", value="x"), b=node("Add", a=["a", 0])),
    shown(a=node("MakesAny", value=1), b=node("Add", a=["a", 0])),
    shown(a=node("Text", value="x"), b=node("TakesAny", value=["a", 0])),
    shown(a=node("MakesUnion", value=1), b=node("Add", a=["a", 0])),
    shown(a=number(), b=node("TakesUnion", value=["a", 0])),
    shown(a=node("MakesUnion", value=1), b=node("TakesUnion", value=["a", 0])),
    shown(a=node("Pass", value=1), b=node("Add", a=["a", 0])),
)
for kind in ("ok", "no", "text", "raises"):
    add(
        f"validate inputs: {kind}",
        *again(shown(a=node("Judged", kind=kind))),
        shown(a=node("JudgedAsync", kind=kind), b=node("Add", a=["a", 0])),
        {
            "s": node("Show", value=["a", 0]),
            "t": node("Show", value=["b", 0]),
            "a": node("Judged", kind=kind),
            "b": node("Add", a=["a", 0]),
            "good": node("Show", value=1),
        },
    )
add(
    "validate inputs of all",
    shown(a=node("JudgedAll", value="new", limit=9)),
    shown(a=node("JudgedAll", value="bad", limit=9)),
    shown(x=number(), a=node("JudgedAll", value="a", limit=["x", 0])),
)
add(
    "validate inputs by type",
    shown(x=number(), a=node("JudgesTypes", value=["x", 0])),
    shown(x=node("Text", value=""), a=node("JudgesTypes", value=["x", 0])),
    shown(a=node("JudgesTypes", value=3)),
)
add(
    "validate inputs of a link",
    shown(x=number(), a=node("JudgedLink", value=["x", 0], text="fine")),
    shown(x=number(), a=node("JudgedLink", value=["x", 0], text="bad")),
)
add(
    "circle",
    shown(a=node("Add", a=["b", 0]), b=node("Add", a=["a", 0])),
    shown(a=node("Add", a=["a", 0])),
    {**shown(a=node("Add", a=["b", 0]), b=node("Add", a=["a", 0])), "good": node("Show", value=1)},
)
add(
    "a bad node feeds three",
    {
        "bad": node("Number", value="x"),
        **{f"{i}": node("Show", value=["bad", 0]) for i in range(3)},
        "good": node("Show", value=["ok", 0]),
        "ok": number(),
    },
)
add("raw link", *again(shown(a=number(), b=node("RawLink", value=["a", 0]))))
add("defaults and forced inputs", shown(a=node("Add", a=1)), {"a": node("ForcedInput", value=3)})

# -- hidden inputs -----------------------------------------------------------------------------------------

HIDDEN = {"a": node("Hidden", value=1), "b": number()}
add(
    "hidden inputs",
    HIDDEN,
    run(HIDDEN, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}}),
    HIDDEN,
    {"z": node("Hidden", value=1, unique_id="mine", prompt=5)},
)
add("tokens", run(HIDDEN, extra_data={"auth_token_comfy_org": "secret", "api_key_comfy_org": "key", "x": 1}))
add("an odd hidden input", {"a": node("OddHidden", value=1)}, {"a": node("OddHidden", value=1, odd="given")})
add("extra data is kept", run(CHAIN, extra_data={"preview_method": "none", "mine": [1, {"x": None}]}))

# -- lists -------------------------------------------------------------------------------------------------

add(
    "mapped",
    *again(
        {
            "x": numbers(3),
            "y": numbers(2),
            "a": node("Add", a=["x", 0], b=["y", 0]),
            "show": node("ShowList", values=["a", 0]),
            "each": node("Show", value=["a", 0]),
        }
    ),
)
add(
    "list and value",
    {
        "x": node("ListAndValue", stop=3),
        "a": node("Add", a=["x", 0], b=["x", 1]),
        "s": node("ShowList", values=["a", 0]),
        "t": node("ShowList", values=["x", 1]),
    },
)
add(
    "input is list",
    shown(x=numbers(4), a=node("Sum", values=["x", 0], plus=5)),
    shown(a=node("Sum", values=5)),
)
add(
    "lists in and out",
    {
        "x": numbers(3),
        "a": node("Reverse", values=["x", 0]),
        "b": node("Repeat", value=["a", 0], times=2),
        "s": node("ShowList", values=["b", 0]),
    },
)
add(
    "repeat per element",
    {"x": numbers(3), "a": node("Repeat", value="v", times=["x", 0]), "s": node("ShowList", values=["a", 0])},
)
add(
    "a list as one value",
    {
        "x": node("ListAsValue", stop=3),
        "s": node("Show", value=["x", 0]),
        "t": node("ShowList", values=["x", 0]),
    },
)
add(
    "empty list",
    shown(x=numbers(0), a=node("Add", a=["x", 0], b=1)),
    {"x": numbers(0), "s": node("ShowList", values=["x", 0])},
)
add("only empty lists", shown(x=numbers(0), a=node("Pass", value=["x", 0])))
add("ui of several calls", {"x": numbers(3), "a": node("Show", value=["x", 0])})
add(
    "ui with other keys",
    {"x": numbers(2), "a": node("KeysByNumber", value=["x", 0])},
    {"x": numbers(2), "r": node("Reverse", values=["x", 0]), "a": node("KeysByNumber", value=["r", 0])},
)
add("an error in one element", shown(x=numbers(4), a=node("FailOn", value=["x", 0], bad=2)))

# -- returns -----------------------------------------------------------------------------------------------

for form in ("tuple", "list", "long", "short", "result", "ui", "both", "empty ui", "text"):
    add(
        f"returns: {form}",
        *again({"a": node("Returns", form=form), "s": node("Show", value=["a", 0])}),
        {"a": node("Ends", form=form)},
    )
add(
    "returns: a slot that is missing", {"a": node("Returns", form="short"), "s": node("Show", value=["a", 1])}
)
add("returns: nothing", *again({"a": node("Ends", form="none")}), {"a": node("Ends", form="nothing")})
add("returns: none with outputs", {"a": node("Returns", form="none"), "s": node("Show", value=["a", 0])})
add(
    "an output that hands on",
    *again(shown(a=number(), b=node("Save", value=["a", 0]), c=node("Add", a=["b", 0]))),
)
add("ui in the middle", *again(shown(a=number(), b=node("Preview", value=["a", 0]))))

# -- laziness ----------------------------------------------------------------------------------------------


def switch(on: Any, class_type: str = "Switch", **more: Any) -> Prompt:
    """A switch between two chains."""
    chosen = node(class_type, on=on, if_true=["t", 0], if_false=["f", 0])
    return shown(
        t1=number(1), t=node("Add", a=["t1", 0]), f1=number(10), f=node("Add", a=["f1", 0]), **more, s=chosen
    )


for class_type in ("Switch", "SwitchAsync"):
    add(
        f"lazy: {class_type}",
        *again(switch(True, class_type)),
        switch(False, class_type),
        switch(True, class_type),
    )
add("lazy: mapped", switch(["m", 0], m=numbers(2)))
add("lazy: literals", shown(s=node("Switch", on=True, if_true=1, if_false=2)))
add(
    "lazy: one after the other",
    *again(
        shown(a=number(1), b=number(2), c=number(3), s=node("OneByOne", a=["a", 0], b=["b", 0], c=["c", 0]))
    ),
)
for names in ("a b", "", "None", "nope", "names", "a a"):
    add(
        f"lazy: asks for {names!r}",
        shown(a=number(1), b=number(2), s=node("Asks", names=names, a=["a", 0], b=["b", 0])),
    )
add("lazy: never asks", shown(a=number(1), s=node("NeverAsks", value=1, a=["a", 0])))
add("lazy: lists", shown(x=numbers(3), y=numbers(2), s=node("LazyList", values=["x", 0], more=["y", 0])))
add(
    "lazy: nested",
    shown(
        a=number(1),
        b=number(2),
        c=number(3),
        i=node("Switch", on=False, if_true=["a", 0], if_false=["b", 0]),
        s=node("Switch", on=True, if_true=["i", 0], if_false=["c", 0]),
    ),
)
add(
    "lazy: the branch fails",
    shown(
        a=number(1),
        b=node("Fail", value=1, message="unneeded"),
        s=node("Switch", on=True, if_true=["a", 0], if_false=["b", 0]),
    ),
    shown(
        a=number(1),
        b=node("Fail", value=1, message="needed"),
        s=node("Switch", on=False, if_true=["a", 0], if_false=["b", 0]),
    ),
)

"""Nodes that decide: lazy inputs, IS_CHANGED, VALIDATE_INPUTS, limits and types."""

import time

from .declare import ANY, BOOLEAN, INT, LAZY, STRING, describe, node, shown

# -- lazy inputs -------------------------------------------------------------------------------------------


def wants_branch(self, on, if_true=None, if_false=None):
    if on and if_true is None:
        return ["if_true"]
    if not on and if_false is None:
        return ["if_false"]
    return []


@node(
    "Switch",
    {"on": BOOLEAN, "if_true": LAZY, "if_false": LAZY},
    returns=("*",),
    check_lazy_status=wants_branch,
)
def switch(self, on, if_true=None, if_false=None):
    return (if_true if on else if_false,)


async def wants_branch_async(self, on, if_true=None, if_false=None):
    return wants_branch(self, on, if_true, if_false)


@node(
    "SwitchAsync",
    {"on": BOOLEAN},
    optional={"if_true": LAZY, "if_false": LAZY},
    returns=("*",),
    check_lazy_status=wants_branch_async,
)
async def switch_async(self, on, if_true=None, if_false=None):
    return (if_true if on else if_false,)


def wants_next(self, a=None, b=None, c=None):
    return [name for name, value in (("a", a), ("b", b), ("c", c)) if value is None][:1]


@node("OneByOne", {"a": LAZY, "b": LAZY, "c": LAZY}, returns=("STRING",), check_lazy_status=wants_next)
def one_by_one(self, a, b, c):
    return (describe([a, b, c]).__str__(),)


def wants_named(self, names, a=None, b=None):
    return names.split() if names != "None" else None


@node(
    "Asks",
    {"names": STRING},
    optional={"a": LAZY, "b": LAZY},
    returns=("STRING",),
    check_lazy_status=wants_named,
)
def asks(self, names, a="default", b="default"):
    return (f"{describe(a)} {describe(b)}",)


@node("NeverAsks", {"value": INT}, optional={"a": LAZY}, returns=("STRING",))
def never_asks(self, value, a="default"):
    return (str(a),)


def wants_rest(self, values, more=None):
    return ["more"] if None in (more or ()) else []


@node(
    "LazyList",
    {"values": INT},
    optional={"more": ("INT", {"lazy": True})},
    INPUT_IS_LIST=True,
    check_lazy_status=wants_rest,
)
def lazy_list(self, values, more=()):
    return (sum(values) + 10 * sum(more),)


# -- IS_CHANGED --------------------------------------------------------------------------------------------


def change_of(cls, kind, value=None):
    if kind == "raises":
        raise ValueError("nobody knows")
    return {"constant": 1, "time": time.time_ns(), "nan": float("nan"), "value": describe(value)}[kind]


KINDS = (["constant", "time", "nan", "raises", "value"],)


@node("Changed", {"kind": KINDS, "value": INT}, IS_CHANGED=change_of)
def changed(self, kind, value):
    return (value,)


async def change_of_async(cls, kind, value=None):
    return change_of(cls, kind, value)


@node("ChangedAsync", {"kind": KINDS, "value": INT}, IS_CHANGED=change_of_async)
def changed_async(self, kind, value):
    return (value,)


# -- limits and types --------------------------------------------------------------------------------------

LIMITED = {
    "i": ("INT", {"default": 5, "min": 1, "max": 9}),
    "f": ("FLOAT", {"default": 0.5, "min": 0.0, "max": 1.0}),
}


@node("Limited", LIMITED, returns=(), output=True)
def limited(self, i, f):
    return shown(i, f)


@node("Choice", {"value": (["a", "b", "c"],)}, returns=(), output=True)
def choice(self, value):
    return shown(value)


@node("LongChoice", {"value": ([f"item {i}" for i in range(30)],)}, returns=(), output=True)
def long_choice(self, value):
    return shown(value)


@node("Combo", {"value": ("COMBO", {"options": ["a", "b"]})}, returns=(), output=True)
def combo(self, value):
    return shown(value)


@node("MakesChoice", {"value": STRING}, returns=(["a", "b"],))
def makes_choice(self, value):
    return (value,)


@node("ForcedInput", {"value": ("INT", {"forceInput": True})}, returns=(), output=True)
def forced_input(self, value):
    return shown(value)


class AnyType(str):
    """The way of many packs to make a type that fits everything."""

    def __ne__(self, other):
        return False

    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


@node("MakesAny", {"value": INT}, returns=(AnyType("*"),))
def makes_any(self, value):
    return (value,)


@node("TakesAny", {"value": (AnyType("*"), {})}, returns=("STRING",))
def takes_any(self, value):
    return (str(describe(value)),)


@node("MakesUnion", {"value": INT}, returns=("INT,FLOAT",))
def makes_union(self, value):
    return (value,)


@node("TakesUnion", {"value": ("STRING,INT", {})}, returns=("STRING",))
def takes_union(self, value):
    return (str(describe(value)),)


# -- VALIDATE_INPUTS ---------------------------------------------------------------------------------------

VERDICTS = (["ok", "no", "text", "raises"],)


def verdict(cls, kind):
    if kind == "raises":
        raise ValueError("cannot be checked")
    return {"ok": True, "no": False, "text": "it is not good"}.get(kind, True)


@node("Judged", {"kind": VERDICTS}, VALIDATE_INPUTS=verdict)
def judged(self, kind):
    return (1,)


async def verdict_async(cls, kind):
    return verdict(cls, kind)


@node("JudgedAsync", {"kind": VERDICTS}, VALIDATE_INPUTS=verdict_async)
async def judged_async(self, kind):
    return (1,)


def verdict_on_all(cls, **named):
    return True if named.get("value") != "bad" else "bad value"


@node("JudgedAll", {"value": (["a"],), "limit": ("INT", {"max": 3})}, VALIDATE_INPUTS=verdict_on_all)
def judged_all(self, value, limit):
    return (limit,)


def verdict_on_types(cls, input_types):
    return True if set(input_types.values()) <= {"INT", "FLOAT"} else f"not numbers: {sorted(input_types)}"


@node(
    "JudgesTypes",
    {"value": ("MODEL", {})},
    optional={"more": ("MODEL", {})},
    VALIDATE_INPUTS=verdict_on_types,
)
def judges_types(self, value, more=None):
    return (1,)


def verdict_on_link(cls, value="missing", text="missing"):
    return True if text != "bad" else "bad text"


@node("JudgedLink", {"value": ANY, "text": STRING}, returns=("STRING",), VALIDATE_INPUTS=verdict_on_link)
def judged_link(self, value, text):
    return (text,)

"""Nodes that make, join, keep and show values; nodes with lists."""

from .declare import ANY, BOOLEAN, FLOAT, INT, STRING, describe, node, shown


@node("Number", {"value": INT})
def number(self, value):
    return (value,)


@node("Text", {"value": STRING}, returns=("STRING",))
def text(self, value):
    return (value,)


@node("Add", {"a": INT}, optional={"b": INT})
def add(self, a, b=1):
    return (a + b,)


@node("Pass", {"value": ANY}, returns=("*",))
def pass_on(self, value):
    return (value,)


@node("Join", {"a": ANY}, optional={"b": ANY, "c": ANY}, returns=("STRING",))
def join(self, a, b=None, c=None):
    return (f"({describe(a)},{describe(b)},{describe(c)})",)


@node("Show", {"value": ANY}, returns=(), output=True)
def show(self, value):
    return shown(value)


@node("ShowTwo", {"a": ANY, "b": ANY}, returns=(), output=True)
def show_two(self, a, b):
    return shown(a, b)


@node("Save", {"value": ANY}, returns=("*",), output=True)
def save(self, value):
    return {"ui": {"saved": [describe(value)]}, "result": (value,)}


@node("Preview", {"value": ANY}, returns=("*",))
def preview(self, value):
    return {"ui": {"preview": [describe(value)]}, "result": (value,)}


@node("Count", {"value": INT})
def count(self, value):
    self.count = getattr(self, "count", 0) + 1
    return (self.count,)


@node("CountOfId", {"value": INT}, hidden={"unique_id": "UNIQUE_ID"}, returns=("INT", "STRING"))
def count_of_id(self, value, unique_id):
    self.count = getattr(self, "count", 0) + 1
    return (self.count, unique_id)


@node("CountEach", {"value": INT}, NOT_IDEMPOTENT=True)
def count_each(self, value):
    self.count = getattr(self, "count", 0) + 1
    return (self.count,)


# -- lists -------------------------------------------------------------------------------------------------


@node("Range", {"stop": INT}, OUTPUT_IS_LIST=(True,))
def numbers(self, stop):
    return (list(range(stop)),)


@node("ListAndValue", {"stop": INT}, returns=("INT", "INT"), OUTPUT_IS_LIST=(True, False))
def list_and_value(self, stop):
    return (list(range(stop)), stop)


@node("ListAsValue", {"stop": INT}, returns=("*",))
def list_as_value(self, stop):
    return (list(range(stop)),)


@node("Repeat", {"value": ANY, "times": INT}, returns=("*",), OUTPUT_IS_LIST=(True,))
def repeat(self, value, times):
    return ([value] * times,)


@node("Sum", {"values": INT}, optional={"plus": INT}, INPUT_IS_LIST=True)
def total(self, values, plus=(0,)):
    return (sum(values) + sum(plus),)


@node("Reverse", {"values": ANY}, returns=("*",), INPUT_IS_LIST=True, OUTPUT_IS_LIST=(True,))
def reverse(self, values):
    return (values[::-1],)


@node("ShowList", {"values": ANY}, returns=(), output=True, INPUT_IS_LIST=True)
def show_list(self, values):
    return shown(*values)


@node("KeysByNumber", {"value": INT}, returns=(), output=True)
def keys_by_number(self, value):
    """The first call shows one key, later calls two."""
    return {"ui": {"first": [value], **({"later": [value]} if value else {})}}


# -- forms of returns --------------------------------------------------------------------------------------

FORMS = {
    "tuple": (1, 2),
    "list": [1, 2],
    "long": (1, 2, 3),
    "short": (1,),
    "result": {"result": (1, 2)},
    "ui": {"ui": {"text": ["shown"]}},
    "both": {"ui": {"text": ["shown"]}, "result": (1, 2)},
    "empty ui": {"ui": {}, "result": (1, 2)},
    "text": "ab",
    "none": None,
    "nothing": {},
}


@node("Returns", {"form": (list(FORMS),)}, returns=("*", "*"))
def returns(self, form):
    return FORMS[form]


@node("Ends", {"form": (list(FORMS),)}, returns=(), output=True)
def ends(self, form):
    return FORMS[form]


@node("NoInputs")
def no_inputs(self):
    return (7,)


# -- hidden inputs, and inputs of any name -----------------------------------------------------------------

HIDDEN = {
    "prompt": "PROMPT",
    "dynprompt": "DYNPROMPT",
    "extra_pnginfo": "EXTRA_PNGINFO",
    "unique_id": "UNIQUE_ID",
    "token": "AUTH_TOKEN_COMFY_ORG",
    "key": "API_KEY_COMFY_ORG",
}


@node("Hidden", {"value": INT}, hidden=HIDDEN, returns=(), output=True)
def hidden_inputs(self, value, prompt, dynprompt, extra_pnginfo, unique_id, token, key):
    return shown(sorted(prompt), type(dynprompt).__name__, extra_pnginfo, unique_id, token, key)


@node("OddHidden", {"value": INT}, hidden={"odd": "SOMETHING"}, returns=(), output=True)
def odd_hidden(self, value, odd="default"):
    return shown(odd)


class AnyName(dict):
    """The way of many packs to take inputs of any name."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return ANY


@node("AnyNames", optional=AnyName(), returns=("STRING",))
def any_names(self, **named):
    return (str({name: describe(value) for name, value in sorted(named.items())}),)


@node("Keywords", {"value": INT}, returns=("STRING",))
def keywords(self, value, **named):
    return (str({name: describe(one) for name, one in sorted(named.items())}),)


@node("RawLink", {"value": ("*", {"rawLink": True})}, returns=("STRING",))
def raw_link(self, value):
    return (str(value),)


@node("Typed", {"i": INT, "f": FLOAT, "s": STRING, "b": BOOLEAN}, returns=(), output=True)
def typed(self, i, f, s, b):
    return shown(i, f, s, b)

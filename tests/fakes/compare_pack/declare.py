"""How this pack makes a node class from a function, and the list of calls that a client can ask for.

Everything that a server asks of the pack is noted in order: runs of nodes with their arguments, `IS_CHANGED`,
`VALIDATE_INPUTS` and `check_lazy_status`.
"""

import functools
import inspect

PREFIX = "Cmp"
LONGEST_TEXT = 200

INT = ("INT", {"default": 0})
FLOAT = ("FLOAT", {"default": 0.0})
STRING = ("STRING", {"default": ""})
BOOLEAN = ("BOOLEAN", {"default": False})
ANY = ("*", {})
LAZY = ("*", {"lazy": True})

CLASSES = {}
CALLS = []
WATCHED = ("IS_CHANGED", "VALIDATE_INPUTS", "check_lazy_status")


def describe(value):
    """A value as the list of calls shows it: the same in every process."""
    if value is None or isinstance(value, (bool, int, float)):
        return value if value == value else "NaN"
    if isinstance(value, str):
        return str.__str__(value)[:LONGEST_TEXT]
    if isinstance(value, (list, tuple)):
        return [describe(one) for one in value]
    if isinstance(value, dict):
        return {str(name): describe(one) for name, one in value.items()}
    return type(value).__name__


def watched(class_name, kind, function):
    """The function, noting each of its calls."""

    def note(arguments, named):
        shown = {name: describe(value) for name, value in sorted(named.items())}
        CALLS.append([class_name, kind, shown])

    @functools.wraps(function)
    def call(*arguments, **named):
        note(arguments, named)
        return function(*arguments, **named)

    @functools.wraps(function)
    async def call_async(*arguments, **named):
        note(arguments, named)
        return await function(*arguments, **named)

    return call_async if inspect.iscoroutinefunction(function) else call


def node(name, required=None, *, optional=None, hidden=None, returns=("INT",), output=False, **attributes):
    """Make the decorated function `(self, **inputs)` a node class of this name."""
    declared = {"required": required or {}}
    declared.update({"optional": optional} if optional is not None else {})
    declared.update({"hidden": hidden} if hidden is not None else {})

    def decorate(function):
        members = {
            "INPUT_TYPES": classmethod(lambda cls: declared),
            "RETURN_TYPES": returns,
            "FUNCTION": "run",
            "CATEGORY": "compare",
            "run": watched(name, "run", function),
        }
        members.update({"OUTPUT_NODE": True} if output else {})
        for attribute, value in attributes.items():
            if attribute in WATCHED:
                value = watched(name, attribute, value)
                value = value if attribute == "check_lazy_status" else classmethod(value)
            members[attribute] = value
        CLASSES[PREFIX + name] = type(PREFIX + name, (), members)
        return function

    return decorate


def shown(*values):
    """What an output node returns to show values as text."""
    return {"ui": {"text": [describe(value) for value in values]}}

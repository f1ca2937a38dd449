"""Shapes of JSON, to say what an answer looks like.

A shape is a type, `[shape]` for a list, `{name: shape}` for an object (`"name?"` may be missing, `...` stands
for further names), `ids(shape)` for an object by names that vary, `same(value)` for itself, and a tuple for
one of several.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ids:
    """An object whose names vary; `least` of them."""

    shape: object
    least: int = 1


@dataclass(frozen=True)
class same:
    """Exactly this value."""

    value: object


def misfit(value, shape, place="answer"):
    """Why a value has not the shape, or None."""
    if isinstance(shape, tuple):
        return None if any(misfit(value, one) is None for one in shape) else f"{place} is {value!r}"
    if isinstance(shape, same):
        return None if value == shape.value else f"{place} is {value!r} and not {shape.value!r}"
    if isinstance(shape, type):
        fits = isinstance(value, shape) and not (shape in (int, float) and isinstance(value, bool))
        return None if fits else f"{place} is {value!r}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place} is no list but {value!r}"
        parts = ((one, shape[0], f"{place}[{number}]") for number, one in enumerate(value))
    elif isinstance(shape, ids):
        if not isinstance(value, dict) or len(value) < shape.least:
            return f"{place} is {value!r}"
        parts = ((one, shape.shape, f"{place}.{name}") for name, one in value.items())
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{place} is no object but {value!r}"
        known = {str(name).rstrip("?") for name in shape if name is not ...}
        missing = {name for name in shape if name is not ... and not name.endswith("?")} - set(value)
        if missing or (... not in shape and set(value) - known):
            return f"{place} has {sorted(value)}"
        parts = (
            (value[name.rstrip("?")], one, f"{place}.{name}")
            for name, one in shape.items()
            if name is not ... and name.rstrip("?") in value
        )
    else:
        return None if value == shape else f"{place} is {value!r} and not {shape!r}"
    return next((found for part in parts if (found := misfit(*part)) is not None), None)

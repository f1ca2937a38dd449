"""What a call of a loader asks for: the files, and its other arguments as a value that can be compared."""

from __future__ import annotations

import enum
import functools
import inspect
import os
from collections.abc import Callable, Hashable
from typing import Any


class NoKey(Exception):
    """An argument has no value that could be compared, such as weights in memory."""


@functools.lru_cache(maxsize=64)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def options_of(
    function: Callable[..., Any], parameter: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[str], Hashable]:
    """(the files that a call names, all its other arguments); raises NoKey where these cannot be compared."""
    try:
        bound = _signature(function).bind(*args, **kwargs)
    except TypeError:  # the loader itself will say what is wrong with the call
        raise NoKey from None
    bound.apply_defaults()
    values = {name: value for name, value in bound.arguments.items() if name != "self"}
    file = values.pop(parameter)
    files = file if isinstance(file, (list, tuple)) else [file]
    if not files or not all(isinstance(one, (str, os.PathLike)) for one in files):
        raise NoKey
    return [os.fspath(one) for one in files], (function.__module__, function.__qualname__, _frozen(values))


def _frozen(value: Any) -> Hashable:
    """A value that is equal for equal arguments, and only for them."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, enum.Enum)):
        return type(value).__name__, value
    if isinstance(value, (list, tuple)):
        return "list", tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return "dict", frozenset((_frozen(name), _frozen(item)) for name, item in value.items())
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(_frozen(item) for item in value)
    is_setting = type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device")
    # A class or function that is made for each call would make each call another one.
    is_code = isinstance(value, type) or inspect.isfunction(value)
    if is_setting or (is_code and "<" not in value.__qualname__):
        found: Hashable = value
        return found
    raise NoKey

"""Clones of node classes that cannot be written to.

A node of the schema interface has no object: its functions get a clone of the class, which carries the hidden
values of one visit. Writing to it would look like state that lasts, and would not last, so it is refused.
"""

from __future__ import annotations

import functools
from typing import Any

_MARK = "_is_locked"


class _Lock:
    """Part of a metaclass: refuses to set or delete attributes of a class once it is marked."""

    def _refuse(cls, name: str) -> None:
        if _MARK in cls.__dict__:
            raise AttributeError(
                f"Attribute {name!r} of {cls.__name__} cannot be changed while the node runs: the class is a "
                "copy for this one call. Return what others need, or keep it in a module of your own."
            )

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._refuse(name)
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        cls._refuse(name)
        super().__delattr__(name)


@functools.lru_cache(maxsize=256)
def _locking(metaclass: Any) -> Any:
    return type(f"Locking_{metaclass.__name__}", (_Lock, metaclass), {})


def _derived(cls: Any, name: str, metaclass: Any, attributes: dict[str, Any]) -> Any:
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return metaclass(name, (cls,), {**names, **attributes})


def shallow_clone_class(cls: Any, new_name: str | None = None) -> Any:
    """A class that is like `cls` and can be changed without changing it."""
    return _derived(cls, new_name or f"{cls.__name__}Clone", type(cls), {})


def lock_class(cls: Any, **attributes: Any) -> Any:
    """A locked class that is like `cls` and has these attributes beside."""
    clone = _derived(cls, cls.__name__, _locking(type(cls)), attributes)
    type.__setattr__(clone, _MARK, True)  # last: what a metaclass or __init_subclass__ sets at birth is fine
    return clone

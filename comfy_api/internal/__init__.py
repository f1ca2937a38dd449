"""What the versions of the node interface share: marks, class tools, and the registry of versions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from comfy_api.internal.api_registry import (
    ComfyAPIBase,
    ComfyAPIWithVersion,
    get_all_versions,
    register_versions,
)
from comfy_api.internal.lazy import lazy_attribute
from comfy_api.internal.locking import lock_class, shallow_clone_class
from comfy_execution.schema_nodes import first_real_override

__all__ = [
    "ComfyAPIBase", "ComfyAPIWithVersion", "as_pruned_dict", "classproperty", "copy_class",
    "first_real_override", "get_all_versions", "is_class", "lazy_attribute", "lock_class",
    "make_locked_method_func", "prune_dict", "register_versions", "shallow_clone_class",
]  # fmt: skip


class _ComfyNodeInternal:
    """Mark of every node class of the schema interface, of any version."""

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        """The entry of the class in /object_info."""
        raise NotImplementedError


class _NodeOutputInternal:
    """Mark of what such nodes return, of any version."""


class classproperty:
    """A property that is read from the class."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __get__(self, obj: Any, owner: Any) -> Any:
        return self.read(owner)


def prune_dict(values: dict[str, Any]) -> dict[str, Any]:
    """Without the entries that are None."""
    return {key: value for key, value in values.items() if value is not None}


def as_pruned_dict(dataclass_object: Any) -> dict[str, Any]:
    """A dataclass as a dictionary, without the fields that are None."""
    return prune_dict(asdict(dataclass_object))


def is_class(obj: Any) -> bool:
    """Is it a class, and no object of one?"""
    return isinstance(obj, type)


def copy_class(cls: Any) -> Any:
    """A class of its own that is like `cls`: what is set on it does not change `cls`."""
    if cls is None:
        return None
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def make_locked_method_func(type_obj: Any, func: str, class_clone: Any) -> Callable[..., Any]:
    """The class method `func` of a node class, to be called with inputs, on a locked clone of the class."""
    method = getattr(type_obj, func).__func__
    locked = lock_class(class_clone)
    if inspect.iscoroutinefunction(method):

        async def call_async(**inputs: Any) -> Any:
            return await method(locked, **inputs)

        return call_async
    return lambda **inputs: method(locked, **inputs)

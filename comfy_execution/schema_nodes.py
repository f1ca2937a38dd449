"""Node classes of the schema interface (V3), as the executor sees them.

Such a class derives from `io.ComfyNode` and describes itself in one `Schema`; the attributes of the older
interface are derived from it there. What differs for the executor: some functions have other names and count
only where they are overridden, hidden values are an attribute and no arguments, inputs may be dynamic, and
every function is called on a locked clone of the class, which belongs to one visit of one node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from comfy_execution import dynamic_inputs

SCHEMA_MARK = "PREPARE_CLASS_CLONE"
"""Only classes of the schema interface have it."""

SchemaData = dict[str, Any]
"""What one visit of such a node knows beside its inputs: hidden_inputs, dynamic_paths,
dynamic_paths_default_value, create_dynamic_tuple."""

OTHER_NAMES = {"VALIDATE_INPUTS": "validate_inputs", "IS_CHANGED": "fingerprint_inputs"}


def is_schema_class(obj: Any) -> bool:
    """Is this a node class of the schema interface, or an object of one?"""
    # Asked of the class: objects of packs may answer to any name.
    return hasattr(obj if isinstance(obj, type) else type(obj), SCHEMA_MARK)


def first_real_override(cls: Any, name: str, *, base: Any = None) -> Callable[..., Any] | None:
    """The function `name` of a class, or None where it is only the placeholder of the base class."""
    if base is None:
        if not hasattr(cls, "GET_BASE_CLASS"):
            raise ValueError(
                f"{cls!r} is no class of the schema interface. Derive it from io.ComfyNode, or name its base."
            )
        base = cls.GET_BASE_CLASS()
    for parent in cls.__mro__:
        if parent is base:
            return None
        if name in parent.__dict__:
            return getattr(cls, name)  # type: ignore[no-any-return]
    return None


def function_name(class_def: Any, name: str, is_schema: bool) -> str | None:
    """The name under which a class has the optional function `name` (VALIDATE_INPUTS, IS_CHANGED,
    check_lazy_status), or None if it has none.
    """
    if not is_schema:
        return name if hasattr(class_def, name) else None
    name = OTHER_NAMES.get(name, name)
    return None if first_real_override(class_def, name) is None else name


def parameters(class_def: Any) -> inspect.FullArgSpec:
    """The arguments of the function that does a node's work."""
    name = "execute" if is_schema_class(class_def) else class_def.FUNCTION
    return inspect.getfullargspec(inspect.unwrap(getattr(class_def, name)))


def hidden_kinds(declared: Mapping[str, Any]) -> dict[str, str]:
    """Kinds of the hidden values by name, from a declaration that holds each as a tuple."""
    return {
        name: kind[0] if isinstance(kind, (tuple, list)) else kind
        for name, kind in (declared.get("hidden") or {}).items()
    }


def schema_data(expansion: dynamic_inputs.Expansion | None, hidden: Mapping[str, Any]) -> SchemaData:
    """The data of a visit. `hidden`: values by kind."""
    data: SchemaData = {"hidden_inputs": dict(hidden)}
    if expansion is not None and expansion.paths:
        data["dynamic_paths"] = expansion.paths
        data["dynamic_paths_default_value"] = expansion.defaults
    return data


def only_inputs_of(names: Any, data: SchemaData) -> SchemaData:
    """The data for a function that takes only the inputs `names`: it gets no other dynamic input either."""
    paths = {
        name: path for name, path in data.get("dynamic_paths", {}).items() if name.partition(".")[0] in names
    }
    return {**data, "dynamic_paths": paths}


class _NestedCall:
    """A function that is called with flat inputs and passes nested ones on."""

    __slots__ = ("function", "data", "__func__")

    def __init__(self, function: Any, data: SchemaData) -> None:
        self.function = function
        self.data = data
        self.__func__ = getattr(function, "__func__", function)  # asked whether it is asynchronous

    def __call__(self, **inputs: Any) -> Any:
        nested = dynamic_inputs.nest(
            inputs,
            self.data["dynamic_paths"],
            self.data.get("dynamic_paths_default_value", {}),
            with_ids=self.data.get("create_dynamic_tuple", False),
        )
        return self.function(**nested)


def bound_function(obj: Any, name: str, data: SchemaData | None) -> Callable[..., Any]:
    """A function of a schema node, to be called with flat inputs, on a locked clone of its class."""
    node_class: Any = obj if isinstance(obj, type) else type(obj)
    node_class.VALIDATE_CLASS()
    function: Callable[..., Any] = getattr(node_class.PREPARE_CLASS_CLONE(data), name)
    return _NestedCall(function, data) if data and data.get("dynamic_paths") else function

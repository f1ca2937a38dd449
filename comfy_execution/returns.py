"""What node functions return, brought into one form.

A node may return a tuple of outputs; a dictionary with any of "ui", "result" and "expand"; an
ExecutionBlocker, which stands for all outputs; an object with the attributes `result`, `ui`, `expand` and
`block_execution`; and None if it has no outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker


class Several:
    """Several values for one slot, where a node gave one: the values of a linked result."""

    __slots__ = ("values",)

    def __init__(self, values: list[Any]) -> None:
        self.values = values


@dataclass
class Returned:
    """The returns of all calls of a node. `graphs` has one entry per call when one of them expanded."""

    results: list[Any] = field(default_factory=list)
    uis: list[dict[str, Any]] = field(default_factory=list)
    graphs: list[tuple[dict[str, Any] | None, Any]] = field(default_factory=list)
    expands: bool = False


def _for_all_slots(value: Any, slots: int) -> Any:
    return (value,) * slots if isinstance(value, ExecutionBlocker) else value


def _is_node_output(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("result", "ui", "expand", "block_execution"))


def _as_dict(value: Any) -> dict[str, Any]:
    """An output object as the dictionary it stands for."""
    parts: dict[str, Any] = {}
    if value.ui is not None:
        parts["ui"] = value.ui if isinstance(value.ui, dict) else value.ui.as_dict()
    if value.expand is not None:
        parts["expand"] = value.expand
    if value.block_execution is not None:
        parts["result"] = ExecutionBlocker(value.block_execution)
    elif value.result is not None:
        parts["result"] = value.result
    return parts


def gather(returns: list[Any], class_def: Any) -> Returned:
    """Sort the returns of all calls into results, user interface data and graphs."""
    slots = len(class_def.RETURN_TYPES)
    found = Returned()
    for value in returns:
        if not isinstance(value, (dict, tuple, list)) and _is_node_output(value):
            value = _as_dict(value)
        if not isinstance(value, dict):
            value = {"result": value}
        if value.get("ui") is not None:
            found.uis.append(value["ui"])
        result = _for_all_slots(value.get("result"), slots)
        if result is None and slots == 0:
            result = ()
        if "expand" in value:
            found.expands = True
            found.graphs.append((value["expand"], result))
        elif "result" in value:
            found.results.append(result)
            found.graphs.append((None, result))
    return found


def merge_results(results: list[Any], class_def: Any) -> list[list[Any]]:
    """One list of values per slot, from the results of all calls in their order.

    A slot that is declared a list takes the items of what a call gave, any other slot takes it as one value.
    """
    if results[0] is None:
        raise TypeError(
            f"The node returned None, but it declares {len(class_def.RETURN_TYPES)} outputs. "
            "Its function must return a tuple with a value for each."
        )
    slots = len(results[0])
    lists = getattr(class_def, "OUTPUT_IS_LIST", None)
    is_list = [False] * slots if lists is None else list(lists)[:slots]
    merged: list[list[Any]] = []
    for slot, takes_items in enumerate(is_list):
        values: list[Any] = []
        for result in results:
            value = result[slot]
            if isinstance(value, Several):
                values.extend(_flat(value.values) if takes_items else value.values)
            elif takes_items and not isinstance(value, ExecutionBlocker):
                values.extend(value)
            else:
                values.append(value)
        merged.append(values)
    return merged


def _flat(values: list[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def merge_uis(uis: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The lists of all calls joined, for each key that the first call has."""
    if not uis:
        return {}
    return {key: [item for ui in uis for item in ui.get(key, ())] for key in uis[0]}

"""What stands for a node class that is gone."""

from __future__ import annotations

from typing import Any, TypedDict


class InputMapOldId(TypedDict):
    """An input of the new class gets what the old one's input `old_id` had."""

    new_id: str
    old_id: str


class InputMapSetValue(TypedDict):
    """An input of the new class gets a value."""

    new_id: str
    set_value: Any


InputMap = InputMapOldId | InputMapSetValue


class OutputMap(TypedDict):
    """An output slot of the new class takes the place of one of the old."""

    new_idx: int
    old_idx: int


class NodeReplace:
    """A class and its successor. `old_widget_ids` are the ids of the old widgets, in the order in which
    workflow files list their values.
    """

    def __init__(
        self,
        new_node_id: str,
        old_node_id: str,
        old_widget_ids: list[str] | None = None,
        input_mapping: list[InputMap] | None = None,
        output_mapping: list[OutputMap] | None = None,
    ) -> None:
        self.new_node_id = new_node_id
        self.old_node_id = old_node_id
        self.old_widget_ids = old_widget_ids
        self.input_mapping = input_mapping
        self.output_mapping = output_mapping

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "new_node_id": self.new_node_id,
            "old_node_id": self.old_node_id,
            "old_widget_ids": self.old_widget_ids,
            "input_mapping": list(self.input_mapping) if self.input_mapping else None,
            "output_mapping": list(self.output_mapping) if self.output_mapping else None,
        }

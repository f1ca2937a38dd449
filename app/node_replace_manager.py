"""Old node classes and what stands for them now.

An entry has the attributes new_node_id, old_node_id, old_widget_ids, input_mapping, output_mapping and a
method as_dict().
"""

from __future__ import annotations

from typing import Any

from comfy_execution.graph_utils import is_link


class NodeReplaceManager:
    """The table old class -> entries; the first entry is the one applied."""

    def __init__(self) -> None:
        self._replacements: dict[str, list[Any]] = {}

    def register(self, node_replace: Any) -> None:
        """Add an entry; the same pair of classes is kept once."""
        entries = self._replacements.setdefault(node_replace.old_node_id, [])
        if all(entry.new_node_id != node_replace.new_node_id for entry in entries):
            entries.append(node_replace)

    def get_replacement(self, old_node_id: str) -> list[Any] | None:
        """The entries for an old class."""
        return self._replacements.get(old_node_id)

    def has_replacement(self, old_node_id: str) -> bool:
        """Is there an entry for the class?"""
        return old_node_id in self._replacements

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """The whole table as JSON."""
        return {old: [entry.as_dict() for entry in entries] for old, entries in self._replacements.items()}

    def apply_replacements(self, prompt: Any) -> None:
        """Rewrite, in place, the nodes of classes that are gone and have a successor that exists."""
        import nodes

        if not self._replacements or not isinstance(prompt, dict):
            return
        for node_id, node in list(prompt.items()):
            entry = self._successor(node, nodes.NODE_CLASS_MAPPINGS)
            if entry is not None:
                prompt[node_id] = replaced_node(node, entry)
                move_links(prompt, node_id, entry.output_mapping or [])

    def _successor(self, node: Any, known: dict[str, Any]) -> Any | None:
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            return None
        if not isinstance(node.get("class_type"), str):
            return None
        entries = self._replacements.get(node["class_type"])
        if not entries or node["class_type"] in known or entries[0].new_node_id not in known:
            return None
        return entries[0]


def replaced_node(node: dict[str, Any], entry: Any) -> dict[str, Any]:
    """The node as one of the new class, its inputs renamed or set as the entry says."""
    inputs: dict[str, Any] = {}
    for rule in entry.input_mapping or []:
        if "set_value" in rule:
            inputs[rule["new_id"]] = rule["set_value"]
        elif rule.get("old_id") in node["inputs"]:
            inputs[rule["new_id"]] = node["inputs"][rule["old_id"]]
    return {**node, "class_type": entry.new_node_id, "inputs": inputs}


def move_links(prompt: dict[str, Any], node_id: str, output_mapping: list[dict[str, int]]) -> None:
    """Let every link from the node's old output slots come from the new ones."""
    moved = {rule["old_idx"]: rule["new_idx"] for rule in output_mapping}
    for node in prompt.values():
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            continue
        for name, value in node["inputs"].items():
            if is_link(value) and value[0] == node_id and value[1] in moved:
                node["inputs"][name] = [node_id, moved[value[1]]]

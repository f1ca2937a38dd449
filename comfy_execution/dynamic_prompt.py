"""The graph of a running prompt: the user's nodes, and those that nodes added at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_execution.errors import NodeNotFoundError
from comfy_execution.node_facts import FactsOfPrompt, NodeFacts, Prompt


class DynamicPrompt:
    """The prompt plus ephemeral nodes. An ephemeral node has a parent (the node that expanded into it), a
    displayed node (where the user sees it) and a real node (the node of the user's graph it descends from).
    """

    def __init__(self, original_prompt: Prompt, classes: Mapping[str, Any] | None = None) -> None:
        self.original_prompt = original_prompt
        self.facts = FactsOfPrompt(classes or {})
        self.ephemeral_prompt: Prompt = {}
        self.ephemeral_parents: dict[str, str] = {}
        self.ephemeral_display: dict[str, str] = {}
        # Kept per node instead of walked: nested expansions (loops) may be thousands deep.
        self._real_ids: dict[str, str] = {}

    def get_node(self, node_id: str) -> dict[str, Any]:
        """The entry of a node. Raises NodeNotFoundError."""
        node = self.original_prompt.get(node_id) or self.ephemeral_prompt.get(node_id)
        if node is None:
            raise NodeNotFoundError(
                f"Node {node_id} is not in the graph, but another node links to it. Check that link."
            )
        return node  # type: ignore[no-any-return]

    def find_node(self, node_id: str) -> dict[str, Any] | None:
        """The entry of a node, or None."""
        return self.original_prompt.get(node_id) or self.ephemeral_prompt.get(node_id)

    def has_node(self, node_id: str) -> bool:
        """Is there such a node?"""
        return node_id in self.original_prompt or node_id in self.ephemeral_prompt

    def node_facts(self, node_id: str) -> NodeFacts:
        """The facts of a node's class."""
        return self.facts.of(self.get_node(node_id)["class_type"])

    def add_ephemeral_node(
        self, node_id: str, node_info: dict[str, Any], parent_id: str, display_id: str
    ) -> None:
        """Enter a node that `parent_id` expanded into."""
        self.ephemeral_prompt[node_id] = node_info
        self.ephemeral_parents[node_id] = parent_id
        self._real_ids[node_id] = self.get_real_node_id(parent_id)
        self.ephemeral_display[node_id] = self.get_display_node_id(display_id)

    def get_real_node_id(self, node_id: str) -> str:
        """The node of the user's graph that this node descends from (itself, if it is one)."""
        return self._real_ids.get(node_id, node_id)

    def get_parent_node_id(self, node_id: str) -> str | None:
        """The node that expanded into this one, or None for a node of the user's graph."""
        return self.ephemeral_parents.get(node_id)

    def get_display_node_id(self, node_id: str) -> str:
        """The node that shows this node's progress and errors."""
        return self.ephemeral_display.get(node_id, node_id)

    def all_node_ids(self) -> set[str]:
        """Ids of all nodes, ephemeral ones included."""
        return {*self.original_prompt, *self.ephemeral_prompt}

    def get_original_prompt(self) -> Prompt:
        """The graph as the user sent it."""
        return self.original_prompt

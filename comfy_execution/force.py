"""Which nodes run again although their results are stored: the fields `force` and `cache` of a request.

    "force": true                 every node that is needed
             "outputs"            nodes that save or show; what they need comes from stored results
             ["9", "KSampler"]    nodes with these ids or classes, and everything that depends on them
    "cache": "read"               stored results are used, new ones are stored (the default)
             "write"              stored results are not used, new ones are stored
             "off"                neither
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.errors import InvalidRequestError
from comfy_execution.graph_utils import is_link
from comfy_execution.node_facts import Prompt
from comfy_execution.results.reasons import FORCED, NOT_READ, NodeKey

FIELDS = ("force", "cache")
CACHE_CHOICES = ("read", "write", "off")
NAMES_IN_MESSAGES = 20


@dataclass(frozen=True)
class Request:
    """What a request says about stored results. At most one of the three forms of `force` is set."""

    every: bool = False
    outputs: bool = False
    names: frozenset[str] = frozenset()
    """Ids and class types."""
    cache: str = "read"


def read_request(fields: Mapping[str, Any]) -> Request:
    """The request in `force` and `cache` of these fields (null and false ask for nothing).

    Raises InvalidRequestError.
    """
    cache = fields.get("cache")
    if cache is not None and cache not in CACHE_CHOICES:
        raise InvalidRequestError(
            "invalid_cache",
            'cache must be "read", "write" or "off"',
            f"Received {_shortened(cache)}.",
            {"choices": list(CACHE_CHOICES)},
        )
    force = fields.get("force")
    is_list = isinstance(force, list) and all(isinstance(name, str) for name in force)
    if not (force is None or isinstance(force, bool) or force == "outputs" or is_list):
        raise InvalidRequestError(
            "invalid_force",
            'force must be true, false, "outputs" or a list of node ids and class types',
            f'Received {_shortened(force)}. Ids are texts, for example ["9", "KSampler"].',
            {"choices": [True, False, "outputs"]},
        )
    return Request(
        every=force is True,
        outputs=force == "outputs",
        names=frozenset(force if isinstance(force, list) else ()),
        cache=cache or "read",
    )


def check_names(request: Request, prompt: Prompt) -> None:
    """Raise InvalidRequestError, with the names that exist, for a name that no node of the prompt has."""
    classes = {node["class_type"] for node in prompt.values()}
    unknown = sorted(request.names - prompt.keys() - classes)
    if not unknown:
        return
    shown, nodes = unknown[:NAMES_IN_MESSAGES], list(prompt.items())[:NAMES_IN_MESSAGES]
    there = ", ".join(f"{node_id} ({node['class_type']})" for node_id, node in nodes)
    more = ", …" if len(prompt) > len(nodes) else ""
    raise InvalidRequestError(
        "invalid_force",
        "force names nodes that are not in the prompt",
        f"No node has the id or class type {', '.join(map(repr, shown))}. "
        f"The nodes are: {there}{more}",
        {
            "unknown": shown,
            "ids": [node_id for node_id, _ in nodes],
            "class_types": sorted(classes)[:NAMES_IN_MESSAGES],
        },
    )


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


class Plan:
    """The nodes of one prompt that must not use their stored results: `reasons`, by node id."""

    def __init__(
        self,
        request: Request,
        dynprompt: DynamicPrompt,
        inner_nodes: Callable[[NodeKey], Iterable[NodeKey]],
    ) -> None:
        """`inner_nodes` gives the nodes that a node expanded into when it ran last, at all depths."""
        self.request = request
        self.reasons: dict[str, str] = {}
        self._dynprompt = dynprompt
        self._inner_nodes = inner_nodes

    def add(self, node_ids: Iterable[str]) -> None:
        """Look at these nodes: all of a prompt, or all that one node expanded into."""
        ids, request = list(node_ids), self.request
        if request.cache != "read":
            self.reasons.update(dict.fromkeys(ids, NOT_READ))
        elif request.every:
            self.reasons.update(dict.fromkeys(ids, FORCED))
        elif request.outputs:
            self.reasons.update((node_id, FORCED) for node_id in ids if self._has_output(node_id))
        elif request.names:
            self._add_named(ids)

    def _has_output(self, node_id: str) -> bool:
        """Is the node an output, or are there outputs among the nodes that it expands into?"""
        key = (node_id, self._dynprompt.get_node(node_id)["class_type"])
        return any(
            self._dynprompt.facts.is_output(class_type) for _, class_type in (key, *self._inner_nodes(key))
        )

    def _add_named(self, ids: list[str]) -> None:
        """The named ones, what depends on them, and what they expand into."""
        consumers: dict[str, list[str]] = {}
        waiting: list[str] = []
        for node_id in ids:
            node = self._dynprompt.get_node(node_id)
            sources = [value[0] for value in node["inputs"].values() if is_link(value)]
            for source in sources:
                consumers.setdefault(source, []).append(node_id)
            is_named = not self.request.names.isdisjoint((node_id, node["class_type"]))
            above = (self._dynprompt.get_parent_node_id(node_id), *sources)
            if is_named or any(other in self.reasons for other in above):
                waiting.append(node_id)
        while waiting:
            node_id = waiting.pop()
            if node_id not in self.reasons:
                self.reasons[node_id] = FORCED
                waiting.extend(consumers.get(node_id, ()))

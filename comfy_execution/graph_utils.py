"""Small things about graphs that node packs use: links, the builder of subgraphs, and the blocker value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any


def is_link(value: object) -> bool:
    """Is this input value a link, `[node id, slot]`?"""
    if not isinstance(value, list) or len(value) != 2:
        return False
    node_id, slot = value
    return isinstance(node_id, str) and (type(slot) is int or isinstance(slot, (int, float)))


class ExecutionBlocker:
    """A value that stops whoever would use it.

    A node returns it for an output that must not be used this time. Consumers are skipped and hand the
    blocker on. With a message, the first consumers report it; with None they are skipped in silence.
    """

    def __init__(self, message: str | None) -> None:
        self.message = message


# [root, call, number of the next graph]: where the next GraphBuilder without a prefix gets its ids from.
# A list, because it is made for every call of every node, and few of them build a graph.
_Prefix = list[Any]

# A context variable: asynchronous nodes build graphs side by side, each with the prefix of its own call.
_prefix: ContextVar[_Prefix | None] = ContextVar("graph_builder_prefix", default=None)
_outside_any_call: _Prefix = ["", 0, 0]


class Node:
    """A node under construction. `out(slot)` is the link to one of its outputs."""

    def __init__(self, id: str, class_type: str, inputs: dict[str, Any]) -> None:
        self.id = id
        self.class_type = class_type
        self.inputs = inputs
        self.override_display_id: str | None = None

    def out(self, index: int) -> list[Any]:
        """The link to output slot `index`."""
        return [self.id, index]

    def set_input(self, key: str, value: Any) -> None:
        """Set an input; None removes it."""
        if value is None:
            self.inputs.pop(key, None)
        else:
            self.inputs[key] = value

    def get_input(self, key: str) -> Any:
        """The value or link of an input, None when it is not set."""
        return self.inputs.get(key)

    def set_override_display_id(self, override_display_id: str) -> None:
        """Show progress of this node on another node of the user's graph."""
        self.override_display_id = override_display_id

    def serialize(self) -> dict[str, Any]:
        """The node as it stands in a prompt."""
        entry: dict[str, Any] = {"class_type": self.class_type, "inputs": self.inputs}
        if self.override_display_id is not None:
            entry["override_display_id"] = self.override_display_id
        return entry


class GraphBuilder:
    """Builds the graph that a node returns under "expand".

    Ids start with `<expanding node>.<call>.<graph>.`: unique in the prompt and the same in every run, so that
    results of unchanged inner nodes are found again.
    """

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = GraphBuilder.alloc_prefix() if prefix is None else prefix
        self.nodes: dict[str, Node] = {}
        self.id_gen = 1

    @classmethod
    def set_default_prefix(cls, prefix_root: str, call_index: int, graph_index: int = 0) -> None:
        """Start the numbering for one call of one node (the executor does this)."""
        _prefix.set([prefix_root, call_index, graph_index])

    @classmethod
    def alloc_prefix(
        cls, root: str | None = None, call_index: int | None = None, graph_index: int | None = None
    ) -> str:
        """The prefix of the next graph; what is not given comes from the running call."""
        default = _prefix.get() or _outside_any_call
        given = (root, call_index, graph_index)
        parts = [own if part is None else part for own, part in zip(default, given, strict=True)]
        default[2] += 1
        return "{}.{}.{}.".format(*parts)

    def node(self, class_type: str, id: str | None = None, **kwargs: Any) -> Node:
        """Add a node, or return the one that has this id already."""
        if id is None:
            id = str(self.id_gen)
            self.id_gen += 1
        full_id = self.prefix + id
        if full_id not in self.nodes:
            self.nodes[full_id] = Node(full_id, class_type, kwargs)
        return self.nodes[full_id]

    def lookup_node(self, id: str) -> Node | None:
        """The node with this id (without the prefix), or None."""
        return self.nodes.get(self.prefix + id)

    def finalize(self) -> dict[str, dict[str, Any]]:
        """The graph, for `{"expand": graph}`."""
        return {node_id: node.serialize() for node_id, node in self.nodes.items()}

    def replace_node_output(self, node_id: str, index: int, new_value: Any) -> None:
        """Give every user of an output another value or link; None removes the inputs."""
        link_id = self.prefix + node_id
        for node in self.nodes.values():
            users = [
                key
                for key, value in node.inputs.items()
                if is_link(value) and value[0] == link_id and value[1] == index
            ]
            for key in users:
                node.set_input(key, new_value)

    def remove_node(self, id: str) -> None:
        """Take a node out again. Raises KeyError if there is none."""
        del self.nodes[self.prefix + id]


def add_graph_prefix(
    graph: Mapping[str, Mapping[str, Any]], outputs: Iterable[Any], prefix: str
) -> tuple[dict[str, dict[str, Any]], tuple[Any, ...]]:
    """The same graph and output links with `prefix` before every node id."""

    def moved(value: Any) -> Any:
        return [prefix + value[0], value[1]] if is_link(value) else value

    new_graph = {
        prefix + node_id: {
            "class_type": node["class_type"],
            "inputs": {name: moved(value) for name, value in node.get("inputs", {}).items()},
        }
        for node_id, node in graph.items()
    }
    return new_graph, tuple(moved(output) for output in outputs)

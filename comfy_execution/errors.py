"""What can be wrong with a graph, or with a request to run it.

    Exception
    ├── DependencyCycleError
    ├── DuplicateNodeError
    ├── InvalidRequestError
    ├── NodeEndedError
    ├── NodeInputError
    └── NodeNotFoundError
"""

from __future__ import annotations

from typing import Any

# Clients tell these by `exception_type`, which holds the module that ComfyUI has them in.
GRAPH = "comfy_execution.graph"


class DependencyCycleError(Exception):
    """Nodes wait for each other in a circle."""

    __module__ = GRAPH


class DuplicateNodeError(Exception):
    """A node expanded into a node whose id is taken."""


class InvalidRequestError(Exception):
    """A field of a request cannot be followed. The parts are those of the answer that refuses it."""

    def __init__(self, kind: str, message: str, details: str, extra_info: dict[str, Any]) -> None:
        super().__init__(f"{message}. {details}")
        self.kind = kind
        self.message = message
        self.details = details
        self.extra_info = extra_info


class NodeEndedError(Exception):
    """A node's code asked the whole program to end, or cancelled itself. Only the node ends."""


class NodeInputError(Exception):
    """A node asked for an input that it does not have, or that is not a link."""

    __module__ = GRAPH


class NodeNotFoundError(Exception):
    """A link or a result names a node that is not in the graph."""

    __module__ = GRAPH

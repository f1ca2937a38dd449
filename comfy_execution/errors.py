"""What can be wrong with a graph.

    Exception
    ├── DependencyCycleError
    ├── DuplicateNodeError
    ├── NodeEndedError
    ├── NodeInputError
    └── NodeNotFoundError
"""

from __future__ import annotations


class DependencyCycleError(Exception):
    """Nodes wait for each other in a circle."""


class DuplicateNodeError(Exception):
    """A node expanded into a node whose id is taken."""


class NodeEndedError(Exception):
    """A node's code asked the whole program to end, or cancelled itself. Only the node ends."""


class NodeInputError(Exception):
    """A node asked for an input that it does not have, or that is not a link."""


class NodeNotFoundError(Exception):
    """A link or a result names a node that is not in the graph."""

"""Why a node ran, or did not: one word per node, kept in the history."""

from __future__ import annotations

from collections import OrderedDict

CACHED = "cached"
"""It did not run: its stored result was used."""
FORCED = "forced"
"""The request asked for it (`force`)."""
NOT_READ = "not read"
"""Stored results were not looked at (`cache`, `--cache-none`)."""
CHANGED = "changed"
"""It, or something it depends on, is not what it was when it ran last."""
DROPPED = "dropped"
"""It ran before just like this, but the result was not kept."""
NEVER_RAN = "never ran"
"""It is new here."""

REMEMBERED_NODES = 20_000

NodeKey = tuple[str, str]
"""(node id, class name)"""


class PastRuns:
    """The signature that each node had when it ran last; of the nodes that ran last, up to a limit."""

    def __init__(self, limit: int = REMEMBERED_NODES) -> None:
        self._limit = limit
        self._signatures: OrderedDict[NodeKey, bytes] = OrderedDict()

    def why(self, node: NodeKey, signature: bytes) -> str:
        """Why a node runs that has no stored result."""
        before = self._signatures.get(node)
        if before is None:
            return NEVER_RAN
        return DROPPED if before == signature else CHANGED

    def note(self, node: NodeKey, signature: bytes) -> None:
        """A node has run."""
        self._signatures[node] = signature
        self._signatures.move_to_end(node)
        if len(self._signatures) > self._limit:
            self._signatures.popitem(last=False)

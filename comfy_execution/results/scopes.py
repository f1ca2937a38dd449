"""Which nodes each expanding node expanded into."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from comfy_execution.results.reasons import NodeKey
from comfy_execution.results.signatures import Signature


class Scope:
    """What one node expanded into: its inner nodes, and the signatures of their results."""

    __slots__ = ("members", "signatures")

    def __init__(
        self, members: Iterable[NodeKey] = (), signatures: Iterable[Signature] = ()
    ) -> None:
        self.members = set(members)
        self.signatures = set(signatures)


class Scopes:
    """Scopes by the node they belong to. Flat, although expansions nest: ids of inner nodes are unique."""

    def __init__(self) -> None:
        self._scopes: dict[NodeKey, Scope] = {}

    def set(self, parent: NodeKey, now: Scope) -> Scope:
        """Note what `parent` expanded into now. Returns what is gone, with all that was nested inside."""
        before = self._scopes.get(parent, Scope())
        self._scopes[parent] = now
        gone = Scope()
        gone.signatures = before.signatures - now.signatures
        gone.members = before.members - now.members
        waiting = list(gone.members)
        while waiting:
            scope = self._scopes.pop(waiting.pop(), None)
            if scope is not None:
                waiting.extend(scope.members)
                gone.members |= scope.members
                gone.signatures |= scope.signatures
        return gone

    def reachable(self, roots: Iterable[NodeKey]) -> list[Scope]:
        """The scopes of these nodes, and of the nodes inside them."""
        found, waiting = [], [key for key in roots if key in self._scopes]
        while waiting:
            scope = self._scopes[waiting.pop()]
            found.append(scope)
            waiting.extend(key for key in scope.members if key in self._scopes)
        return found

    def members(self, root: NodeKey) -> list[NodeKey]:
        """The nodes inside this one, at all depths."""
        return [key for scope in self.reachable([root]) for key in scope.members]

    def copy(self) -> Scopes:
        """Another one that can be changed without changing this one."""
        other = Scopes()
        other._scopes = dict(self._scopes)
        return other

    def keep_only(self, roots: Iterable[NodeKey]) -> list[Scope]:
        """Drop the scopes of nodes that are not in the prompt any more; returns the others."""
        root_keys = set(roots)
        kept = self.reachable(root_keys)
        alive = root_keys.union(*(scope.members for scope in kept))
        self._scopes = {key: scope for key, scope in self._scopes.items() if key in alive}
        return kept


class PastExpansions:
    """What nodes expanded into, by the signature of their content: of the last ones, also of other workflows.

    A stored result stands for all that ran to make it, and whoever wants outputs to run again has to know
    whether there were some inside.
    """

    def __init__(self, limit: int = 20_000) -> None:
        """`limit` counts inner nodes."""
        self._limit = limit
        self._size = 0
        self._inside: OrderedDict[Signature, dict[NodeKey, Signature]] = OrderedDict()

    def note(self, parent: Signature, inside: dict[NodeKey, Signature]) -> None:
        """A node expanded into these."""
        self._size += len(inside) - len(self._inside.pop(parent, ()))
        self._inside[parent] = inside
        while self._size > self._limit and len(self._inside) > 1:
            self._size -= len(self._inside.popitem(last=False)[1])

    def members(self, root: Signature) -> list[NodeKey]:
        """The nodes inside this one, at all depths."""
        found: dict[NodeKey, Signature] = {}
        waiting = [root]
        while waiting:
            inside = self._inside.get(waiting.pop(), {})
            waiting.extend(signature for key, signature in inside.items() if key not in found)
            found.update(inside)
        return list(found)

"""Results and node objects of earlier runs.

    CacheSet
      .outputs   results by signature    ClassicCache | LRUCache | NullCache
      .objects   node objects by (node id, class)
      .scopes    which nodes each expanding node expanded into last time
      .reasons   why each node of the running prompt ran, or did not

A cache mode is one class with the small interface of `ClassicCache`: `begin` a prompt, `expand` a node into
others, `get`, `put`. What a prompt does not use is dropped when the next prompt begins; results inside an
expansion belong to the expanding node and are dropped when it expands into something else, or goes.

A forced node runs although its result is stored: that result is hidden from the prompt until the new one
takes its place. If there is no new one, the next prompt sees the old one again.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, NamedTuple

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.force import Plan, Request
from comfy_execution.is_changed import ChangeValues
from comfy_execution.reasons import CACHED, FORCED, NOT_READ, PLAIN, NodeKey, PastRuns, Reason
from comfy_execution.signatures import Signature, Signatures


class CacheEntry(NamedTuple):
    """What a node gave: `outputs` is a list of values per slot; `ui` is {"meta": ..., "output": ...} or
    None.
    """

    ui: dict[str, Any] | None
    outputs: list[Any]


class CacheType(Enum):
    """How long results are kept."""

    CLASSIC = 0
    LRU = 1
    NONE = 2
    RAM_PRESSURE = 3


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


class ClassicCache:
    """Keeps what the running prompt uses."""

    needs_signatures = True

    def __init__(self) -> None:
        self._entries: dict[Signature, CacheEntry] = {}
        self._signatures: dict[str, Signature] = {}
        self._in_use: set[Signature] = set()
        self._hidden: set[Signature] = set()
        self._fresh: set[Signature] = set()
        """Stored by the running prompt."""
        self.on_drop: Callable[[Iterable[Signature], str], None] = lambda signatures, cause: None
        """Is told which results are dropped, and why (one of `reasons.DROP_CAUSES`)."""

    def _start(self, signatures: dict[str, Signature]) -> None:
        self._signatures = signatures
        self._hidden, self._fresh = set(), set()

    def begin(self, signatures: dict[str, Signature], inner: Iterable[Signature]) -> None:
        """A prompt begins. `signatures`: of its nodes, by id; `inner`: of nodes inside known expansions."""
        self._start(signatures)
        self._in_use = set(signatures.values())
        gone = self._entries.keys() - self._in_use.union(inner)
        for signature in gone:
            del self._entries[signature]
        self.on_drop(gone, "workflow")

    def expand(self, now: Iterable[Signature], gone: Iterable[Signature]) -> None:
        """A node expanded: results of inner nodes that did not come again are dropped."""
        self._in_use.update(now)
        dropped = [key for key in gone if key not in self._in_use and key in self._entries]
        for signature in dropped:
            del self._entries[signature]
        self.on_drop(dropped, "workflow")

    def hide(self, node_ids: Iterable[str]) -> None:
        """The running prompt must not use the results of these nodes that are stored from earlier ones."""
        found = {self._signatures[node_id] for node_id in node_ids if node_id in self._signatures}
        self._hidden |= found - self._fresh

    def is_hidden(self, node_id: str) -> bool:
        """Must the result of this node, or of an equal one, not be used?"""
        return self._signatures.get(node_id) in self._hidden

    def get(self, node_id: str) -> CacheEntry | None:
        """The stored result of a node of the prompt, or None."""
        signature = self._signatures.get(node_id)
        return None if signature is None or signature in self._hidden else self._entries.get(signature)

    def get_local(self, node_id: str) -> CacheEntry | None:
        """The same as `get`, under the name that the execution list asks by."""
        return self.get(node_id)

    def put(self, node_id: str, entry: CacheEntry) -> None:
        """Store the result of a node of the prompt."""
        signature = self._signatures.get(node_id)
        if signature is not None:
            self._entries[signature] = entry
            self._fresh.add(signature)
            self._hidden.discard(signature)

    def all_node_ids(self) -> set[str]:
        """The nodes of the prompt whose result is stored and may be used."""
        usable = self._entries.keys() - self._hidden if self._hidden else self._entries
        return {node_id for node_id, key in self._signatures.items() if key in usable}

    def forget(self) -> None:
        """Drop everything: somebody asked for it."""
        self.on_drop(list(self._entries), "free")
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


class LRUCache(ClassicCache):
    """Keeps the `max_size` results used last. What the running prompt uses is never dropped, even if it is
    more.
    """

    def __init__(self, max_size: int = 100) -> None:
        super().__init__()
        self.max_size = max_size
        self._entries: OrderedDict[Signature, CacheEntry] = OrderedDict()

    def begin(self, signatures: dict[str, Signature], inner: Iterable[Signature]) -> None:
        """A prompt begins: the oldest results go until the rest fits."""
        self._start(signatures)
        in_use = [key for key in dict.fromkeys((*signatures.values(), *inner)) if key in self._entries]
        for signature in in_use:
            self._entries.move_to_end(signature)
        too_many = len(self._entries) - max(self.max_size, len(in_use))
        self.on_drop([self._entries.popitem(last=False)[0] for _ in range(too_many)], "budget")

    def expand(self, now: Iterable[Signature], gone: Iterable[Signature]) -> None:
        """Results of inner nodes age like any other."""

    def put(self, node_id: str, entry: CacheEntry) -> None:
        """Store a result as the one used last."""
        super().put(node_id, entry)
        signature = self._signatures.get(node_id)
        if signature is not None:
            self._entries.move_to_end(signature)


class NullCache(ClassicCache):
    """Keeps nothing."""

    needs_signatures = False

    def put(self, node_id: str, entry: CacheEntry) -> None:
        """Nothing is stored."""


class ObjectCache:
    """Node objects live as long as each prompt contains their node: attributes of `self` persist between
    runs.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        self._keeps = keeps
        self._objects: dict[NodeKey, Any] = {}

    def begin(self, alive: set[NodeKey]) -> None:
        """A prompt begins; objects of other nodes are dropped."""
        self._objects = {key: obj for key, obj in self._objects.items() if key in alive}

    def forget(self, keys: Iterable[NodeKey]) -> None:
        """Inner nodes that an expansion does not have any more."""
        for key in keys:
            self._objects.pop(key, None)

    def get_or_make(self, node_id: str, class_type: str, class_def: Any) -> Any:
        """The object of a node; a new one if there is none."""
        key = (node_id, class_type)
        found = self._objects.get(key)
        if found is None:
            found = class_def()
            if self._keeps:
                self._objects[key] = found
        return found


class CacheSet:
    """All that is remembered between prompts. `cache_args`: {"lru": number of results}."""

    def __init__(
        self, cache_type: CacheType | None = None, cache_args: dict[str, Any] | None = None,
        before: CacheSet | None = None,
    ) -> None:  # fmt: skip
        """With `before`, what that one held is gone, and nodes that ran in it are known."""
        kept = cache_type is not CacheType.NONE
        self.outputs: ClassicCache
        if cache_type is CacheType.LRU:
            self.outputs = LRUCache(max_size=int((cache_args or {}).get("lru", 0)))
        else:
            self.outputs = ClassicCache() if kept else NullCache()
        self.objects = ObjectCache(keeps=kept)
        self.scopes = Scopes()
        self.reasons: dict[str, Reason] = {}
        self._past: PastRuns = PastRuns() if before is None else before._past
        self.outputs.on_drop = self._past.note_drops
        if before is not None:
            before.outputs.forget()
        self._plan: Plan | None = None
        self._signatures: Signatures | None = None
        self._changes: ChangeValues | None = None

    def apart(self) -> CacheSet:
        """An empty store with the same node objects. What is stored in it goes with it."""
        other = copy.copy(self)
        other.outputs = ClassicCache() if self.outputs.needs_signatures else NullCache()
        other.scopes = self.scopes.copy()
        return other

    async def begin(
        self, dynprompt: DynamicPrompt, changes: ChangeValues, request: Request | None = None
    ) -> None:
        """A prompt begins: find its signatures, drop what it does not use, hide what it wants to run again.
        """
        prompt = dynprompt.original_prompt
        self._signatures = None
        self._changes = changes
        if self.outputs.needs_signatures:
            await changes.add(prompt)
            self._signatures = Signatures(dynprompt, changes.values)
            self._signatures.add(prompt)
        keys = {(node_id, node["class_type"]) for node_id, node in prompt.items()}
        scopes = self.scopes.keep_only(keys)
        inner = set[Signature]().union(*(scope.signatures for scope in scopes))
        self.outputs.begin({} if self._signatures is None else self._signatures.by_node, inner)
        self.objects.begin(keys.union(*(scope.members for scope in scopes)))
        self._plan = Plan(request or Request(), dynprompt, self.scopes.members)
        self._plan.add(prompt)
        self.outputs.hide(self._plan.reasons)
        usable = self.outputs.all_node_ids()
        self.reasons = {node_id: PLAIN[CACHED] for node_id in prompt if node_id in usable}

    async def expand(self, dynprompt: DynamicPrompt, parent_id: str, node_ids: Iterable[str]) -> None:
        """A node expanded into these nodes, which are in `dynprompt` already."""
        ids = list(node_ids)
        keys = [(node_id, dynprompt.get_node(node_id)["class_type"]) for node_id in (parent_id, *ids)]
        found: list[Signature] = []
        if self._signatures is not None and self._changes is not None:
            await self._changes.add(ids)
            self._signatures.add(ids)
            found = [self._signatures.by_node[node_id] for node_id in ids]
        if self._plan is not None:
            self._plan.add(ids)
            self.outputs.hide(node_id for node_id in ids if node_id in self._plan.reasons)
        gone = self.scopes.set(keys[0], Scope(keys[1:], found))
        self.outputs.expand(found, gone.signatures)
        self.objects.forget(gone.members)

    # -- why nodes run -------------------------------------------------------------------------------------

    def note_start(self, node_id: str, class_type: str) -> None:
        """A node runs: note why. It may be visited several times before it has run."""
        if self.reasons.get(node_id, PLAIN[CACHED]) is PLAIN[CACHED]:
            self.reasons[node_id] = self._why(node_id, class_type)

    def _why(self, node_id: str, class_type: str) -> Reason:
        if self._plan is not None and node_id in self._plan.reasons:
            return PLAIN[self._plan.reasons[node_id]]
        if self._signatures is None:
            return PLAIN[NOT_READ]
        if self.outputs.is_hidden(node_id):  # an equal node is forced, and this one runs for both
            return PLAIN[FORCED]
        return self._past.why((node_id, class_type), self._signatures)

    def note_reuse(self, node_id: str) -> None:
        """A node takes a stored result, perhaps one that an equal node of the same prompt has just given."""
        self.reasons.setdefault(node_id, PLAIN[CACHED])

    def store(self, node_id: str, class_type: str, entry: CacheEntry) -> None:
        """A node has run: keep its result."""
        self.outputs.put(node_id, entry)
        if self._signatures is not None:
            self._past.note((node_id, class_type), self._signatures)

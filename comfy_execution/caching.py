"""Results and node objects of earlier runs.

    CacheSet
      .outputs   results by signature    RetainingCache | ClassicCache | LRUCache | NullCache
      .objects   node objects by (node id, class)
      .scopes    which nodes each expanding node expanded into last time
      .reasons   why each node of the running prompt ran, or did not

In the classic mode, what a prompt does not use is dropped when it begins; results inside an expansion belong
to the expanding node and are dropped when it expands into something else, or goes. The default mode retains
results of other workflows as far as RAM allows: see `results`.

A forced node runs although its result is stored: that result is hidden from the prompt until the new one
takes its place. If there is no new one, the next prompt sees the old one again.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from comfy_execution.cache_provider import (
    CacheContext,
    CacheValue,
    ProvidersOfPrompt,
    key_hash,
    registered_providers,
)
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.force import Plan, Request
from comfy_execution.is_changed import ChangeValues
from comfy_execution.results.of_models import ResultsOfModels
from comfy_execution.results.reasons import CACHED, FORCED, NOT_READ, PLAIN, NodeKey, PastRuns, Reason
from comfy_execution.results.retention import make_limit
from comfy_execution.results.scopes import PastExpansions, Scope, Scopes
from comfy_execution.results.signatures import Signature, Signatures
from comfy_execution.results.stores import (
    CacheEntry,
    ClassicCache,
    Computed,
    LRUCache,
    NullCache,
    RetainingCache,
)

__all__ = ["CacheEntry", "CacheSet", "CacheType", "ClassicCache", "LRUCache", "NullCache", "RetainingCache"]


REMEMBERED_MERGES = 10_000


class CacheType(Enum):
    """How long results are kept."""

    CLASSIC = 0
    LRU = 1
    NONE = 2
    RAM_PRESSURE = 3
    BUDGET = 4


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


def make_store(cache_type: CacheType | None, arguments: dict[str, Any]) -> ClassicCache:
    """The store of results of a mode; without one, the default."""
    if cache_type is CacheType.NONE:
        return NullCache()
    if cache_type is CacheType.LRU:
        return LRUCache(max_size=int(arguments.get("lru", 0)))
    if cache_type is CacheType.CLASSIC:
        return ClassicCache()
    return RetainingCache(make_limit(arguments, pressure=cache_type is CacheType.RAM_PRESSURE))


class CacheSet:
    """All that is remembered between prompts.

    `cache_args`: "lru": number of results; "budget", "ram": see `retention.make_limit`.
    """

    def __init__(
        self, cache_type: CacheType | None = None, cache_args: dict[str, Any] | None = None,
        before: CacheSet | None = None,
    ) -> None:  # fmt: skip
        """With `before`, what that one held is gone, and nodes that ran in it are known."""
        self.mode = cache_type or CacheType.BUDGET
        self.outputs = make_store(self.mode, cache_args or {})
        self.outputs.on_drop = self._note_drops
        self.objects = ObjectCache(keeps=self.mode is not CacheType.NONE)
        self.scopes = Scopes()
        self.reasons: dict[str, Reason] = {}
        self.hits = self.drops = 0
        self._past: PastRuns = PastRuns() if before is None else before._past
        self._of_models = ResultsOfModels()
        self._expansions = PastExpansions()
        self._plan: Plan | None = None
        self._signatures: Signatures | None = None
        self._changes: ChangeValues | None = None
        self._started: dict[str, float] = {}
        self._outside: ProvidersOfPrompt | None = None
        self._asked_outside: set[str] = set()
        self._merged: dict[Signature, str] = {}
        if before is not None:
            before.outputs.forget()
            self.hits, self.drops = before.hits, before.drops

    def _note_drops(self, signatures: Iterable[Signature], cause: str) -> None:
        gone = list(signatures)
        self.drops += len(gone)
        self._past.note_drops(gone, cause)

    @property
    def signatures(self) -> Signatures | None:
        """Of the running prompt's nodes; None in a mode without."""
        return self._signatures

    def note_merged(self, signature: Signature, prompt_id: str) -> None:
        """This result was made together with one of another prompt, which ran then."""
        self._merged[signature] = prompt_id
        if len(self._merged) > REMEMBERED_MERGES:
            del self._merged[next(iter(self._merged))]

    def _why_cached(self, node_id: str) -> Reason:
        signature = None if self._signatures is None else self._signatures.by_node.get(node_id)
        merged_with = self._merged.get(signature) if signature is not None else None
        return PLAIN[CACHED] if merged_with is None else {"reason": CACHED, "merged_with": merged_with}

    def stats(self) -> dict[str, Any]:
        """How the cache stands. `hits`: nodes that did not run; `bytes`, `budget` if the mode counts them."""
        return {
            "mode": self.mode.name.lower(),
            "entries": len(self.outputs),
            "bytes": self.outputs.bytes_used,
            "budget": self.outputs.bytes_allowed,
            "drops": self.drops,
            "hits": self.hits,
        }

    def drop_models(self) -> bool:
        """Drop results that hold models and that the running prompt does not use. False if there are none."""
        if not self.outputs.drop_models():
            return False
        gc.collect()  # objects of models refer to each other
        return True

    def apart(self) -> CacheSet:
        """An empty store with the same node objects. What is stored in it goes with it."""
        self.outputs.note_unused()
        other = copy.copy(self)
        other.outputs = ClassicCache() if self.outputs.needs_signatures else NullCache()
        other.scopes = self.scopes.copy()
        other._of_models = ResultsOfModels()
        return other

    async def begin(
        self,
        dynprompt: DynamicPrompt,
        changes: ChangeValues,
        request: Request | None = None,
        prompt_id: str = "",
    ) -> None:
        """A prompt begins: find its signatures, drop what is too much, hide what it wants to run again."""
        prompt = dynprompt.original_prompt
        self._started = {}
        self._signatures = None
        self._changes = changes
        if self.outputs.needs_signatures:
            await changes.add(prompt)
            self._drop_replaced(changes)
            self._signatures = Signatures(dynprompt, changes.values, changes.contents)
            self._signatures.add(prompt)
        keys = {(node_id, node["class_type"]) for node_id, node in prompt.items()}
        scopes = self.scopes.keep_only(keys)
        inner = set[Signature]().union(*(scope.signatures for scope in scopes))
        self.outputs.begin({} if self._signatures is None else self._signatures.by_node, inner)
        self.objects.begin(keys.union(*(scope.members for scope in scopes)))
        request = request or Request()
        self._plan = Plan(request, dynprompt, self._inner_nodes)
        self._plan.add(prompt)
        self._asked_outside = set()
        providers = registered_providers()
        if providers and self._signatures is not None and request.cache != "off":
            self._outside = ProvidersOfPrompt(prompt_id, providers)
        self.outputs.hide(self._plan.reasons)
        usable = self.outputs.all_node_ids()
        self.reasons = {node_id: self._why_cached(node_id) for node_id in prompt if node_id in usable}

    def _drop_replaced(self, changes: ChangeValues) -> None:
        """Let go of the old bytes of models that have others now: nothing asks for these results any more."""
        if self.outputs.drop_with_models(self._of_models.replaced(changes.contents.values()), "replaced"):
            gc.collect()  # objects of models refer to each other

    def _disown_replaced(self, node_id: str) -> None:
        """A model may have come to other bytes while the node that names it waited or ran."""
        changes, signatures = self._changes, self._signatures
        if changes is not None and signatures is not None and node_id in changes.contents:
            if changes.contents_now([node_id]).get(node_id) != changes.contents[node_id]:
                signatures.disown(node_id)

    def _inner_nodes(self, key: NodeKey) -> list[NodeKey]:
        """The nodes that a node expanded into when it, or an equal one, ran last."""
        if self._signatures is None:
            return self.scopes.members(key)
        return self._expansions.members(self._signatures.by_node[key[0]])

    async def expand(self, dynprompt: DynamicPrompt, parent_id: str, node_ids: Iterable[str]) -> None:
        """A node expanded into these nodes, which are in `dynprompt` already."""
        ids = list(node_ids)
        keys = [(node_id, dynprompt.get_node(node_id)["class_type"]) for node_id in (parent_id, *ids)]
        found: list[Signature] = []
        if self._signatures is not None and self._changes is not None:
            await self._changes.add(ids)
            self._signatures.add(ids)
            found = [self._signatures.by_node[node_id] for node_id in ids]
            self._expansions.note(self._signatures.by_node[parent_id], dict(zip(keys[1:], found)))
        if self._plan is not None:
            self._plan.add(ids)
            self.outputs.hide(node_id for node_id in ids if node_id in self._plan.reasons)
        gone = self.scopes.set(keys[0], Scope(keys[1:], found))
        self.outputs.expand(found, gone.signatures)
        self.reasons.update((node_id, PLAIN[CACHED]) for node_id in ids if self.outputs.get(node_id))
        self.objects.forget(gone.members)

    async def end(self) -> None:
        """The prompt has ended. Also called when it did not begin."""
        outside, self._outside = self._outside, None
        if outside is not None:
            await outside.end()

    # -- results from outside ------------------------------------------------------------------------------

    async def fetch(
        self,
        node_ids: Iterable[str],
        sources_of: Callable[[str], Iterable[str]],
        check: Callable[[], None] | None = None,
    ) -> None:
        """Ask the providers for the results of these nodes; instead of those they lack, for what is above.

        `check` is called now and then, and may raise.
        """
        level = list(node_ids)
        while self._outside is not None and level:
            level = [
                node_id
                for node_id in dict.fromkeys(level)
                if node_id not in self._asked_outside and self.outputs.get(node_id) is None
            ]
            self._asked_outside.update(level)
            contexts = [context for context in map(self._context, level) if self._is_readable(context)]
            start = time.perf_counter()
            values = await self._outside.look_up([c for c in contexts if c is not None], check)
            computed = Computed(time.perf_counter() - start)
            for context, value in zip(filter(None, contexts), values):
                if value is not None:
                    self.outputs.put(context.node_id, CacheEntry(value.ui, value.outputs), computed)
                    self.reasons[context.node_id] = PLAIN[CACHED]
            missing = [node_id for node_id in level if self.outputs.get(node_id) is None]
            level = [source for node_id in missing for source in sources_of(node_id)]

    def _context(self, node_id: str) -> CacheContext | None:
        """What providers are told of a node, or None if it is not for them."""
        signatures = self._signatures
        if signatures is None or node_id not in signatures.by_node or not signatures.is_lasting(node_id):
            return None
        if signatures.dynprompt.get_parent_node_id(node_id) is not None:
            return None
        class_type = signatures.dynprompt.get_node(node_id)["class_type"]
        return CacheContext(node_id, class_type, key_hash(signatures.by_node[node_id]))

    def _is_readable(self, context: CacheContext | None) -> bool:
        if context is None or self.outputs.is_hidden(context.node_id):
            return False
        return self._plan is None or context.node_id not in self._plan.reasons

    # -- why nodes run -------------------------------------------------------------------------------------

    def note_start(self, node_id: str, class_type: str) -> None:
        """A node runs: note why, and when. It may be visited several times before it has run."""
        self._started[node_id] = time.perf_counter()
        if self.reasons.get(node_id, PLAIN[CACHED])["reason"] == CACHED:
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
        self.hits += 1

    def store(self, node_id: str, class_type: str, entry: CacheEntry) -> None:
        """A node has run: keep its result."""
        signatures = self._signatures
        if signatures is None:
            self.outputs.put(node_id, entry)
            return
        seconds = time.perf_counter() - self._started.pop(node_id, float("inf"))
        self._disown_replaced(node_id)
        sources = self._past.note((node_id, class_type), signatures)
        models = signatures.contents.get(node_id, ())
        self._of_models.note(signatures.by_node[node_id], models, sources)
        computed = Computed(max(0.0, seconds), sources, signatures.is_lasting(node_id))
        self.outputs.put(node_id, entry, computed)
        if self._outside is not None:
            context = self._context(node_id)
            if context is not None:
                self._outside.store(context, CacheValue(entry.outputs, entry.ui))

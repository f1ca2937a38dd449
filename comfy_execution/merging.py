"""Prompts that wait are served together with the one that runs (`--merge-requests`).

A class may say that it can serve several calls at once, and which of its inputs may differ between them:

    MERGE_INPUTS = ("seed", "positive")     all other inputs must be equal
    MERGE_FUNCTION = "sample_merged"        a class method: a list of arguments in, a list of returns out
    MERGE_KEY = "merge_key"                 optional, a class method: arguments in, something hashable out;
                                            calls with another one are not served together

When such a node is about to run, the prompts that wait are looked through for a node of the class with
equal inputs. What that one needs is computed, one call serves all, and the results of the others are stored.
Each prompt still runs by itself and in its turn; then it finds the result. So nothing is lost when it is
cancelled, changed or forced meanwhile, or when the process dies: it is computed again.

Only plain nodes are computed ahead: no outputs, nothing asynchronous, lazy or expanding, nothing whose result
could not be found again, and no model is fetched for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comfy.interruption import InterruptProcessingException
from comfy_execution import utils
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.errors import InvalidRequestError
from comfy_execution.force import Request, read_request
from comfy_execution.graph_utils import GraphBuilder, is_link
from comfy_execution.inputs import collect_inputs
from comfy_execution.is_changed import ChangeValues, MapOverLists
from comfy_execution.mapping import call_now, single_arguments
from comfy_execution.merge_sizes import Profile
from comfy_execution.node_facts import NodeFacts
from comfy_execution.results.signatures import Signature, Signatures, canonical, digest
from comfy_execution.results.stores import CacheEntry, Computed, RetainingCache

if TYPE_CHECKING:
    from comfy_execution.node_run import NodeRun

log = logging.getLogger(__name__)

MOST_LOOKED_AT = 50
"""So many of the waiting prompts are looked at."""

QueueItem = tuple[Any, ...]
"""(number, prompt id, graph, extra data, outputs, ...)"""


class CannotMerge(Exception):
    """These calls cannot be served together; raised by a MERGE_FUNCTION. Each is served alone then."""


class _NotAhead(Exception):
    """A waiting prompt cannot be served ahead; the message says why."""


def merge_facts(class_def: Any) -> tuple[frozenset[str], str] | None:
    """(inputs that may differ, name of the function) of a class, or None if it serves one call at a time."""
    function = getattr(class_def, "MERGE_FUNCTION", None)
    return None if function is None else (frozenset(class_def.MERGE_INPUTS), function)


def fixed_content(signatures: Signatures, node_id: str, may_differ: frozenset[str]) -> Signature | None:
    """A digest of the inputs that must be equal; None if one has no stable content."""
    node = signatures.dynprompt.get_node(node_id)
    parts: list[Any] = [node["class_type"]]
    for name in sorted(node["inputs"]):
        value = node["inputs"][name]
        if name in may_differ:
            continue
        if is_link(value):
            if value[0] not in signatures.by_node or not signatures.is_lasting(value[0]):
                return None
            parts.append((name, "link", signatures.by_node[value[0]], value[1]))
        else:
            parts.append((name, canonical(value)))
    return digest(parts)


@dataclass
class _Waiting:
    """A prompt that waits, as far as it was looked at."""

    graph: dict[str, Any]
    extra_data: Mapping[str, Any]
    prompt_id: str
    outputs: list[str]
    dynprompt: DynamicPrompt
    signatures: Signatures
    refused: set[str] = field(default_factory=set)
    """Nodes that cannot be served ahead."""

    def needed(self, store: RetainingCache) -> list[str]:
        """The nodes that will run for its outputs as far as that is known now: lazy inputs may not be wanted,
        and what is above a stored result is not.
        """
        found: dict[str, None] = {}
        stack = list(self.outputs)
        while stack:
            node_id = stack.pop()
            if node_id in found or store.find(self.signatures.by_node[node_id]) is not None:
                continue
            found[node_id] = None
            specs = self.dynprompt.node_facts(node_id).inputs
            for name, value in self.graph[node_id]["inputs"].items():
                spec = specs[name]
                if is_link(value) and not (spec is not None and (spec.is_lazy or spec.is_raw_link)):
                    stack.append(value[0])
        return list(found)


@dataclass
class _Partner:
    """A node of a waiting prompt that can be served together with the running one."""

    waiting: _Waiting
    node_id: str
    arguments: dict[str, Any]


class _Known:
    """Results of a waiting prompt's nodes, by node id, as `collect_inputs` asks for them."""

    def __init__(self) -> None:
        self.entries: dict[str, CacheEntry] = {}

    def get_cache(self, from_node_id: str, to_node_id: str) -> CacheEntry | None:
        return self.entries.get(from_node_id)


class Merging:
    """Serves calls of several prompts together. Used by one executor, in its thread."""

    def __init__(
        self,
        limit: int,
        waiting: Callable[[int], Iterable[QueueItem]],
        classes: Callable[[], Mapping[str, Any]],
        map_over_lists: MapOverLists,
    ) -> None:
        """At most `limit` calls at once. `waiting(most)` gives the first prompts that wait, in order."""
        self._limit = limit
        self._waiting = waiting
        self._classes = classes
        self._map_over_lists = map_over_lists
        self._profile = Profile()
        self._looked_at: dict[str, _Waiting | None] = {}
        self.calls = self.served = 0

    def stats(self) -> dict[str, int]:
        """How many calls served more than one prompt, and how many prompts they served."""
        return {"calls": self.calls, "prompts": self.served}

    async def serve(self, node_run: NodeRun) -> tuple[Any, dict[str, Any], bool] | None:
        """Serve a node that is about to run, and others with it: (output, ui, False). None if its class does
        not merge, or the node is no plain call.
        """
        merges = merge_facts(node_run.facts.class_def)
        arguments = single_arguments(node_run.values or {})
        caches, call = node_run.run.caches, node_run.functions.get_output_now
        signatures = caches.signatures
        if merges is None or arguments is None or signatures is None or call is None:
            return None
        if not isinstance(caches.outputs, RetainingCache):
            return None
        fixed = fixed_content(signatures, node_run.node_id, merges[0])
        key = None if fixed is None else self._key(node_run.facts.class_def, arguments)
        if fixed is None or key is None:
            return None
        kind = (fixed, key)
        size = self._profile.next_size(kind, self._limit)
        partners = await self._partners(node_run, merges[0], kind, size - 1) if size > 1 else []
        start = time.perf_counter()
        if partners:
            outputs = self._serve_together(node_run, merges[1], arguments, partners, kind)
            if outputs is not None:
                return outputs, {}, False
        node = caches.objects.get_or_make(node_run.node_id, node_run.class_type, node_run.facts.class_def)
        called = node_run.call_alone(node)
        self._profile.note(kind, 1, time.perf_counter() - start)
        return called

    def _key(self, class_def: Any, arguments: Mapping[str, Any]) -> Hashable | None:
        name = getattr(class_def, "MERGE_KEY", None)
        if name is None:
            return ()
        try:
            key: Hashable = getattr(class_def, name)(**arguments)
            hash(key)
            return key
        except Exception as error:  # the class of a pack: what is wrong with the values is said by the call
            log.debug("%s.%s failed: %s", class_def, name, error)
            return None

    def _serve_together(
        self, node_run: NodeRun, function: str, arguments: dict[str, Any], partners: list[_Partner],
        kind: Hashable,
    ) -> list[Any] | None:
        """The node's output; those of the partners are stored. None if it must be served alone."""
        run, class_def, store = node_run.run, node_run.facts.class_def, node_run.run.caches.outputs
        assert isinstance(store, RetainingCache)
        calls = [arguments, *(partner.arguments for partner in partners)]
        start = time.perf_counter()
        try:
            GraphBuilder.set_default_prefix(node_run.node_id, 0)
            merged = getattr(class_def, function)
            returned = call_now(run.prompt_id, node_run.node_id, 0, merged, {"calls": calls})
            outputs = [_plain_outputs(one) for one in returned]
            if len(outputs) != len(calls):
                raise CannotMerge(f"{function} gave {len(outputs)} results for {len(calls)} calls")
        except InterruptProcessingException:
            raise
        except Exception as error:  # out of memory, a refusal, anything in a pack's class: each alone, then
            log.info("%d prompts are not served together: %s", len(calls), error)
            self._profile.note_failure(kind, len(calls))
            return None
        seconds = time.perf_counter() - start
        self._profile.note(kind, len(calls), seconds)
        self.calls, self.served = self.calls + 1, self.served + len(calls)
        for partner, output in zip(partners, outputs[1:]):
            signatures = partner.waiting.signatures
            _keep(store, signatures, partner.node_id, output, seconds / len(calls))
            run.caches.note_merged(signatures.by_node[partner.node_id], run.prompt_id)
        return outputs[0]

    # -- prompts that wait ---------------------------------------------------------------------------------

    async def _partners(
        self, node_run: NodeRun, may_differ: frozenset[str], kind: tuple[Signature, Hashable], most: int
    ) -> list[_Partner]:
        found: list[_Partner] = []
        store = node_run.run.caches.outputs
        assert isinstance(store, RetainingCache)
        items = list(self._waiting(MOST_LOOKED_AT))
        ids = {item[1] for item in items}
        self._looked_at = {key: value for key, value in self._looked_at.items() if key in ids}
        for item in items:
            waiting = await self._look_at(item)
            if waiting is None:
                continue
            for node_id in waiting.needed(store):
                if len(found) == most:
                    return found
                if self._is_alike(node_run, waiting, node_id, may_differ, kind[0]):
                    found += self._ready(node_run, store, waiting, node_id, kind[1])
        return found

    async def _look_at(self, item: QueueItem) -> _Waiting | None:
        """A waiting prompt with its signatures, looked at once; None for one that cannot be served ahead."""
        prompt_id = item[1]
        if prompt_id not in self._looked_at:
            try:
                self._looked_at[prompt_id] = await self._read(item)
            except Exception as error:  # classes of packs answer here; the prompt says so itself when it runs
                log.debug("Prompt %s is not served ahead: %s", prompt_id, error)
                self._looked_at[prompt_id] = None
        return self._looked_at[prompt_id]

    async def _read(self, item: QueueItem) -> _Waiting | None:
        _, prompt_id, prompt, extra_data, outputs, *_ = item
        try:
            if read_request(extra_data or {}) != Request():
                return None
        except InvalidRequestError:
            return None
        graph = {node_id: dict(node) for node_id, node in prompt.items()}  # IS_CHANGED is noted in the nodes
        dynprompt = DynamicPrompt(graph, self._classes())
        with utils.ahead():
            changes = ChangeValues(prompt_id, dynprompt, self._map_over_lists)
            await changes.add(graph)
        signatures = Signatures(dynprompt, changes.values, changes.contents)
        signatures.add(graph)
        return _Waiting(graph, extra_data or {}, prompt_id, list(outputs), dynprompt, signatures)

    def _is_alike(
        self, node_run: NodeRun, waiting: _Waiting, node_id: str, may_differ: frozenset[str],
        fixed: Signature,
    ) -> bool:
        """Is it the same node but for what may differ, and another call?"""
        if node_id in waiting.refused or waiting.graph[node_id]["class_type"] != node_run.class_type:
            return False
        signatures, own = waiting.signatures, node_run.run.caches.signatures
        is_own = own is not None and own.by_node.get(node_run.node_id) == signatures.by_node[node_id]
        return (not is_own and signatures.is_lasting(node_id)
                and fixed_content(signatures, node_id, may_differ) == fixed)

    def _ready(
        self, node_run: NodeRun, store: RetainingCache, waiting: _Waiting, node_id: str, key: Hashable
    ) -> list[_Partner]:
        """The node with its arguments; nothing if it cannot be served ahead."""
        try:
            with utils.ahead():
                arguments = _Ahead(node_run, store, waiting).arguments_of(node_id)
        except InterruptProcessingException:
            raise
        except Exception as error:  # the same: it says so itself when it runs
            log.debug("Node %s of prompt %s is not served ahead: %s", node_id, waiting.prompt_id, error)
            waiting.refused.add(node_id)
            return []
        if self._key(node_run.facts.class_def, arguments) != key:
            waiting.refused.add(node_id)
            return []
        return [_Partner(waiting, node_id, arguments)]


def _keep(
    store: RetainingCache, signatures: Signatures, node_id: str, outputs: list[Any], seconds: float
) -> CacheEntry:
    """Store a result of a waiting prompt."""
    entry = CacheEntry(None, outputs)
    inputs = signatures.dynprompt.get_node(node_id)["inputs"].values()
    sources = tuple({signatures.by_node[value[0]] for value in inputs if is_link(value)})
    store.keep(signatures.by_node[node_id], entry, Computed(seconds, sources))
    return entry


class _Ahead:
    """Computes what a node of a waiting prompt needs. What is computed is stored."""

    def __init__(self, node_run: NodeRun, store: RetainingCache, waiting: _Waiting) -> None:
        self._node_run = node_run
        self._store = store
        self._waiting = waiting
        self._known = _Known()

    def arguments_of(self, node_id: str) -> dict[str, Any]:
        """The arguments of the only call of a node. Raises _NotAhead, and what nodes raise."""
        for needed in self._order(node_id):
            self._known.entries[needed] = self._result(needed)
        values, _ = self._values(node_id, self._waiting.dynprompt.node_facts(node_id))
        arguments = single_arguments(values)
        if arguments is None:
            raise _NotAhead("it is called several times, or not at all")
        return arguments

    def _order(self, node_id: str) -> list[str]:
        """The nodes above it, each after those that it needs; not what is above stored results."""
        order: dict[str, None] = {}
        stack = [(source, False) for source in self._sources(node_id)]
        opened: set[str] = set()
        while stack:
            current, is_done = stack.pop()
            if is_done:
                order[current] = None
            elif current not in opened:
                opened.add(current)
                stack.append((current, True))
                if self._stored(current) is None:
                    stack += [(source, False) for source in self._sources(current)]
        return list(order)

    def _sources(self, node_id: str) -> list[str]:
        inputs = self._waiting.dynprompt.get_node(node_id)["inputs"]
        return [value[0] for value in inputs.values() if is_link(value)]

    def _stored(self, node_id: str) -> CacheEntry | None:
        return self._store.find(self._waiting.signatures.by_node[node_id])

    def _result(self, node_id: str) -> CacheEntry:
        stored = self._stored(node_id)
        if stored is not None:
            return stored
        facts = self._waiting.dynprompt.node_facts(node_id)
        if facts.is_async or facts.is_output or facts.has_check_lazy_status or facts.has_intermediate_output:
            raise _NotAhead(f"node {node_id} is asynchronous, lazy, or shows something")
        if not self._waiting.signatures.is_lasting(node_id):
            raise _NotAhead(f"the result of node {node_id} could not be found again")
        values, schema = self._values(node_id, facts)
        start = time.perf_counter()
        called = self._node_run.functions.get_output_now(  # type: ignore[misc]
            self._waiting.prompt_id, node_id, facts.class_def(), values, _refuse_blockers,
            lambda index: GraphBuilder.set_default_prefix(node_id, index), schema,
        )
        if called is None or called[1] or called[2]:
            raise _NotAhead(f"node {node_id} expands or shows something")
        seconds = time.perf_counter() - start
        return _keep(self._store, self._waiting.signatures, node_id, called[0], seconds)

    def _values(self, node_id: str, facts: NodeFacts) -> tuple[dict[str, Any], Any]:
        waiting = self._waiting
        inputs = collect_inputs(
            waiting.dynprompt.get_node(node_id)["inputs"], facts, node_id, results=self._known,
            dynprompt=waiting.dynprompt, extra_data=waiting.extra_data,
        )
        if inputs.missing:
            raise _NotAhead(f"inputs of node {node_id} are missing")
        return inputs.values, inputs.schema


def _refuse_blockers(blocker: Any) -> Any:
    raise _NotAhead("it is blocked")


def _plain_outputs(returned: Any) -> list[Any]:
    """The stored form of a plain return."""
    if not isinstance(returned, tuple):
        raise CannotMerge(f"a {type(returned).__name__} is no tuple of outputs")
    return [[value] for value in returned]

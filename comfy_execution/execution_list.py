"""In which order nodes run.

The list holds the nodes that still have to run and who waits for whom. A node without a missing input is
ready. Among ready nodes the user's eyes decide: first outputs and asynchronous nodes, then a node that
feeds an output, then one two steps before an output, else the one that joined the list first. Ranks are
kept up to date as links arrive, and ready nodes stand in a heap, so that the whole prompt costs O((nodes +
links) log nodes).
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, Protocol

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.errors import DependencyCycleError, NodeInputError
from comfy_execution.graph_utils import is_link
from comfy_execution.node_facts import NodeFacts

OUTPUT_OR_ASYNC, FEEDS_OUTPUT, TWO_STEPS_FROM_OUTPUT, ANYTHING_ELSE = range(4)
SECONDS_BETWEEN_CHECKS = 0.25


class KnownResults(Protocol):
    """Where results of earlier runs are found."""

    def get_local(self, node_id: str) -> Any | None:
        """The stored result of a node, or None."""


class _Pending:
    """A node that has to run."""

    __slots__ = ("order", "rank", "missing", "consumers", "producers", "is_output", "feeds_output")

    def __init__(self, order: int, is_output: bool, is_async: bool) -> None:
        self.order = order
        self.rank = OUTPUT_OR_ASYNC if is_output or is_async else ANYTHING_ELSE
        self.missing = 0
        """How many nodes (and external blocks) it waits for."""
        self.consumers: dict[str, None] | None = None
        self.producers: list[str] | None = None
        self.is_output = is_output
        self.feeds_output = False


class ExecutionList:
    """The nodes of a prompt that still have to run.

    A node is staged (`stage_node_execution`), and then either completed, or unstaged because it turned out to
    need more: a lazy input, its own expansion, the end of an asynchronous call.
    """

    def __init__(self, dynprompt: DynamicPrompt, output_cache: KnownResults) -> None:
        self.dynprompt = dynprompt
        self.output_cache = output_cache
        self.staged_node_id: str | None = None
        self._pending: dict[str, _Pending] = {}
        self._ready: list[tuple[int, int, str]] = []
        self._joined = 0
        self._external_blocks = 0
        self._unblocked = asyncio.Event()
        # Results that somebody in the list still uses, whatever a cache does with them in the meantime.
        self._held: dict[str, Any] = {}
        self._uses: dict[str, dict[str, None]] = {}
        """By consumer, whose results it uses."""
        self._users: dict[str, int] = {}
        """By source, how many consumers use its result."""

    # -- building ------------------------------------------------------------------------------------------

    def add_node(self, node_id: str) -> None:
        """Add a node and everything it needs that is not known yet. Raises NodeNotFoundError for bad links.
        """
        if node_id in self._pending:
            return
        links: list[tuple[str, str, Any | None]] = []
        joined: list[str] = []
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current in self._pending:
                continue
            joined.append(current)
            for source in self._enter(current):
                known = self._known(source)
                if known is None and source not in self._pending:
                    waiting.append(source)
                links.append((source, current, known))
        for source, consumer, known in links:
            self._link(source, consumer, known)
        for current in joined:
            entry = self._pending[current]
            if entry.missing == 0:
                heapq.heappush(self._ready, (entry.rank, entry.order, current))

    def _enter(self, node_id: str) -> list[str]:
        """Put a node on the list. Returns the nodes that it needs; none if its own result is known."""
        node = self.dynprompt.get_node(node_id)
        facts = self.dynprompt.facts.of(node["class_type"])
        self._pending[node_id] = _Pending(self._joined, facts.is_output, facts.is_async)
        self._joined += 1
        known = self.output_cache.get_local(node_id)
        if known is None:
            return self._needed_sources(node, facts)
        self._hold(node_id, node_id, known)
        return []

    def needed_sources(self, node_id: str) -> list[str]:
        """The nodes whose results this one cannot start without."""
        node = self.dynprompt.get_node(node_id)
        return self._needed_sources(node, self.dynprompt.facts.of(node["class_type"]))

    def _needed_sources(self, node: dict[str, Any], facts: NodeFacts) -> list[str]:
        if facts.is_dynamic:
            facts = facts.live(node["inputs"])
        sources = []
        for name, value in node["inputs"].items():
            if type(value) is list and is_link(value):
                spec = facts.inputs[name]
                if spec is None and not facts.accepts(name):
                    continue
                if spec is None or not spec.is_lazy:
                    sources.append(value[0])
        return sources

    def make_input_strong_link(self, to_node_id: str, to_input: str) -> None:
        """A node asked for one of its lazy inputs. Raises NodeInputError if that is no link."""
        inputs = self.dynprompt.get_node(to_node_id)["inputs"]
        if to_input not in inputs:
            raise NodeInputError(
                f"Node {to_node_id} says it needs input {to_input}, but it has no input of that name."
            )
        if not is_link(inputs[to_input]):
            raise NodeInputError(
                f"Node {to_node_id} says it needs input {to_input}, but that is a constant and known already."
            )
        source, slot = inputs[to_input]
        entry = self.get_cache(source, to_node_id)
        if entry is not None and slot >= len(entry.outputs or ()):  # to wait for it would never end
            raise NodeInputError(
                f"Node {to_node_id} says it needs input {to_input}, which is linked to output {slot} of node "
                f"{source}. That node has {len(entry.outputs or ())} outputs, counted from 0."
            )
        self.add_strong_link(source, slot, to_node_id)

    def add_strong_link(self, from_node_id: str, from_socket: float, to_node_id: str) -> None:
        """`to_node_id` cannot run before `from_node_id` has."""
        if not self.is_cached(from_node_id):
            self.add_node(from_node_id)
        self._link(from_node_id, to_node_id, self._known(from_node_id))

    def _link(self, source: str, consumer: str, known: Any | None) -> None:
        """`known` is the source's result, if there is one."""
        self._hold(source, consumer, known)
        if known is not None:
            return
        producer, waiting = self._pending[source], self._pending[consumer]
        if producer.consumers is None:
            producer.consumers = {}
        elif consumer in producer.consumers:
            return
        producer.consumers[consumer] = None
        if waiting.producers is None:
            waiting.producers = []
        waiting.producers.append(source)
        waiting.missing += 1
        if waiting.is_output and not producer.feeds_output:
            producer.feeds_output = True
            self._improve(source, FEEDS_OUTPUT)
            for before in producer.producers or ():
                if before in self._pending:
                    self._improve(before, TWO_STEPS_FROM_OUTPUT)
        if waiting.feeds_output:
            self._improve(source, TWO_STEPS_FROM_OUTPUT)

    def _improve(self, node_id: str, rank: int) -> None:
        entry = self._pending[node_id]
        if rank < entry.rank:
            entry.rank = rank
            if entry.missing == 0:
                heapq.heappush(self._ready, (rank, entry.order, node_id))

    def add_external_block(self, node_id: str) -> Callable[[], None]:
        """The node waits for something outside the graph, until the returned function is called."""
        self._external_blocks += 1
        self._pending[node_id].missing += 1

        def unblock() -> None:
            self._external_blocks -= 1
            self._satisfy(node_id)
            self._unblocked.set()

        return unblock

    def _satisfy(self, node_id: str) -> None:
        entry = self._pending[node_id]
        entry.missing -= 1
        if entry.missing == 0:
            heapq.heappush(self._ready, (entry.rank, entry.order, node_id))

    # -- results -------------------------------------------------------------------------------------------

    def _known(self, node_id: str) -> Any | None:
        held = self._held.get(node_id)
        return self.output_cache.get_local(node_id) if held is None else held

    def is_cached(self, node_id: str) -> bool:
        """Is the node's result at hand?"""
        return self._known(node_id) is not None

    def _hold(self, source: str, consumer: str, value: Any | None) -> None:
        uses = self._uses.get(consumer)
        if uses is None:
            uses = self._uses[consumer] = {}
        if source not in uses:
            uses[source] = None
            self._users[source] = self._users.get(source, 0) + 1
        if value is not None:
            self._held[source] = value

    def cache_link(self, from_node_id: str, to_node_id: str) -> None:
        """Keep the result of a node for another one, without making that one wait."""
        self._hold(from_node_id, to_node_id, self._known(from_node_id))

    def get_cache(self, from_node_id: str, to_node_id: str) -> Any | None:
        """The result of a node, for a consumer that is linked to it; None if it is not, or not yet."""
        if from_node_id not in self._uses.get(to_node_id, ()):
            return None
        return self._held.get(from_node_id)

    def cache_update(self, node_id: str, value: Any) -> None:
        """A result has come: keep it as long as a node of the list uses it."""
        if node_id in self._users:
            self._held[node_id] = value

    def _release_uses(self, consumer: str) -> None:
        for source in self._uses.pop(consumer, ()):
            users = self._users[source] - 1
            if users:
                self._users[source] = users
            else:
                del self._users[source]
                self._held.pop(source, None)

    # -- running -------------------------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Has everything run?"""
        return not self._pending

    def stage_ready(self) -> str | None:
        """The node to run next, if nothing asynchronous is going on and none has to be waited for."""
        self.staged_node_id = None if self._external_blocks else self._pop_ready()
        return self.staged_node_id

    async def stage_node_execution(
        self, check: Callable[[], None] | None = None
    ) -> tuple[str | None, dict[str, Any] | None, Exception | None]:
        """The node to run next, or the details of an error and its exception when nodes wait in a circle.

        `check` is called now and then while there is nothing to do but wait, and may raise.
        """
        if self.is_empty():
            return None, None, None
        if self._external_blocks:
            await asyncio.sleep(0)  # let asynchronous nodes go on between synchronous ones
        node_id = self._pop_ready()
        while node_id is None and self._external_blocks:
            await self._wait(check)
            node_id = self._pop_ready()
        if node_id is None:
            return None, *self._describe_cycle()
        self.staged_node_id = node_id
        return node_id, None, None

    async def _wait(self, check: Callable[[], None] | None) -> None:
        if check is not None:
            check()
        try:
            await asyncio.wait_for(self._unblocked.wait(), SECONDS_BETWEEN_CHECKS)
        except asyncio.TimeoutError:
            return
        self._unblocked.clear()

    def _pop_ready(self) -> str | None:
        """The best ready node. Entries that are out of date are dropped on the way."""
        while self._ready:
            rank, order, node_id = heapq.heappop(self._ready)
            entry = self._pending.get(node_id)
            if entry is not None and entry.order == order and entry.rank == rank and entry.missing == 0:
                return node_id
        return None

    def unstage_node_execution(self) -> None:
        """The staged node waits for more and will be staged again."""
        node_id = self._take_staged()
        entry = self._pending[node_id]
        if entry.missing == 0:
            heapq.heappush(self._ready, (entry.rank, entry.order, node_id))

    def complete_node_execution(self) -> None:
        """The staged node has run: its consumers come nearer, and what it used is let go."""
        pending, ready = self._pending, self._ready
        node_id = self._take_staged()
        entry = pending.pop(node_id)
        for consumer in entry.consumers or ():
            waiting = pending[consumer]
            waiting.missing -= 1
            if waiting.missing == 0:
                heapq.heappush(ready, (waiting.rank, waiting.order, consumer))
        self._release_uses(node_id)

    def _take_staged(self) -> str:
        if self.staged_node_id is None:
            raise RuntimeError("No node is staged: call stage_node_execution first.")
        node_id, self.staged_node_id = self.staged_node_id, None
        return node_id

    def get_nodes_in_cycle(self) -> list[str]:
        """One circle of nodes that wait for each other, empty if there is none."""
        path: dict[str, None] = {}
        current = next(iter(self._pending), None)
        while current is not None and current not in path:
            path[current] = None
            current = next((p for p in self._pending[current].producers or () if p in self._pending), None)
        if current is None:
            return []
        nodes = list(path)
        return nodes[nodes.index(current) :]

    def _describe_cycle(self) -> tuple[dict[str, Any], Exception]:
        """Circles among the user's nodes are found by validation, so an added node is to blame."""
        cycle = self.get_nodes_in_cycle()
        added = [node_id for node_id in cycle if self.dynprompt.get_parent_node_id(node_id) is not None]
        blamed = (added or cycle)[0]
        shown = self.dynprompt.get_display_node_id(blamed)
        if shown not in self.dynprompt.original_prompt:
            shown = self.dynprompt.get_real_node_id(blamed)
        error = DependencyCycleError(f"Dependency cycle detected: {' -> '.join(cycle[:16])}")
        details = {
            "node_id": shown,
            "exception_message": str(error),
            "exception_type": "graph.DependencyCycleError",
            "traceback": [],
            "current_inputs": {},
        }
        return details, error

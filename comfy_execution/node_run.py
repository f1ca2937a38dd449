"""One node of a running prompt: reuse, lazy inputs, the call, expansion, and storing the result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from comfy_execution import returns
from comfy_execution.caching import CacheEntry, CacheSet
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.errors import DuplicateNodeError, NodeNotFoundError
from comfy_execution.execution_list import ExecutionList
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, is_link
from comfy_execution.host import EventSink
from comfy_execution.inputs import collect_inputs
from comfy_execution.mapping import finished, results_of
from comfy_execution.merging import Merging
from comfy_execution.progress import get_progress_state
from comfy_execution.schema_nodes import SchemaData


@dataclass(frozen=True)
class Functions:
    """Functions that node packs may have replaced, looked up by `execution` for each node."""

    map_over_lists: Callable[..., Awaitable[list[Any]]]
    get_output_data: Callable[..., Awaitable[tuple[Any, Any, bool, bool]]]
    get_output_now: Callable[..., tuple[Any, Any, bool] | None] | None = None
    """As `get_output_data`, without coroutines; None if the node is asynchronous. Set as long as nothing is
    replaced.
    """


@dataclass(slots=True)
class PromptRun:
    """What the nodes of one running prompt share."""

    server: EventSink
    dynprompt: DynamicPrompt
    caches: CacheSet
    extra_data: dict[str, Any]
    executed: Any
    prompt_id: str
    execution_list: ExecutionList
    pending_subgraphs: dict[str, list[tuple[bool, Any]]]
    pending_calls: dict[str, list[Any]]
    ui_outputs: dict[str, dict[str, Any]]
    merging: Merging | None = None


class NodeRun:
    """One visit of the executor to a node. `values` are its inputs once they are known."""

    __slots__ = ("run", "node_id", "functions", "node", "class_type", "facts", "values", "schema")

    def __init__(self, run: PromptRun, node_id: str, functions: Functions) -> None:
        self.run = run
        self.node_id = node_id
        self.functions = functions
        self.node = run.dynprompt.get_node(node_id)
        self.class_type: str = self.node["class_type"]
        self.facts = run.dynprompt.facts.of(self.class_type)
        self.values: dict[str, Any] | None = None
        self.schema: SchemaData | None = None

    async def step(self) -> bool:
        """Take the node as far as it goes. True if it is done, False if it waits for something."""
        run, node_id = self.run, self.node_id
        cached = run.caches.outputs.get(node_id) or run.execution_list.get_cache(node_id, node_id)
        if cached is not None:
            self.reuse(cached)
            return True
        ui: dict[str, Any] = {}
        expands = False
        if node_id in run.pending_calls:
            returned = results_of(run.pending_calls.pop(node_id))
            output, ui, expands = merge_returns(returned, self.facts.class_def)
        elif node_id in run.pending_subgraphs:
            output = self._resolve_expansion(run.pending_subgraphs.pop(node_id))
        else:
            get_progress_state().start_progress(node_id)
            run.caches.note_start(node_id, self.class_type)
            node, missing = self._prepare()
            if self.facts.has_check_lazy_status and await self._ask_for_lazy_inputs(node, missing):
                return False
            called = None if run.merging is None else await run.merging.serve(self)
            if called is None:
                called = self.call_alone(node)
            if called is None:
                called = await self._call(node)
            if called is None:
                return False
            output, ui, expands = called
        if ui:
            self._show(ui)
        if expands:
            await self._expand(output)
            return False
        self._finish(CacheEntry(ui=run.ui_outputs.get(node_id), outputs=output))
        return True

    # -- events --------------------------------------------------------------------------------------------

    def _send(self, event: str, data: dict[str, Any]) -> None:
        if self.run.server.client_id is not None:
            self.run.server.send_sync(event, data, self.run.server.client_id)

    def _announce(self) -> None:
        run, node_id = self.run, self.node_id
        shown = run.dynprompt.get_display_node_id(node_id)
        server = run.server
        server.last_node_id = shown
        if server.client_id is not None:
            data = {
                "node": node_id,
                "display_node": shown,
                "prompt_id": run.prompt_id,
                "reason": run.caches.reasons.get(node_id),
            }
            server.send_sync("executing", data, server.client_id)

    def _show(self, ui: dict[str, Any]) -> None:
        """Put what the node shows into history, and tell the client."""
        dynprompt, node_id = self.run.dynprompt, self.node_id
        shown = dynprompt.get_display_node_id(node_id)
        meta = {
            "node_id": node_id,
            "display_node": shown,
            "parent_node": dynprompt.get_parent_node_id(node_id),
            "real_node_id": dynprompt.get_real_node_id(node_id),
        }
        self.run.ui_outputs[node_id] = {"meta": meta, "output": ui}
        self._send_executed(ui)

    def _send_executed(self, ui: dict[str, Any] | None) -> None:
        shown = self.run.dynprompt.get_display_node_id(self.node_id)
        data = {"node": self.node_id, "display_node": shown, "output": ui, "prompt_id": self.run.prompt_id}
        self._send("executed", data)

    def reuse(self, cached: CacheEntry) -> None:
        """Take a stored result for the node's own."""
        if cached.ui is not None:
            self._show(cached.ui["output"])
        else:  # clients wait for a word on each output, also from one that shows nothing
            self._send_executed(None)
        get_progress_state().finish_progress(self.node_id)
        self.run.caches.note_reuse(self.node_id)
        self.run.execution_list.cache_update(self.node_id, cached)

    def _finish(self, entry: CacheEntry) -> None:
        run, node_id = self.run, self.node_id
        run.execution_list.cache_update(node_id, entry)
        run.caches.store(node_id, self.class_type, entry)
        get_progress_state().finish_progress(node_id)
        run.executed.add(node_id)

    def _report_block(self, blocker: ExecutionBlocker) -> ExecutionBlocker:
        """The first consumer of a blocker with a message tells the client; later ones are silent."""
        if blocker.message is None:
            return blocker
        data = {
            "prompt_id": self.run.prompt_id,
            "node_id": self.node_id,
            "node_type": self.class_type,
            "executed": list(self.run.executed),
            "exception_message": f"Execution Blocked: {blocker.message}",
            "exception_type": "ExecutionBlocked",
            "traceback": [],
            "current_inputs": [],
            "current_outputs": [],
        }
        self.run.server.send_sync("execution_error", data, self.run.server.client_id)
        return ExecutionBlocker(None)

    # -- the call ------------------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Any, dict[str, bool]]:
        """(the node's object, names of inputs without a value yet)."""
        run, node_id = self.run, self.node_id
        inputs = collect_inputs(
            self.node["inputs"],
            self.facts,
            node_id,
            results=run.execution_list,
            dynprompt=run.dynprompt,
            extra_data=run.extra_data,
        )
        self.values = inputs.values
        self._announce()
        node = run.caches.objects.get_or_make(node_id, self.class_type, self.facts.class_def)
        self.schema = inputs.schema
        return node, inputs.missing

    def _before_call(self) -> Callable[[int], None]:
        """What is told the number of each call."""
        return partial(GraphBuilder.set_default_prefix, self.node_id)

    def call_alone(self, node: Any) -> tuple[Any, dict[str, Any], bool] | None:
        """(output, ui, whether it is an expansion), or None if the node is asynchronous or packs have
        replaced how nodes are called.
        """
        if self.functions.get_output_now is None:
            return None
        return self.functions.get_output_now(
            self.run.prompt_id, self.node_id, node, self.values, self._report_block, self._before_call(),
            self.schema,
        )

    async def _call(self, node: Any) -> tuple[Any, dict[str, Any], bool] | None:
        """(output, ui, whether it is an expansion), or None when the node has to wait."""
        output, ui, expands, waits = await self.functions.get_output_data(
            self.run.prompt_id,
            self.node_id,
            node,
            self.values,
            execution_block_cb=self._report_block,
            pre_execute_cb=self._before_call(),
            v3_data=self.schema,
        )
        if waits:
            self._wait_for(output)
            return None
        return output, ui, expands

    async def _ask_for_lazy_inputs(self, node: Any, missing: dict[str, bool]) -> bool:
        """Ask the node which of its lazy inputs it needs. True if it needs one that is not known yet."""
        values = self.values or {}
        schema = None if self.schema is None else {**self.schema, "create_dynamic_tuple": True}
        answers = await finished(
            await self.functions.map_over_lists(
                self.run.prompt_id, self.node_id, node, values, "check_lazy_status",
                allow_interrupt=True, v3_data=schema,
            )
        )
        names = dict.fromkeys(
            name
            for answer in answers
            if isinstance(answer, (list, tuple, set))
            for name in answer
            if isinstance(name, str) and (name not in values or name in missing)
        )
        sources = [link[0] for link in map(self.node["inputs"].get, names) if is_link(link)]
        await self.run.caches.fetch(sources, self.run.execution_list.needed_sources)
        for name in names:
            self.run.execution_list.make_input_strong_link(self.node_id, name)
        return bool(names)

    def _wait_for(self, results: list[Any]) -> None:
        """Asynchronous calls go on beside other nodes; the node is visited again when they have ended."""
        tasks = [result for result in results if isinstance(result, asyncio.Task)]
        self.run.pending_calls[self.node_id] = results
        unblock = self.run.execution_list.add_external_block(self.node_id)
        asyncio.gather(*tasks, return_exceptions=True).add_done_callback(lambda _: unblock())

    # -- expansion -----------------------------------------------------------------------------------------

    async def _expand(self, graphs: list[tuple[dict[str, Any] | None, Any]]) -> None:
        """Add the nodes that the calls returned, and wait for the results they link to."""
        run, node_id = self.run, self.node_id
        new_ids: list[str] = []
        for graph, _ in graphs:
            for new_id, node in (graph or {}).items():
                self._enter(new_id, node)
                new_ids.append(new_id)
        await run.caches.expand(run.dynprompt, node_id, new_ids)
        for new_id in new_ids:
            if run.dynprompt.node_facts(new_id).is_output:
                run.execution_list.add_node(new_id)
                run.execution_list.cache_link(new_id, node_id)
        pending: list[tuple[bool, Any]] = []
        for graph, result in graphs:
            pending.append((graph is not None, result))
            if graph is not None:
                for link in filter(is_link, result or ()):
                    run.execution_list.add_strong_link(link[0], link[1], node_id)
        run.pending_subgraphs[node_id] = pending

    def _enter(self, new_id: str, node: dict[str, Any]) -> None:
        dynprompt = self.run.dynprompt
        if dynprompt.has_node(new_id) and dynprompt.get_parent_node_id(new_id) != self.node_id:
            raise DuplicateNodeError(
                f"Node {self.node_id} expanded into a node with the id {new_id!r}, which exists already. "
                "Take ids from GraphBuilder."
            )
        node.setdefault("inputs", {})
        shown = node.get("override_display_id", self.node_id)
        dynprompt.add_ephemeral_node(new_id, node, self.node_id, shown)
        try:
            dynprompt.node_facts(new_id)
        except KeyError:
            raise NodeNotFoundError(
                f"Node {self.node_id} expanded into a node of the class {node.get('class_type')!r}, "
                "which does not exist. Install the node pack that has it."
            ) from None

    def _resolve_expansion(self, graphs: list[tuple[bool, Any]]) -> list[list[Any]]:
        results = []
        for is_graph, result in graphs:
            if is_graph:
                result = tuple(self._linked(value) if is_link(value) else value for value in result or ())
            results.append(result)
        return returns.merge_results(results, self.facts.class_def)

    def _linked(self, link: list[Any]) -> returns.Several:
        entry = self.run.execution_list.get_cache(link[0], self.node_id)
        if entry is None or link[1] >= len(entry.outputs):
            raise NodeNotFoundError(
                f"Node {self.node_id} returned a link to an output that does not exist: {link}."
            )
        return returns.Several(entry.outputs[int(link[1])])


def merge_returns(values: list[Any], class_def: Any) -> tuple[Any, dict[str, Any], bool]:
    """(output, ui, whether it is an expansion) from the returns of all calls of a node."""
    if len(values) == 1 and type(values[0]) is tuple and getattr(class_def, "OUTPUT_IS_LIST", None) is None:
        return [[value] for value in values[0]], {}, False  # by far the most usual case
    found = returns.gather(values, class_def)
    ui = returns.merge_uis(found.uis)
    if found.expands:
        return found.graphs, ui, True
    return (returns.merge_results(found.results, class_def) if found.results else []), ui, False

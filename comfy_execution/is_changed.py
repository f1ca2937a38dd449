"""The IS_CHANGED values of a prompt's nodes: asked once per node and prompt, with literal inputs only."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.inputs import collect_inputs
from comfy_execution.mapping import finished

log = logging.getLogger(__name__)

MapOverLists = Callable[..., Awaitable[list[Any]]]
"""`(prompt_id, node_id, object or class, values, function name)` -> results, as `execution` offers it."""


class ChangeValues:
    """`values` holds what IS_CHANGED returned, by node id, for the nodes whose class has it."""

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt, map_over_lists: MapOverLists) -> None:
        self.values: dict[str, Any] = {}
        self._prompt_id = prompt_id
        self._dynprompt = dynprompt
        self._map_over_lists = map_over_lists

    async def add(self, node_ids: Iterable[str]) -> None:
        """Ask these nodes. One that fails counts as changed, always."""
        asked: dict[str, str | None] = {}
        for node_id in node_ids:
            node = self._dynprompt.get_node(node_id)
            class_type = node["class_type"]
            if class_type not in asked:
                asked[class_type] = self._function(class_type)
            function = asked[class_type]
            if function is not None and node_id not in self.values:
                self.values[node_id] = node["is_changed"] = await self._ask(node_id, node, function)

    def _function(self, class_type: str) -> str | None:
        try:
            return self._dynprompt.facts.of(class_type).is_changed_function
        except Exception:  # INPUT_TYPES of a class may fail; a node of it that is needed will say so
            return None

    async def _ask(self, node_id: str, node: dict[str, Any], function: str) -> Any:
        try:
            return await self._results(node_id, node, function)
        except Exception as error:  # code of node packs; a failure means that nothing is known
            log.warning("%s of node %s (%s) failed: %s", function, node_id, node["class_type"], error)
            return float("nan")

    async def _results(self, node_id: str, node: dict[str, Any], function: str) -> list[Any]:
        facts = self._dynprompt.facts.of(node["class_type"])
        inputs = collect_inputs(node["inputs"], facts, node_id)
        results = await finished(
            await self._map_over_lists(
                self._prompt_id, node_id, facts.class_def, inputs.values, function, v3_data=inputs.schema
            )
        )
        return [None if isinstance(result, ExecutionBlocker) else result for result in results]

"""What a prompt's nodes depend on beside their inputs: their IS_CHANGED values, asked once per node and
prompt with literal inputs only, and the contents of the models that they name.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any

from comfy_execution.chosen import chosen_texts
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.inputs import collect_inputs
from comfy_execution.mapping import finished
from comfy_depot import hooks as depot

log = logging.getLogger(__name__)

MapOverLists = Callable[..., Awaitable[list[Any]]]
"""`(prompt_id, node_id, object or class, values, function name)` -> results, as `execution` offers it."""


@depot.knows_contents
def contents_of(chosen: Iterable[tuple[str, str, Sequence[Any]]]) -> dict[str, dict[str, str]]:
    """{node id: {model: a text for its content}} of the models among (node id, text that was chosen, the list
    that it was chosen from). Another content makes another text. Without the depot names are all that counts.
    """
    return {}


class ChangeValues:
    """`values` holds what IS_CHANGED returned, by node id, for the nodes whose class has it, and `contents`
    {model: a text for its content} for the nodes that have chosen models whose content may change.
    """

    def __init__(self, prompt_id: str, dynprompt: DynamicPrompt, map_over_lists: MapOverLists) -> None:
        self.values: dict[str, Any] = {}
        self.contents: dict[str, dict[str, str]] = {}
        self._prompt_id = prompt_id
        self._dynprompt = dynprompt
        self._map_over_lists = map_over_lists

    async def add(self, node_ids: Iterable[str]) -> None:
        """Ask these nodes. One that fails counts as changed, always."""
        node_ids = list(node_ids)
        self.contents.update(self.contents_now(node_ids))
        asked: dict[str, str | None] = {}
        for node_id in node_ids:
            node = self._dynprompt.get_node(node_id)
            class_type = node["class_type"]
            if class_type not in asked:
                asked[class_type] = self._function(class_type)
            function = asked[class_type]
            if function is not None and node_id not in self.values:
                self.values[node_id] = node["is_changed"] = await self._ask(node_id, node, function)

    def contents_now(self, node_ids: Iterable[str]) -> dict[str, dict[str, str]]:
        """The contents of the models that these nodes have chosen, as they are at this moment."""
        return contents_of(self._chosen(node_ids))

    def _chosen(self, node_ids: Iterable[str]) -> Iterator[tuple[str, str, Sequence[Any]]]:
        for node_id in node_ids:
            node = self._dynprompt.get_node(node_id)
            try:
                facts = self._dynprompt.facts.of(node["class_type"])
                found = list(chosen_texts(facts, node["inputs"]))
            except Exception:  # the same: a pack's class says so itself when its node runs
                continue
            yield from ((node_id, text, choices) for text, choices in found)

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

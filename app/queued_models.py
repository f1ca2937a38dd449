"""What the prompts in the queue will open: the depot fetches it ahead (`comfy_depot/preload.py`)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any

import nodes
from comfy_depot.host import Chosen, QueuedPrompt
from comfy_execution.chosen import chosen_texts
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.execution_list import ExecutionList
from comfy_execution.graph_utils import is_link
from comfy_execution.queueing.schedule import schedule_of


class _NothingKnown:
    """No result of an earlier run: the cache may have let any go by then."""

    def get_local(self, node_id: str) -> None:
        return None


def queued_prompts(queue: Any, most: int) -> list[QueuedPrompt]:
    """The running prompts, and the first of those that wait, in the order in which they will run."""
    running, waiting = queue.get_current_queue_volatile()
    return [
        QueuedPrompt(item[1], item[2], tuple(item[4]), schedule_of(item).tenant or None)
        for item in itertools.chain(running, itertools.islice(waiting, most))
    ]


def tenant_of(queue: Any, prompt_id: str) -> str | None:
    """Whose running prompt this is, if it said."""
    for item in list(queue.currently_running.values()):
        if item[1] == prompt_id:
            return schedule_of(item).tenant or None
    return None


def chosen_values(graph: dict[str, Any], outputs: Sequence[str]) -> list[Chosen]:
    """The texts that are chosen from lists in the nodes that may run for these outputs, in the order in
    which these nodes will run. Behind lazy inputs may be what is never needed, so it comes last.
    """
    prompt = DynamicPrompt(graph, nodes.NODE_CLASS_MAPPINGS)
    found: list[Chosen] = []
    for node_id in dict.fromkeys([*_running_order(prompt, outputs), *all_sources(graph, outputs)]):
        try:
            facts = prompt.node_facts(node_id)
            texts = chosen_texts(facts, graph[node_id]["inputs"])
            found.extend(Chosen(text, list(choices)) for text, choices in texts)
        except Exception as error:  # a pack's class can raise anything, and says so itself when its node runs
            logging.debug("What node %s opens is not known before it runs: %s", node_id, error)
    return found


def _running_order(prompt: DynamicPrompt, outputs: Sequence[str]) -> list[str]:
    """The nodes as the executor would take them if it knew no result."""
    steps, order = ExecutionList(prompt, _NothingKnown()), []
    try:
        for node_id in outputs:
            steps.add_node(node_id)
        while (ready := steps.stage_ready()) is not None:
            order.append(ready)
            steps.complete_node_execution()
    except Exception as error:  # the same: what cannot run fails when it runs
        logging.debug("In which order a prompt will run is not known: %s", error)
    return order


def all_sources(graph: dict[str, Any], outputs: Sequence[str]) -> list[str]:
    """The outputs and every node that they are linked to, lazily or not."""
    seen = dict.fromkeys(outputs)
    waiting = list(outputs)
    while waiting:
        for value in graph.get(waiting.pop(), {}).get("inputs", {}).values():
            if is_link(value) and value[0] not in seen:
                seen[value[0]] = None
                waiting.append(value[0])
    return [node_id for node_id in seen if node_id in graph]

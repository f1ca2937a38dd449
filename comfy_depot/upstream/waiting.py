"""The prompts of upstream's queue, and what their nodes have chosen from lists: what is fetched ahead.

An item of the queue is (number, prompt id, graph, extra data, outputs to execute); newer versions have more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import folder_paths
from comfy_depot.host import Chosen, QueuedPrompt
from comfy_depot.upstream import core, running

log = logging.getLogger(__name__)


def queued_prompts(most: int) -> list[QueuedPrompt]:
    """The running prompts, and the first of those that wait, in the order in which they will run."""
    server = core.server()
    return [] if server is None else [read_item(item) for item in running.items(server.prompt_queue, most)]


def read_item(item: Sequence[Any]) -> QueuedPrompt:
    """An item of the queue."""
    tenant = item[3].get(running.TENANT) if isinstance(item[3], dict) else None
    graph = {node_id: node for node_id, node in item[2].items() if isinstance(node.get("inputs"), dict)}
    return QueuedPrompt(str(item[1]), item[2] if len(graph) == len(item[2]) else graph, tuple(item[4]),
                        tenant if isinstance(tenant, str) and tenant else None)


def models_in_use() -> set[tuple[str, str]]:
    """(folder type, name) of every model that a prompt of the queue may open: a superset, never less."""
    server = core.server()
    if server is None:
        return set()
    items = running.items(server.prompt_queue, len(server.prompt_queue.queue) + 1)
    nodes = (node for item in items for node in read_item(item).graph.values())
    texts = (text for node in nodes for value in node["inputs"].values() for text in _texts(value))
    names = {text.replace("\\", "/") for text in texts}
    return {(folder, name) for folder in list(folder_paths.folder_names_and_paths) for name in names}


def chosen(prompt: QueuedPrompt) -> list[Chosen]:
    """What the nodes of a prompt have chosen from lists, in the order in which they will about run."""
    found: list[Chosen] = []
    offers: dict[str, dict[str, Sequence[Any]]] = {}
    for node_id in running_order(prompt.graph, prompt.outputs):
        node = prompt.graph[node_id]
        class_type = node.get("class_type", "")
        if class_type not in offers:
            offers[class_type] = _offers_of(class_type)
        for name, value in node["inputs"].items():
            choices = offers[class_type].get(name)
            if choices is not None:
                found.extend(Chosen(text, choices) for text in _texts(value))
    return found


def running_order(graph: Mapping[str, Any], outputs: Iterable[str]) -> list[str]:
    """The outputs and all that they are linked to; what a node needs comes before it."""
    order: dict[str, None] = {}
    seen: set[str] = set()
    stack = [(node_id, False) for node_id in reversed(list(outputs))]
    while stack:
        node_id, is_ready = stack.pop()
        if is_ready:
            order[node_id] = None
        elif node_id in graph and node_id not in seen:
            seen.add(node_id)
            stack.append((node_id, True))
            links = [value[0] for value in graph[node_id]["inputs"].values() if _is_link(value)]
            stack.extend((source, False) for source in reversed(links))
    return list(order)


def _offers_of(class_type: str) -> dict[str, Sequence[Any]]:
    """{input: the list that it chooses from} of a class of nodes, of either kind."""
    try:
        class_def = core.nodes().NODE_CLASS_MAPPINGS[class_type]
        types = class_def.INPUT_TYPES()
        inputs = {**types.get("required", {}), **types.get("optional", {})}
        return {name: choices for name, spec in inputs.items() if (choices := choices_of(spec)) is not None}
    except Exception as error:  # a pack's class can raise anything, and says so itself when its node runs
        log.debug("What nodes of class %s choose from is not known: %s", class_type, error)
        return {}


def choices_of(spec: Any) -> Sequence[Any] | None:
    """The list that an input chooses from; None for one that does not."""
    if not isinstance(spec, (list, tuple)) or not spec:
        return None
    if isinstance(spec[0], (list, tuple)):
        return list(spec[0])
    settings = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    return list(settings.get("options") or ()) if spec[0] == "COMBO" else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and not _is_link(value):
        yield from (text for text in value if isinstance(text, str))


def _is_link(value: Any) -> bool:
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
            and isinstance(value[1], (int, float)))

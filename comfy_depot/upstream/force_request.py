"""`force` and `cache` of a request to upstream's server: the contract of docs/force.md.

Our own server reads the same fields in `comfy_execution/force.py`. Neither can use the other: upstream has a
package of that name as well, and the executor imports nothing of the depot. A test holds them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIELDS = ("force", "cache")
CACHE_CHOICES = ("read", "write", "off")
MOST_NAMED = 20
LONGEST_VALUE = 80


class InvalidRequest(ValueError):
    """A request that asks for what cannot be. `answer` is what the server says of it."""

    def __init__(self, kind: str, message: str, details: str, extra_info: Mapping[str, Any]) -> None:
        super().__init__(message)
        error = {"type": kind, "message": message, "details": details, "extra_info": dict(extra_info)}
        self.answer: dict[str, Any] = {"error": error, "node_errors": {}}


@dataclass(frozen=True)
class Request:
    """What is asked for. At most one of the three forms of `force` is set."""

    every: bool = False
    outputs: bool = False
    names: frozenset[str] = frozenset()
    """Ids and class types."""
    cache: str = "read"

    @property
    def asks_for_all(self) -> bool:
        """Whether no stored result is used."""
        return self.every or self.cache != "read"

    @property
    def asks(self) -> bool:
        """Whether anything is to be other than usual."""
        return self.asks_for_all or self.outputs or bool(self.names)


def read_request(fields: Mapping[str, Any]) -> Request:
    """The request in these fields; null and false ask for nothing. Raises InvalidRequest."""
    cache, force = fields.get("cache"), fields.get("force")
    if cache is not None and cache not in CACHE_CHOICES:
        raise InvalidRequest("invalid_cache", 'cache must be "read", "write" or "off"',
                             f"Received {_shown(cache)}.", {"choices": list(CACHE_CHOICES)})
    names = force if isinstance(force, list) else []
    is_known = force is None or isinstance(force, (bool, list)) or force == "outputs"
    if not is_known or not all(isinstance(name, str) for name in names):
        raise InvalidRequest(
            "invalid_force", 'force must be true, false, "outputs" or a list of node ids and class types',
            f'Received {_shown(force)}. Ids are texts, for example ["9", "KSampler"].',
            {"choices": [True, False, "outputs"]})
    return Request(force is True, force == "outputs", frozenset(names), cache or "read")


def check_names(request: Request, prompt: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a name that no node of the prompt has; it says which there are."""
    classes = {node_id: _class_of(node) for node_id, node in prompt.items()}
    unknown = sorted(request.names - classes.keys() - set(classes.values()))
    if not unknown:
        return
    shown, there = unknown[:MOST_NAMED], list(classes.items())[:MOST_NAMED]
    listed = ", ".join(f"{node_id} ({class_type})" for node_id, class_type in there)
    raise InvalidRequest(
        "invalid_force", "force names nodes that are not in the prompt",
        f"No node has the id or class type {', '.join(map(repr, shown))}. "
        f"The nodes are: {listed}{', …' if len(classes) > len(there) else ''}",
        {"unknown": shown, "ids": [node_id for node_id, _ in there],
         "class_types": sorted(set(classes.values()))[:MOST_NAMED]})


def moved(body: Any) -> Any:
    """A body of `POST /prompt` with its fields in `extra_data`, where queue and history show them and the
    executor finds them. Raises InvalidRequest. What is no prompt is left to the server.
    """
    prompt = body.get("prompt") if isinstance(body, dict) else None
    extra_data = body.get("extra_data") or {} if isinstance(body, dict) else None
    if not isinstance(prompt, dict) or not isinstance(extra_data, dict):
        return body
    given = {field: body[field] for field in FIELDS if body.get(field) is not None}
    fields = {**extra_data, **given}
    check_names(read_request(fields), prompt)
    return {**body, "extra_data": fields} if given else body


def _class_of(node: Any) -> str:
    return str(node.get("class_type", "")) if isinstance(node, dict) else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"

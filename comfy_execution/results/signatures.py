"""Signatures: the same content gives the same signature, so a result can be found again.

The signature of a node is a digest of its class, its `IS_CHANGED` value, its literal inputs, the contents of
the models that it names, and the signatures of the nodes it is linked to. Node ids are no part of it (unless
the class says so): a workflow with other numbers finds its results, and two equal nodes share one. Since a
link contributes the finished digest of its source, all signatures of a prompt cost O(nodes + links).

What has no stable content (NaN, an object of some class, a link to nowhere, a circle) gets a digest of its
own that never comes again, and so does everything that depends on it.
"""

from __future__ import annotations

import itertools
import marshal
import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.graph_utils import is_link

Signature = bytes
NESTING_LIMIT = 200

_scalars = frozenset({str, int, bool, type(None), bytes})
_process = os.urandom(8)
_serial = itertools.count()


_NO_CONTENTS: Mapping[str, Mapping[str, str]] = MappingProxyType({})


class NoStableContentError(Exception):
    """A value cannot be told from others by its content."""


def never_again() -> Signature:
    """A signature that equals no other one, in this process or another."""
    return blake2b(_process + next(_serial).to_bytes(8, "big"), digest_size=16).digest()


def canonical(value: Any, depth: int = 0) -> Any:
    """`value` out of exact built-in types, with dictionaries in one order. NoStableContentError if
    impossible.
    """
    kind = type(value)
    if kind in _scalars:
        return value
    if isinstance(value, float):
        if value != value:
            raise NoStableContentError("NaN equals nothing")
        return float(value)
    if isinstance(value, (str, int, bytes)):
        exact = str if isinstance(value, str) else int if isinstance(value, int) else bytes
        return exact(value)  # type: ignore[arg-type]
    if depth > NESTING_LIMIT:
        raise NoStableContentError(f"nested deeper than {NESTING_LIMIT}")
    if isinstance(value, dict):
        items = [(canonical(k, depth + 1), canonical(v, depth + 1)) for k, v in value.items()]
        return ("dict", *sorted(items, key=lambda item: (type(item[0]).__name__, repr(item[0]))))
    if isinstance(value, (list, tuple)):
        return ("list", *[canonical(item, depth + 1) for item in value])
    raise NoStableContentError(f"a {kind.__name__} has no content to compare")


def digest(parts: list[Any]) -> Signature:
    """Digest of canonical content."""
    # marshal in version 0 writes equal values of exact built-in types as equal bytes, and is the fastest.
    return blake2b(marshal.dumps(parts, 0), digest_size=16).digest()


class Signatures:
    """The signatures of the nodes of one prompt. `changed` holds their IS_CHANGED values, `contents` what
    tells the content of models that they name; entries may join while nodes do.
    """

    def __init__(
        self, dynprompt: DynamicPrompt, changed: dict[str, Any],
        contents: Mapping[str, Mapping[str, str]] = _NO_CONTENTS,
    ) -> None:
        self.dynprompt = dynprompt
        self.changed = changed
        self.contents = contents
        self.by_node: dict[str, Signature] = {}
        self._unstable: set[str] = set()
        self._below: tuple[int, set[str]] = (0, set())

    def add(self, node_ids: Iterable[str]) -> None:
        """Compute the signatures of these nodes and of all they depend on. Without recursion."""
        known, opened = self.by_node, set[str]()
        for first in node_ids:
            if first in known:
                continue
            stack = [first]
            while stack:
                node_id = stack[-1]
                if node_id in known:
                    stack.pop()
                    continue
                try:
                    content, unknown = self._content(node_id)
                    signature = b"" if unknown else digest(content)
                except Exception:  # classes of node packs answer here; a node without a signature just runs
                    unknown, signature = [], never_again()
                    self._unstable.add(node_id)
                if not unknown:
                    known[stack.pop()] = signature
                elif node_id in opened:  # what it waits for waits for it: a circle
                    known[stack.pop()] = never_again()
                    self._unstable.add(node_id)
                else:
                    opened.add(node_id)
                    stack.extend(unknown)

    def is_lasting(self, node_id: str) -> bool:
        """Can this signature come again? Not if the node, or one that it depends on, has no stable content.
        """
        if not self._unstable:
            return True
        if self._below[0] != len(self.by_node):
            self._below = (len(self.by_node), self._all_below(self._unstable))
        return node_id not in self._below[1]

    def disown(self, node_id: str) -> None:
        """What this node gives is not what its signature says. It and all that depends on it get signatures
        that never come again.
        """
        for below in self._all_below({node_id}):
            self.by_node[below] = never_again()
            self._unstable.add(below)
        self._below = (0, set())

    def _all_below(self, node_ids: Iterable[str]) -> set[str]:
        """These nodes and all that depend on them."""
        consumers: dict[str, list[str]] = {}
        for node_id in self.by_node:
            for value in (self.dynprompt.find_node(node_id) or {"inputs": {}})["inputs"].values():
                if is_link(value):
                    consumers.setdefault(value[0], []).append(node_id)
        found, waiting = set[str](), list(node_ids)
        while waiting:
            node_id = waiting.pop()
            if node_id not in found:
                found.add(node_id)
                waiting.extend(consumers.get(node_id, ()))
        return found

    def _content(self, node_id: str) -> tuple[list[Any], list[str]]:
        """What a node's signature is made of, and the nodes whose signatures are still missing in it."""
        node = self.dynprompt.get_node(node_id)
        class_type, inputs, known = node["class_type"], node["inputs"], self.by_node
        names = sorted(inputs) if len(inputs) > 1 else inputs
        parts: list[Any] = [class_type]
        unknown = []
        if node_id in self.changed:
            parts.append(("changed", canonical(self.changed[node_id])))
        if node_id in self.contents:
            parts.append(("models", canonical(self.contents[node_id])))
        if self.dynprompt.facts.of(class_type).id_is_part_of_key:
            parts.append(("id", node_id))
        for name in names:
            value = inputs[name]
            kind = type(value)
            parts.append(name)
            if kind in _scalars:
                parts.append(value)
            elif kind is list and is_link(value):
                source = known.get(value[0])
                if source is None:
                    unknown.append(value[0])
                else:
                    parts.append(("link", source, value[1]))
            else:
                parts.append(canonical(value))
        return parts, unknown

"""What the nodes are: /object_info, from which clients build their menus and forms."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from typing import Any

from aiohttp import web

import folder_paths
import nodes
from app.encoded_lists import LONG, EncodedLists
from app.routes import answer_encoded, register
from app.routes.operations import OBJECT, TEXT, TRUTH, Operation, by_name, many, or_null, record

# Attribute of a class -> key of its description; told only where the class has it.
OPTIONAL = (
    ("OUTPUT_TOOLTIPS", "output_tooltips"),
    ("API_NODE", "api_node"),
    ("ESSENTIALS_CATEGORY", "essentials_category"),
)
FLAGS = (("DEPRECATED", "deprecated"), ("EXPERIMENTAL", "experimental"), ("DEV_ONLY", "dev_only"))

NOT_IN_COMBOS = frozenset({"custom_nodes", "datasets"})
SECONDS_AT_ONCE = 0.005
LISTS = EncodedLists()
"""The lists of `folder_paths` and of nodes, by their content: what no request changes."""


def node_info(name: str) -> dict[str, Any]:
    """The description of a node class. Classes of the V3 interface describe themselves."""
    node = nodes.NODE_CLASS_MAPPINGS[name]
    if hasattr(node, "GET_NODE_INFO_V1"):
        return node.GET_NODE_INFO_V1()
    inputs = node.INPUT_TYPES()
    outputs = node.RETURN_TYPES
    info = {
        "input": inputs,
        "input_order": {section: list(content) for section, content in inputs.items()},
        "is_input_list": getattr(node, "INPUT_IS_LIST", False),
        "output": outputs,
        "output_is_list": getattr(node, "OUTPUT_IS_LIST", [False] * len(outputs)),
        "output_name": getattr(node, "RETURN_NAMES", outputs),
        "name": name,
        "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
        "description": getattr(node, "DESCRIPTION", ""),
        "python_module": getattr(node, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(node, "CATEGORY", "sd"),
        "output_node": getattr(node, "OUTPUT_NODE", False) is True,
        "has_intermediate_output": getattr(node, "HAS_INTERMEDIATE_OUTPUT", False) is True,
        "search_aliases": getattr(node, "SEARCH_ALIASES", []),
    }
    info.update({key: getattr(node, attribute) for attribute, key in OPTIONAL if hasattr(node, attribute)})
    info.update({key: True for attribute, key in FLAGS if getattr(node, attribute, False)})
    return info


class _LongLists:
    """The long lists of a description, out of it for a moment. Each leaves a mark that is in no other text.
    """

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)
        self._taken: list[bytes] = []

    def take_out(self, info: dict[str, Any]) -> dict[str, Any]:
        """The description with a mark in the place of each long combo."""
        sections = info.get("input")
        if isinstance(sections, dict):
            sections = {
                section: {name: self._without(declared) for name, declared in inputs.items()}
                if isinstance(inputs, dict) else inputs
                for section, inputs in sections.items()
            }  # fmt: skip
        outputs = info.get("output")
        if isinstance(outputs, (list, tuple)):
            outputs = [self._mark_for(one) for one in outputs]
        found = {"input": sections, "output": outputs}
        return {**info, **{key: value for key, value in found.items() if value}}

    def put_back(self, text: str) -> list[bytes]:
        """The JSON of the description, whole again, in parts: what is long is copied once, to the answer."""
        if not self._taken:
            return [text.encode()]
        parts = re.split(f'"{self._mark}:([0-9]+)"', text)
        return [self._taken[int(part)] if odd % 2 else part.encode() for odd, part in enumerate(parts)]

    def _without(self, declared: Any) -> Any:
        """What INPUT_TYPES says of one input: `(choices, ...)` or `("COMBO", {"options": choices})`."""
        if not isinstance(declared, (list, tuple)) or not declared:
            return declared
        kind, *more = declared
        if more and isinstance(more[0], dict) and isinstance(more[0].get("options"), list):
            more[0] = {**more[0], "options": self._mark_for(more[0]["options"])}
        return [self._mark_for(kind), *more]

    def _mark_for(self, value: Any) -> Any:
        if not isinstance(value, list) or len(value) <= LONG:
            return value
        encoded = LISTS.known(value)
        if encoded is None:
            if set(map(type, value)) != {str}:
                return value
            encoded = LISTS.json_of(value)
        self._taken.append(encoded)
        return f"{self._mark}:{len(self._taken) - 1}"


def encoded_info(name: str) -> list[bytes]:
    """`"name": {description}`, with no NaN or Infinity: one of those makes the whole answer unreadable."""
    lists = _LongLists()
    text = json.dumps(lists.take_out(node_info(name)), allow_nan=False)
    return [json.dumps(name).encode(), b": ", *lists.put_back(text)]


def prepare_lists() -> None:
    """Have the file lists current and encoded, in a thread, so that the event loop finds them ready."""
    for kind in [kind for kind in folder_paths.folder_names_and_paths if kind not in NOT_IN_COMBOS]:
        try:
            names = folder_paths.get_filename_list(kind)
        except Exception:  # a pack may have put anything into the table; a node that needs it will tell
            logging.debug("The list of %s cannot be made.", kind, exc_info=True)
            continue
        if len(names) > LONG:
            LISTS.json_of(names)


async def describe(names: list[str]) -> bytes:
    """A JSON object of descriptions by class, without the classes that cannot describe themselves.

    Other requests are served in between.
    """
    await asyncio.to_thread(prepare_lists)
    parts: list[bytes] = []
    waiting = names[::-1]
    while waiting:
        began = time.perf_counter()
        with folder_paths.cache_helper:
            while waiting and time.perf_counter() - began < SECONDS_AT_ONCE:
                name = waiting.pop()
                try:
                    parts += [b", " if parts else b"", *encoded_info(name)]
                except Exception:  # a pack's INPUT_TYPES can raise anything, and must not empty every menu
                    logging.exception("Node class %s is left out of /object_info.", name)
        await asyncio.sleep(0)
    return b"".join((b"{", *parts, b"}"))


async def get_object_info(server: Any, request: web.Request) -> web.Response:
    return answer_encoded(await describe(list(nodes.NODE_CLASS_MAPPINGS)))


async def get_object_info_of_class(server: Any, request: web.Request) -> web.Response:
    name = request.match_info["node_class"]
    return answer_encoded(await describe([name] if name in nodes.NODE_CLASS_MAPPINGS else []))


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the node descriptions."""
    register(
        routes,
        server,
        [
            ("GET", "/object_info", get_object_info),
            ("GET", "/object_info/{node_class}", get_object_info_of_class),
        ],
    )


NODE = record(
    {"input": OBJECT, "input_order": OBJECT, "output": {"type": "array"}, "output_is_list": many(TRUTH),
     "output_name": {"type": "array"}, "name": TEXT, "display_name": or_null(TEXT), "description": TEXT,
     "python_module": TEXT, "category": TEXT, "output_node": TRUTH},
    {"deprecated": TRUTH, "experimental": TRUTH, "api_node": TRUTH, "search_aliases": or_null(many(TEXT))},
)  # fmt: skip
OPERATIONS = {
    "GET /object_info": Operation("All node classes", {200: by_name(NODE)}),
    "GET /object_info/{node_class}": Operation(
        "One node class; empty when there is none", {200: by_name(NODE)}
    ),
}

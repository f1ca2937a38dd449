"""What the nodes are: /object_info, from which clients build their menus and forms."""

from __future__ import annotations

import json
import logging
from typing import Any

from aiohttp import web

import folder_paths
import nodes
from app.routes import register

# Attribute of a class -> key of its description; told only where the class has it.
OPTIONAL = (
    ("OUTPUT_TOOLTIPS", "output_tooltips"),
    ("API_NODE", "api_node"),
    ("ESSENTIALS_CATEGORY", "essentials_category"),
)
FLAGS = (("DEPRECATED", "deprecated"), ("EXPERIMENTAL", "experimental"), ("DEV_ONLY", "dev_only"))


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


def describe(names: list[str]) -> str:
    """A JSON object of descriptions by class, without the classes that cannot describe themselves."""
    described: list[str] = []
    with folder_paths.cache_helper:
        for name in names:
            try:
                # Class by class, and no NaN or Infinity: one such value makes the whole answer unreadable.
                described.append(f"{json.dumps(name)}: {json.dumps(node_info(name), allow_nan=False)}")
            except Exception:  # a pack's INPUT_TYPES can raise anything, and must not empty every menu
                logging.exception("Node class %s is left out of /object_info.", name)
    return "{" + ", ".join(described) + "}"


async def get_object_info(server: Any, request: web.Request) -> web.Response:
    return web.json_response(text=describe(list(nodes.NODE_CLASS_MAPPINGS)))


async def get_object_info_of_class(server: Any, request: web.Request) -> web.Response:
    name = request.match_info["node_class"]
    return web.json_response(text=describe([name] if name in nodes.NODE_CLASS_MAPPINGS else []))


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

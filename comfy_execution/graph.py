"""The graph's names under the module that node packs import them from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.errors import DependencyCycleError, NodeInputError, NodeNotFoundError
from comfy_execution.execution_list import ExecutionList
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.node_facts import find_input

__all__ = [
    "DependencyCycleError",
    "DynamicPrompt",
    "ExecutionBlocker",
    "ExecutionList",
    "NodeInputError",
    "NodeNotFoundError",
    "get_input_info",
]


def get_input_info(
    class_def: Any, input_name: str, valid_inputs: Mapping[str, Any] | None = None
) -> tuple[Any, str | None, Any]:
    """(type, category, options) of an input of a node class; three times None for an undeclared one."""
    spec = find_input(valid_inputs or class_def.INPUT_TYPES(), input_name)
    return (None, None, None) if spec is None else (spec.type, spec.category, spec.options)

"""The values that a node is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.graph_utils import is_link
from comfy_execution.node_facts import NodeFacts
from comfy_execution.schema_nodes import SchemaData, schema_data

MISSING = (None,)
"""The list of values of a link whose result is not known (yet)."""


class LinkedResults(Protocol):
    """Where the results of linked nodes are found."""

    def get_cache(self, from_node_id: str, to_node_id: str) -> Any | None:
        """The result of one node for another, or None."""


@dataclass(slots=True)
class NodeInputs:
    """Values by input name, each a list; the names whose link has no result yet; and what a node of the
    schema interface is told beside its inputs.
    """

    values: dict[str, Any]
    missing: dict[str, bool]
    schema: SchemaData | None = None


def hidden_values(
    hidden: Mapping[str, Any], node_id: str, dynprompt: DynamicPrompt | None, extra_data: Mapping[str, Any]
) -> dict[str, Any]:
    """Values of hidden inputs, given their kinds by name. Other kinds are left to the prompt."""
    values: dict[str, Any] = {}
    for name, kind in hidden.items():
        if kind == "PROMPT":
            values[name] = {} if dynprompt is None else dynprompt.get_original_prompt()
        elif kind == "DYNPROMPT":
            values[name] = dynprompt
        elif kind == "UNIQUE_ID":
            values[name] = node_id
        elif kind == "EXTRA_PNGINFO":
            values[name] = extra_data.get("extra_pnginfo")
        elif kind in ("AUTH_TOKEN_COMFY_ORG", "API_KEY_COMFY_ORG", "COMFY_USAGE_SOURCE"):
            values[name] = extra_data.get(kind.lower())
    return values


def collect_inputs(
    inputs: Mapping[str, Any],
    facts: NodeFacts,
    node_id: str,
    *,
    results: LinkedResults | None = None,
    dynprompt: DynamicPrompt | None = None,
    extra_data: Mapping[str, Any] | None = None,
) -> NodeInputs:
    """Gather what a node's function gets.

    Literals become lists of one; a link becomes its list of values, or is missing. Literals that the class
    does not declare are dropped unless it accepts all, and so are links to undeclared inputs unless the
    function can take them.
    """
    if facts.is_dynamic:
        facts = facts.live(inputs)
    values: dict[str, Any] = {}
    missing: dict[str, bool] = {}
    specs = facts.inputs
    for name, value in inputs.items():
        spec = specs[name]
        if type(value) is list and is_link(value) and (spec is None or not spec.is_raw_link):
            if spec is None and not facts.accepts(name):
                continue
            source, slot = value
            entry = None if results is None else results.get_cache(source, node_id)
            if entry is None or entry.outputs is None or slot >= len(entry.outputs):
                missing[name] = True
                values[name] = MISSING
            else:
                values[name] = entry.outputs[int(slot)]
        elif spec is not None or facts.accepts_all_inputs:
            values[name] = [value]
    if facts.hidden:
        hidden = hidden_values(facts.hidden, node_id, dynprompt, extra_data or {})
        values.update((name, [value]) for name, value in hidden.items())
    if not facts.is_schema:
        return NodeInputs(values, missing)
    by_kind = {kind: kind for kind in facts.hidden_of_schema.values()}
    hidden = hidden_values(by_kind, node_id, dynprompt, extra_data or {})
    return NodeInputs(values, missing, schema_data(facts.expansion, hidden))

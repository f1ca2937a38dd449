"""`comfy_api.latest.io` under the name of the module that packs import privately."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest.io import *  # noqa: F403
from comfy_api.latest.io.kinds import _ComfyType as _ComfyType
from comfy_api.latest.io.node import _ComfyNodeBaseInternal as _ComfyNodeBaseInternal
from comfy_api.latest.io.node import _UIOutput as _UIOutput
from comfy_execution import dynamic_inputs, schema_nodes


def get_finalized_class_inputs(
    d: Mapping[str, Any], live_inputs: Mapping[str, Any], include_hidden: bool = False
) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """(plain inputs for these live ones, the hidden ones, data of the visit)."""
    expansion = dynamic_inputs.expand(d, live_inputs)
    inputs: dict[str, Any] = {"required": expansion.required, "optional": expansion.optional}
    hidden = d.get("hidden")
    if include_hidden and hidden is not None:
        inputs["hidden"] = hidden
    data = schema_nodes.schema_data(expansion, {})
    del data["hidden_inputs"]
    return inputs, hidden, data


def build_nested_inputs(values: Mapping[str, Any], v3_data: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a call, those of dynamic inputs nested."""
    defaults = v3_data.get("dynamic_paths_default_value", {})
    with_ids = v3_data.get("create_dynamic_tuple", False)
    return dynamic_inputs.nest(values, v3_data.get("dynamic_paths", {}), defaults, with_ids=with_ids)

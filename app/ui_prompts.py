"""`POST /prompt` with a workflow as the web page saves it, in the place of a prompt: it becomes one."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

import nodes
from app.routes.object_info import node_info
from comfy_execution import ui_workflow
from comfy_execution.errors import InvalidRequestError

log = logging.getLogger(__name__)
MALFORMED = (ui_workflow.WorkflowError, TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What a workflow of wrong shape can cause: its parts are taken for what they should be."""


def _declared(name: str) -> Mapping[str, Any] | None:
    """The inputs of a class, or None for one that is unknown or cannot describe itself."""
    if name not in nodes.NODE_CLASS_MAPPINGS:
        return None
    try:
        return node_info(name)["input"]
    except Exception:  # a pack's class can fail in any way; validation names it
        return None


def take_saved_workflow(body: dict[str, Any]) -> None:
    """Replace a saved workflow in a body by its prompt. Files that are saved then hold the workflow itself,
    unless the request brings one. Raises InvalidRequestError.
    """
    workflow = body.get("prompt")
    if not ui_workflow.is_saved_workflow(workflow):
        return
    extra_data = dict(body.get("extra_data") or {})
    try:
        pnginfo = dict(extra_data.get("extra_pnginfo") or {})
        converted = ui_workflow.convert(workflow, functools.cache(_declared))
    except MALFORMED as error:
        raise InvalidRequestError(
            "invalid_workflow", "The saved workflow cannot be turned into a prompt",
            f"{type(error).__name__}: {error}. Open it in the web page and export it for the API.", {},
        ) from None
    for oddity in converted.oddities:
        log.warning("Saved workflow: %s", oddity)
    body["prompt"] = converted.prompt
    pnginfo.setdefault("workflow", workflow)
    body["extra_data"] = {**extra_data, "extra_pnginfo": pnginfo}

"""Carries a node's progress bar to the clients: `progress` messages, node states, previews."""

from __future__ import annotations

from typing import Any

from comfy import interruption, progress_bar
from comfy_api import feature_flags
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from protocol import BinaryEventTypes


def create_hook(server: Any) -> progress_bar.ProgressHook:
    """The function that every progress bar calls; it is also where a long node learns that it shall stop."""

    def hook(
        value: float, total: float, preview: Any, prompt_id: str | None = None, node_id: str | None = None
    ) -> None:
        context = get_executing_context()
        prompt_id = prompt_id or (context.prompt_id if context else server.last_prompt_id)
        node_id = node_id or (context.node_id if context else server.last_node_id)
        interruption.throw_exception_if_processing_interrupted()
        get_progress_state().update_progress(node_id, value, total, preview)
        message = {"value": value, "max": total, "prompt_id": prompt_id, "node": node_id}
        server.send_sync("progress", message, server.client_id)
        if preview is not None and not knows_metadata(server):
            server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, server.client_id)

    return hook


def knows_metadata(server: Any) -> bool:
    """Does the client get previews with metadata, from the node states?"""
    return feature_flags.supports_feature(
        server.sockets_metadata, server.client_id, "supports_preview_metadata"
    )


def install(server: Any) -> None:
    """Let progress bars report to the server."""
    progress_bar.set_progress_bar_global_hook(create_hook(server))

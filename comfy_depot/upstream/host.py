"""The port through which the depot speaks to upstream's server, queue and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from comfy_depot.host import Host
from comfy_depot.upstream import core, loaders, memory, page, running, waiting


def upstream_host() -> Host:
    """What the depot may ask of upstream. Everything is looked up when it is asked for: the depot starts
    before there is a server.
    """
    return Host(
        current_node=running.current_node,
        report=_report,
        raise_if_interrupted=_raise_if_interrupted,
        send=_send,
        models_in_use=waiting.models_in_use,
        queued_prompts=waiting.queued_prompts,
        chosen=waiting.chosen,
        load_settings=memory.load_settings,
        load_model=loaders.load_model,
        bytes_free=memory.bytes_free,
        bytes_allowed=memory.bytes_allowed,
        bytes_of_device=memory.bytes_of_device,
        memory_report=memory.memory_report,
        on_routes=page.on_routes,
    )


def _report(done: int, total: int) -> None:
    core.progress_bar(total).update_absolute(done)


def _raise_if_interrupted() -> None:
    core.model_management().throw_exception_if_processing_interrupted()


def _send(event: str, data: Mapping[str, Any]) -> None:
    server = core.server()
    if server is not None:
        with contextlib.suppress(RuntimeError):  # its loop has ended
            server.send_sync(event, data)

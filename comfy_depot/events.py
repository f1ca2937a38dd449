"""The websocket event `depot`: what a page is told about transfers and models on their way to memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy_depot.transfers import Transfer
    from comfy_depot.warm_memory import Warming

EVENT = "depot"
SECONDS_BETWEEN = 0.2  # of one transfer; its end is always told


def transfer_payload(transfer: Transfer) -> dict[str, Any]:
    """The state of a transfer. `source` is a host name only; rates are bytes per second."""
    left = transfer.seconds_left
    return {
        "kind": "transfer",
        "id": transfer.id,
        "folder": transfer.entry.folder,
        "name": transfer.entry.name,
        "state": transfer.state.value,
        "bytes_done": transfer.bytes_done,
        "bytes_total": transfer.bytes_total,
        "bytes_per_second": transfer.bytes_per_second,
        "seconds_left": None if left is None else round(left, 1),
        "source": transfer.source,
        "error": str(transfer.error) if transfer.error else None,
    }


def memory_payload(model: Warming) -> dict[str, Any]:
    """How far a model is on its way into memory."""
    return {"kind": "memory", **model.as_json()}

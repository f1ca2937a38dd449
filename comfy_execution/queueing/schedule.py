"""In which order prompts run: the fields `priority`, `tenant` and `timeout_seconds` of a request.

    "priority": 5            higher numbers run first (default 0)
    "tenant": "studio-b"     whose prompt it is: tenants take turns inside a priority
    "timeout_seconds": 120   the prompt is stopped when it has run so long (default: --prompt-timeout)

They travel in the extra data of the queue item, where queue and history show them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_execution.errors import InvalidRequestError

FIELDS = ("priority", "tenant", "timeout_seconds")
DEFAULT_TENANT = ""
LONGEST_TENANT = 200


@dataclass(frozen=True)
class Schedule:
    """What a request says about its turn."""

    priority: float = 0.0
    tenant: str = DEFAULT_TENANT
    timeout_seconds: float | None = None


def _number(value: Any) -> float | None:
    """A finite number, or None for anything else (true and false are none)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _refusal(kind: str, message: str, value: Any) -> InvalidRequestError:
    text = repr(value)
    return InvalidRequestError(
        kind, message, f"Received {text if len(text) <= 80 else text[:80] + '…'}.", {"received": text[:80]}
    )


def read_schedule(fields: Mapping[str, Any]) -> Schedule:
    """The schedule in these fields; null is the default. Raises InvalidRequestError."""
    priority, tenant, timeout = (fields.get(name) for name in FIELDS)
    if priority is not None and _number(priority) is None:
        raise _refusal("invalid_priority", "priority must be a number; higher ones run first", priority)
    if tenant is not None and not (
        isinstance(tenant, str) and 0 < len(tenant) <= LONGEST_TENANT and tenant.isprintable()
    ):
        raise _refusal("invalid_tenant", "tenant must be a text of 1 to 200 printable characters", tenant)
    seconds = _number(timeout)
    if timeout is not None and (seconds is None or seconds <= 0):
        raise _refusal(
            "invalid_timeout_seconds", "timeout_seconds must be a number greater than 0", timeout
        )
    return Schedule(_number(priority) or 0.0, tenant or DEFAULT_TENANT, seconds)


def schedule_of(item: tuple[Any, ...]) -> Schedule:
    """The schedule of a queue item. Items that packs made may hold anything, and count as the default."""
    try:
        return read_schedule(item[3])
    except (InvalidRequestError, AttributeError, IndexError, TypeError):
        return Schedule()

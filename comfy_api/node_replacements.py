"""Where packs leave successors of node classes, until a server takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_left: list[Any] = []
_receivers: list[Callable[[Any], None]] = []


def add_replacement(node_replace: Any) -> None:
    """Hand a successor to the server, or keep it until there is one."""
    if not _receivers:
        _left.append(node_replace)
    for receive in _receivers:
        receive(node_replace)


def send_replacements_to(receive: Callable[[Any], None]) -> None:
    """From now on `receive` gets them, first those that were left so far. It takes the place of another."""
    _receivers[:] = [receive]
    for node_replace in _left:
        receive(node_replace)
    _left.clear()

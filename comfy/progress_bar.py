"""Progress of long work inside a node. The host installs one hook; without it a bar is silent. Torch-free."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

ProgressHook = Callable[..., None]

# Module-level because node packs read and replace it.
PROGRESS_BAR_HOOK: ProgressHook | None = None


def set_progress_bar_global_hook(function: ProgressHook | None) -> None:
    """Install `function(value, total, preview, node_id=None)`; it is taken by bars that are made afterwards.
    """
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


class ProgressBar:
    """Counts up to `total` and tells the hook. `node_id` None means the node that is executing."""

    def __init__(self, total: float, node_id: str | None = None) -> None:
        self.total = total
        self.current: float = 0
        self.hook = PROGRESS_BAR_HOOK
        self.node_id = node_id

    def update_absolute(self, value: float, total: float | None = None, preview: Any = None) -> None:
        """Set the position. `preview` is ("JPEG" | "PNG", PIL image, longest side or None)."""
        if total is not None:
            self.total = total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value: float) -> None:
        """Go on by `value`."""
        self.update_absolute(self.current + value)

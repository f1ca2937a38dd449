"""Models that somebody wants for himself: read anew, although the same weights are in memory.

Upstream's patchers carry their own loader (`cached_patcher_init`). They call it where the weights in memory
must not be shared: a copy for another GPU, a copy that is not streamed. Such a call passes the store by.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

_here = threading.local()


def is_wanted() -> bool:
    """Whether the calling thread wants a model for itself."""
    return getattr(_here, "depth", 0) > 0


class Loader:
    """A loader whose models nobody else gets."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _here.depth = getattr(_here, "depth", 0) + 1
        try:
            return self.function(*args, **kwargs)
        finally:
            _here.depth -= 1


def reload_alone(patcher: Any) -> None:
    """Let a patcher that loads its model anew, and all its clones, get one that nobody shares."""
    init = getattr(patcher, "cached_patcher_init", None)
    if isinstance(init, tuple) and init and not isinstance(init[0], Loader):
        patcher.cached_patcher_init = (Loader(init[0]), *init[1:])

"""The interface for nodes that are not asynchronous: the same calls, waited for.

A node's own thread runs the event loop of its prompt, so what is waited for runs in a loop on a thread of its
own, with the caller's context variables: it still counts as part of the node that called.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from comfy_api.internal.singleton import ProxiedSingleton


@functools.lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="comfy-api")


def run_blocking(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine, for code that may itself run inside an event loop."""
    context = contextvars.copy_context()
    return _threads().submit(context.run, asyncio.run, coroutine).result()


class SyncView:
    """An object of the interface whose asynchronous methods return when they are done."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if inspect.iscoroutinefunction(value):
            return _blocking(value)
        return SyncView(value) if isinstance(value, ProxiedSingleton) else value


def _blocking(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return run_blocking(function(*args, **kwargs))

    return call


def create_sync_class(async_class: type, thread_pool_size: int = 10) -> type:
    """The twin of a class of the interface. `thread_pool_size` is accepted and not needed."""

    class Twin(SyncView):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(async_class(*args, **kwargs))

    Twin.__name__ = Twin.__qualname__ = f"{async_class.__name__}Sync"
    Twin.__module__ = async_class.__module__
    Twin.__doc__ = f"{async_class.__name__} for code that is not asynchronous."
    return Twin

"""Runs one coroutine after the other, each as if it had an event loop of its own.

Nothing that a node leaves behind (a task, a timer, a thread) reaches the next prompt: tasks are cancelled and
waited for, and a loop that has anything else left is closed. A loop with nothing left is used again, because
to make one and close it takes longer than a tiny prompt.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

MARKS_OF_USE = ("_ready", "_scheduled", "_asyncgens", "_asyncgens_shutdown_called", "_default_executor")
"""Attributes of asyncio's loops that are empty or false until somebody leaves something."""


class PromptLoop:
    """An event loop for one prompt at a time. It is closed with this object."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._make_task = _task_factory(self._tasks)
        self._closes: weakref.finalize[Any, Any] | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Tasks that it leaves are cancelled, and waited for."""
        loop = self._loop or self._new_loop()
        self._loop = None  # whatever happens now, it is used again only if it ends clean
        whole = loop.create_task(self._run_and_tidy(coroutine))
        try:
            result = loop.run_until_complete(whole)
            if self._is_clean(loop):
                self._loop = loop
            return result
        finally:
            if not whole.done():  # another task has ended the loop with SystemExit or KeyboardInterrupt
                whole.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(whole)
            if self._loop is None:
                self.close()

    def close(self) -> None:
        """Let the loop go. The next prompt gets another."""
        self._loop = None
        if self._closes is not None:
            self._closes()

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        if type(loop) is asyncio.SelectorEventLoop:
            loop.close()
            loop = asyncio.SelectorEventLoop(_SparingSelector())
        loop.set_task_factory(self._make_task)
        self._closes = weakref.finalize(self, loop.close)
        return loop

    def _is_clean(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Is it as it was in the beginning? Only asyncio's own loops can be looked into."""
        left = (getattr(loop, name, True) for name in MARKS_OF_USE)
        return not any(left) and loop.get_task_factory() is self._make_task and not loop.is_closed()

    async def _run_and_tidy(self, coroutine: Coroutine[Any, Any, T]) -> T:
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        try:
            return await coroutine
        finally:
            is_known = loop.get_task_factory() is self._make_task
            tasks = list(self._tasks) if is_known else asyncio.all_tasks()
            left = {task for task in tasks if task is not current and not task.done()}
            if left:
                await _cancelled(left)
            self._tasks.clear()
            if getattr(loop, "_asyncgens", True):
                await loop.shutdown_asyncgens()
            if getattr(loop, "_default_executor", True):
                await loop.shutdown_default_executor()


class _SparingSelector(selectors.DefaultSelector):
    """Asks the system only if there is something to learn. A loop that has work at hand looks for more
    without waiting; as long as it watches nothing but its own wake-up calls, there is none.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0 and len(self.get_map()) == 1:
            return []
        return super().select(timeout)


def _task_factory(tasks: weakref.WeakSet[asyncio.Task[Any]]) -> Callable[..., asyncio.Task[Any]]:
    """Tasks as always, but noted in `tasks`: to ask asyncio means to look through those of all loops."""

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **settings: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **settings)
        tasks.add(task)
        return task

    return make


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            message = {"message": "A task that was left to itself failed when it was cancelled"}
            asyncio.get_running_loop().call_exception_handler({**message, "exception": outcome})

"""The prompt that runs now, as its own thread and tasks see it; and what is to be done between two prompts.

Upstream's server looks paths up as well: its routes, the checks of a posted prompt, the scanner of its
assets. None of that may start a download, so a node counts as running only inside `PromptExecutor.execute`,
which the hook `runs_prompts` surrounds, and not while `IS_CHANGED` is asked.

Only upstream's worker thread may move models, and it takes nothing but prompts. So what is to be done between
two of them is put into its queue under an id that only `prompt` below knows.
"""

from __future__ import annotations

import contextlib
import heapq
import inspect
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from comfy_depot.host import Executing
from comfy_depot.upstream import core, forcing

FIRST = -(10**12)
"""Before every prompt that waits."""
LOOK_SECONDS = 0.05
HISTORY_SECONDS = 5.0
TENANT = "tenant"

_current: ContextVar[forcing.Run | None] = ContextVar("depot_prompt", default=None)
_errands: dict[str, _Errand] = {}
"""Those that wait, by the id under which they stand in the queue."""
_ids: set[str] = set()
"""The ids of all that the queue or the history may hold."""


class _Errand:
    """Something to do between two prompts."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.is_done = threading.Event()
        self.error: BaseException | None = None

    def run(self, executor: Any) -> None:
        """Do it in the place of a prompt."""
        try:
            with core.without_gradients():
                self.act()
        except BaseException as error:  # whoever waits for it raises it; the worker goes on
            self.error = error
        finally:
            executor.success, executor.status_messages = True, []
            executor.history_result = {"outputs": {}, "meta": {}}
            self.is_done.set()


@contextlib.contextmanager
def prompt(
    executor: Any, graph: Mapping[str, Any], prompt_id: str, extra_data: Any = None, *args: Any, **kwargs: Any
) -> Iterator[bool]:
    """Meanwhile this prompt runs. Yields whether it has run already, since it is something else."""
    errand = _errands.pop(prompt_id, None)
    if errand is not None:
        errand.run(executor)
        yield True
        return
    fields = extra_data if isinstance(extra_data, dict) else {}
    tenant = fields.get(TENANT)
    run = forcing.begin(prompt_id, fields, tenant=tenant if isinstance(tenant, str) else None)
    before = _current.set(run)
    is_through = False
    try:
        yield False
        is_through = True
    finally:
        _current.reset(before)
        forcing.end(run, executor, is_through=is_through)


def run(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`PromptExecutor.execute(self, prompt, prompt_id, ...)`, which may be `async` one day."""
    if inspect.iscoroutinefunction(method):
        return _run_async(method, *args, **kwargs)
    with prompt(*args, **kwargs) as is_through:
        return None if is_through else method(*args, **kwargs)


async def _run_async(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with prompt(*args, **kwargs) as is_through:
        return None if is_through else await method(*args, **kwargs)


def is_changed(method: Callable[..., Any], cache: Any, node_id: str, *args: Any, **kwargs: Any) -> Any:
    """`IsChangedCache.get(self, node_id)`, as far as the running prompt forces the node."""
    return forcing.get(method, cache, _current.get(), node_id, *args, **kwargs)


def current_node() -> Executing | None:
    """The node that runs in this thread or task."""
    run = _current.get()
    if run is None or forcing.is_asking():
        return None
    try:
        context = core.executing_context()
        node_id = None if context is None else str(context.node_id)
    except ImportError:
        node_id = _node_on_the_stack()
    return None if node_id is None else Executing(run.prompt_id, node_id, run.tenant)


def _node_on_the_stack() -> str | None:
    """The node for whose sake this function was called: before July 2025 upstream notes it only for clients
    with a websocket, but the function that runs nodes is among the callers.
    """
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "execute" and frame.f_globals.get("__name__") == "execution":
            node_id = frame.f_locals.get("current_item")
            if isinstance(node_id, str):
                return node_id
        frame = frame.f_back  # type: ignore[assignment]
    return None


def between_prompts(server: Any, act: Callable[[], None]) -> None:
    """Call `act` in the thread that runs prompts while none runs, and return when it has; its errors are
    raised here. ValueError: the queue was emptied before.
    """
    queue, prompt_id, errand = server.prompt_queue, f"depot-{uuid.uuid4()}", _Errand(act)
    _errands[prompt_id] = errand
    _ids.add(prompt_id)
    try:
        queue.put((FIRST, prompt_id, {}, {}, [], {}))
        while not errand.is_done.wait(LOOK_SECONDS):
            if prompt_id in _errands and not _is_waiting(queue, prompt_id):
                raise ValueError("The queue was emptied before the model could be loaded. Ask for it again.")
        _forget(queue, prompt_id)
    finally:
        _errands.pop(prompt_id, None)
        _ids.discard(prompt_id)
    if errand.error is not None:
        raise errand.error


def _is_waiting(queue: Any, prompt_id: str) -> bool:
    with queue.mutex:
        return any(item[1] == prompt_id for item in (*queue.queue, *queue.currently_running.values()))


def _forget(queue: Any, prompt_id: str) -> None:
    """Take what was no prompt out of the history, once the worker has put it there."""
    deadline = time.monotonic() + HISTORY_SECONDS
    while time.monotonic() < deadline:
        with queue.mutex:
            if prompt_id in queue.history:
                del queue.history[prompt_id]
                return
        time.sleep(LOOK_SECONDS)


def items(queue: Any, most: int) -> list[Any]:
    """The running prompts and the first of those that wait, as the queue holds them."""
    with queue.mutex:
        running, waiting = list(queue.currently_running.values()), list(queue.queue)
    first = heapq.nsmallest(most, waiting, key=lambda item: item[:2])
    return [item for item in (*running, *first) if item[1] not in _ids]

"""Calling a node's function: once, or once per element when its inputs are lists of several values."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from comfy.interruption import InterruptProcessingException
from comfy_execution.errors import NodeEndedError
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import CurrentNodeContext, enter_call, leave_call

BlockCallback = Callable[[ExecutionBlocker], ExecutionBlocker]


# Asked for every call, and the same for all calls of one function.
_is_coroutine_function = functools.lru_cache(maxsize=4096)(inspect.iscoroutinefunction)


def is_async(function: Callable[..., Any] | None) -> bool:
    """Is this an `async def`?"""
    return _is_coroutine_function(getattr(function, "__func__", function))


def call_now(
    prompt_id: str,
    node_id: str,
    index: int | None,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
) -> Any:
    """Call the function of a node. Whatever it raises is an Exception or an interruption."""
    token = enter_call((prompt_id, node_id, index))
    try:
        return function(**arguments)
    except (Exception, InterruptProcessingException):
        raise
    except BaseException as error:  # sys.exit, KeyboardInterrupt, a pack's own: only the node ends
        raise NodeEndedError(f"The node ended itself with {error!r} instead of a result.") from error
    finally:
        leave_call(token)


class CallOfNode:
    """Calls one function of one node with lists of values.

    `takes_lists`: one call gets them all; else there is one call per element.
    `check` runs before each call and may raise (interruption). `on_block` is given a blocker found among the
    arguments, and says what to hand on instead of a result. `before_call` gets the number of the call.
    """

    __slots__ = (
        "prompt_id", "node_id", "function", "is_async", "takes_lists", "check", "on_block", "before_call",
    )

    def __init__(
        self,
        prompt_id: str,
        node_id: str,
        function: Callable[..., Any],
        takes_lists: bool,
        check: Callable[[], None] | None = None,
        on_block: BlockCallback | None = None,
        before_call: Callable[[int], None] | None = None,
    ) -> None:
        self.prompt_id = prompt_id
        self.node_id = node_id
        self.function = function
        self.is_async = is_async(function)
        self.takes_lists = takes_lists
        self.check = check
        self.on_block = on_block
        self.before_call = before_call

    async def over_lists(self, values: Mapping[str, Any]) -> list[Any]:
        """One result per call. A call that is not finished after one turn of the loop is given as its task.
        """
        if not self.is_async:
            return self.at_once(values)
        results: list[Any] = []
        for arguments, index in self._ready_calls(values, results):
            results.append(await self._start(arguments, index))
        return results

    def at_once(self, values: Mapping[str, Any]) -> list[Any]:
        """The same for a function that is not asynchronous."""
        results: list[Any] = []
        for arguments, index in self._ready_calls(values, results):
            results.append(call_now(self.prompt_id, self.node_id, index, self.function, arguments))
        return results

    def _ready_calls(
        self, values: Mapping[str, Any], results: list[Any]
    ) -> Iterator[tuple[Mapping[str, Any], int | None]]:
        """(arguments, number of the call). A blocked call is not among them: its result is put into
        `results`.
        """
        for arguments, index, blocker in _calls(values, self.takes_lists):
            if self.check is not None:
                self.check()
            if blocker is not None:
                results.append(blocker if self.on_block is None else self.on_block(blocker))
                continue
            if self.before_call is not None and index is not None:
                self.before_call(index)
            yield arguments, index

    async def _start(self, arguments: Mapping[str, Any], index: int | None) -> Any:
        task = asyncio.create_task(self._call_async(arguments, index))
        await asyncio.sleep(0)  # it may be done without ever waiting
        return results_of([task])[0] if task.done() else task

    async def _call_async(self, arguments: Mapping[str, Any], index: int | None) -> Any:
        with CurrentNodeContext(self.prompt_id, self.node_id, index):
            try:
                return await self.function(**arguments)
            except (Exception, InterruptProcessingException, asyncio.CancelledError, GeneratorExit):
                raise  # the last two end the task from outside, when the prompt's loop closes
            except BaseException as error:  # sys.exit, KeyboardInterrupt, a pack's own: only the node ends
                raise NodeEndedError(f"The node ended itself with {error!r} instead of a result.") from error


def single_arguments(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of the only call; None if there may be several or none, or if one is a blocker."""
    arguments = {}
    for name, many in values.items():
        if len(many) != 1:
            return None
        arguments[name] = value = many[0]
        if isinstance(value, ExecutionBlocker):
            return None
    return arguments or None


def _calls(
    values: Mapping[str, Any], input_is_list: bool
) -> Iterator[tuple[Mapping[str, Any], int | None, ExecutionBlocker | None]]:
    """(arguments, number of the call, the first blocker among the arguments) of each call."""
    if input_is_list:
        yield values, 0, _blocker_among(_blocker_among(many) for many in values.values())
    elif not values:
        yield {}, None, None
    else:
        for index in range(_number_of_calls(values)):
            arguments = {name: many[index if index < len(many) else -1] for name, many in values.items()}
            yield arguments, index, _blocker_among(arguments.values())


def _blocker_among(values: Iterable[Any]) -> ExecutionBlocker | None:
    for value in values:
        if isinstance(value, ExecutionBlocker):
            return value
    return None


def _number_of_calls(values: Mapping[str, Any]) -> int:
    """The length of the longest list; shorter ones repeat their last element, so none may be empty."""
    longest = 0
    for name, many in values.items():
        length = len(many)
        if length == 0:
            raise IndexError(
                f"Input {name!r} received an empty list, so there is nothing to call this node with. "
                "Check the node that it is linked to."
            )
        longest = max(longest, length)
    return longest


async def finished(results: list[Any]) -> list[Any]:
    """The results with all tasks awaited; the first exception of a task is raised."""
    tasks = [result for result in results if isinstance(result, asyncio.Task)]
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)
    return results_of(results)


def results_of(results: list[Any]) -> list[Any]:
    """The results with finished tasks replaced by theirs; the first exception of a task is raised."""
    if any(isinstance(result, asyncio.Task) and result.cancelled() for result in results):
        raise NodeEndedError("The node's own task was cancelled before it gave a result.")
    return [result.result() if isinstance(result, asyncio.Task) else result for result in results]


def unfinished(results: list[Any]) -> list[asyncio.Task[Any]]:
    """The tasks that still run."""
    return [result for result in results if isinstance(result, asyncio.Task) and not result.done()]

"""Which node is executing: a context variable, so that it is right in asynchronous nodes too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from typing import NamedTuple


class ExecutionContext(NamedTuple):
    """The running call: prompt, node, and the position in the list when a node is called per element."""

    prompt_id: str
    node_id: str
    list_index: int | None


_Call = tuple[str, str, "int | None"]

# Plain tuples, made for every call: few nodes ask, and a named tuple costs several times as much.
_current: ContextVar[_Call | None] = ContextVar("executing_node", default=None)

enter_call: Callable[[_Call], Token[_Call | None]] = _current.set
"""From now on, code belongs to this call: (prompt id, node id, list index)."""
leave_call: Callable[[Token[_Call | None]], None] = _current.reset
"""Back to what was before; takes what `enter_call` gave."""


_is_ahead: ContextVar[bool] = ContextVar("computing_ahead", default=False)


def get_executing_context() -> ExecutionContext | None:
    """The call that this code runs in; None outside a node, and in one that is computed ahead."""
    call = None if _is_ahead.get() else _current.get()
    return None if call is None else ExecutionContext(*call)


def is_ahead() -> bool:
    """Does this code run for a prompt that waits? Then it has no progress to show, and fetches nothing."""
    return _is_ahead.get()


@contextlib.contextmanager
def ahead() -> Iterator[None]:
    """What runs inside is computed ahead of its prompt."""
    token = _is_ahead.set(True)
    try:
        yield
    finally:
        _is_ahead.reset(token)


class CurrentNodeContext:
    """`with CurrentNodeContext(prompt_id, node_id, list_index):` code inside belongs to that node."""

    __slots__ = ("context", "_token")

    def __init__(self, prompt_id: str, node_id: str, list_index: int | None = None) -> None:
        self.context = ExecutionContext(prompt_id, node_id, list_index)
        self._token: Token[_Call | None] | None = None

    def __enter__(self) -> CurrentNodeContext:
        self._token = _current.set(self.context)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

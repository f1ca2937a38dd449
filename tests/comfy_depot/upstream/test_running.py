"""On upstream a node runs only inside the worker; and the worker does errands between two prompts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_depot import hooks
from comfy_depot.host import Executing
from comfy_depot.upstream import core, running
from comfy_execution.utils import CurrentNodeContext
from tests.fakes.upstream_queue import Queue, Server, Worker


class Executor:
    """Upstream's PromptExecutor: it runs one node, which does `act`."""

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self.act, self.ran = act, []  # type: ignore[var-annotated]
        self.caches = SimpleNamespace()
        self.history_result: dict[str, Any] = {}

    @hooks.runs_prompts
    def execute(self, prompt: Any, prompt_id: str, extra_data: Any = None, execute_outputs: Any = ()) -> None:
        self.ran.append(prompt_id)
        self.history_result = {"outputs": {"9": {}}, "meta": {}}
        self.act()


class LaterExecutor(Executor):
    """It may become async one day."""

    @hooks.runs_prompts
    async def execute(self, prompt: Any, prompt_id: str, *args: Any) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.act()


@pytest.fixture(autouse=True)
def _started(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(core, "arguments", lambda: SimpleNamespace())
    monkeypatch.setattr(core, "without_gradients", contextlib.nullcontext)
    hooks.arm(SimpleNamespace())
    yield
    hooks.disarm()


def seen_by(executor: Any, **extra_data: Any) -> Any:
    """What `current_node` answers to a node of this executor."""
    found = []

    def act() -> None:
        with CurrentNodeContext("p1", "4"):
            found.append(running.current_node())

    executor.act = act
    result = executor.execute({}, "p1", extra_data, ["9"])
    if hasattr(result, "__await__"):
        asyncio.run(result)
    return found[0]


@pytest.mark.parametrize("kind", [Executor, LaterExecutor])
def test_a_node_of_the_worker_is_known(kind: Any) -> None:
    assert seen_by(kind(), tenant="alice") == Executing("p1", "4", "alice")
    assert seen_by(kind(), tenant=7) == Executing("p1", "4", None)


def test_a_node_that_is_only_looked_at_is_none() -> None:
    with CurrentNodeContext("p1", "4"):  # upstream sets it while a posted prompt is checked, too
        assert running.current_node() is None


def test_between_the_nodes_of_a_prompt_none_runs() -> None:
    found = []
    Executor(lambda: found.append(running.current_node())).execute({}, "p1")
    assert found == [None]


def test_a_thread_of_a_pack_is_no_node() -> None:
    found: list[Any] = []

    def act() -> None:
        with CurrentNodeContext("p1", "4"):
            thread = threading.Thread(target=lambda: found.append(running.current_node()))
            thread.start()
            thread.join()

    Executor(act).execute({}, "p1")
    assert found == [None]


def test_before_july_2025_the_node_is_found_among_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("this version keeps no context")

    monkeypatch.setattr(core, "executing_context", missing)
    code = "def execute(server, current_item, ask):\n    return ask()\n"
    upstream: dict[str, Any] = {"__name__": "execution"}
    exec(code, upstream)  # noqa: S102 - a function of upstream's module, of which only name and local count
    found = []
    act = lambda: found.append(upstream["execute"](None, "4.0.1", running.current_node))  # noqa: E731
    Executor(act).execute({}, "p1")
    Executor(lambda: found.append(running.current_node())).execute({}, "p1")
    assert found == [Executing("p1", "4.0.1", None), None]


def test_without_a_started_depot_prompts_run_as_ever() -> None:
    hooks.disarm()
    executor = Executor()
    executor.execute({}, "p1", {"force": "nonsense"})
    assert executor.ran == ["p1"] and running.current_node() is None


# --- errands ---


def test_an_errand_is_done_between_two_prompts_and_leaves_no_trace() -> None:
    server, order, go = Server(), [], threading.Event()  # type: ignore[var-annotated]
    executor = Executor(lambda: (go.wait(5), order.append("prompt")))  # type: ignore[func-returns-value]
    for name in ("p1", "p2"):
        server.prompt_queue.put((0, name, {}, {}, []))
    with Worker(server.prompt_queue, executor) as worker:
        def act() -> None:
            assert threading.current_thread() is worker.thread
            order.append("errand")

        waiting = threading.Thread(target=running.between_prompts, args=(server, act))
        waiting.start()
        until(lambda: len(server.prompt_queue.queue) == 2)
        assert [item[1] for item in running.items(server.prompt_queue, 10)] == ["p1", "p2"], "it is no prompt"
        go.set()
        waiting.join(10)
        until(lambda: len(order) == 3)
    assert order == ["prompt", "errand", "prompt"] and executor.ran == ["p1", "p2"]
    assert list(server.prompt_queue.history) == ["p1", "p2"]


def test_the_error_of_an_errand_is_that_of_who_asked_and_the_worker_goes_on() -> None:
    server, executor = Server(), Executor()

    def fail() -> None:
        raise OSError("the file is damaged")

    with Worker(server.prompt_queue, executor):
        with pytest.raises(OSError, match="damaged"):
            running.between_prompts(server, fail)
        server.prompt_queue.put((0, "p1", {}, {}, []))
        until(lambda: "p1" in server.prompt_queue.history)
    assert executor.success is True  # type: ignore[attr-defined]


def test_an_errand_that_is_taken_out_of_the_queue_is_told_so() -> None:
    server = Server()
    threading.Timer(0.1, server.prompt_queue.wipe_queue).start()
    with pytest.raises(ValueError, match=r"queue was emptied .* Ask for it again"):
        running.between_prompts(server, lambda: None)


def test_items_are_the_running_ones_and_the_first_of_the_waiting_ones() -> None:
    queue = Queue()
    for number in (5, 1, 4, 2, 3):
        queue.put((number, f"p{number}", {}, {}, []))
    queue.get(timeout=0)
    assert [item[1] for item in running.items(queue, 2)] == ["p1", "p2", "p3"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)

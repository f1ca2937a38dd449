"""The thread that runs prompts, one after the other."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import execution
import nodes
from comfy import interruption
from comfy.cli_args import args
from comfy_execution import node_facts
from comfy_execution.queueing import schedule
from comfy_execution.results.retention import budget_bytes

SECONDS_BETWEEN_CLEANUPS = 10.0
SHARE_OF_CLEANUPS = 0.01
"""A clean-up that takes long comes less often."""
SECONDS_TO_WAIT = 1000.0
SECONDS_BETWEEN_LINES = 0.2
TIME_IS_OVER = (
    "The prompt was stopped after {:g} s: that is its time limit. Send a larger timeout_seconds, or start "
    "the server with a larger --prompt-timeout."
)


@contextlib.contextmanager
def inference_environment() -> Iterator[None]:
    """What surrounds the nodes of a prompt: no gradients. The first prompt loads torch here."""
    import torch

    with torch.inference_mode():
        yield


_settling = threading.Lock()


def settle() -> None:
    """Load torch. Whatever is there now stays, and is not searched for garbage any more: that takes 0.2 s
    each time. Models come later and are no part of it, so who loads one first calls this too.
    """
    with _settling:
        _settle_once()


@functools.cache
def _settle_once() -> None:
    import torch  # noqa: F401

    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def settled_environment() -> Iterator[None]:
    """`inference_environment` in a process that runs prompts to its end."""
    settle()
    with inference_environment():
        yield


def cache_settings(options: Any) -> dict[str, Any]:
    """How the executor keeps and uses results, from the command line."""
    if options.cache_none:
        kind = execution.CacheType.NONE
    elif options.cache_lru > 0:
        kind = execution.CacheType.LRU
    elif options.cache_ram is not None:
        kind = execution.CacheType.RAM_PRESSURE
    elif options.cache_classic:
        kind = execution.CacheType.CLASSIC
    else:
        kind = execution.CacheType.BUDGET
    arguments: dict[str, Any] = {"lru": options.cache_lru, "ram": options.cache_ram}
    if kind is execution.CacheType.BUDGET:
        arguments["budget"] = budget_bytes(options.cache_budget)  # of what is free now, not at each reset
    return {"cache_type": kind, "cache_args": arguments, "force": options.force}


def without_sensitive(item: tuple) -> tuple:
    """A queue item as the history keeps it: without tokens."""
    return tuple(item[:5])


def failure(prompt_id: str, error: BaseException) -> execution.PromptQueue.ExecutionStatus:
    """The status of a prompt that failed outside of its nodes, with every field that clients read."""
    details = {
        "prompt_id": prompt_id, "node_id": "", "node_type": "", "executed": [],
        "exception_message": str(error), "exception_type": type(error).__qualname__,
        "traceback": traceback.format_tb(error.__traceback__), "current_inputs": {}, "current_outputs": [],
        "timestamp": int(time.time() * 1000),
    }  # fmt: skip
    return execution.PromptQueue.ExecutionStatus(
        status_str="error", completed=False, messages=[("execution_error", details)]
    )


class TokensGone(Exception):
    """A prompt needs tokens that were not written down."""


def refuse_without_tokens(item: tuple) -> None:
    """Raise TokensGone for a prompt from before a restart with a node that asks for a token it came with."""
    missing = {name.upper() for name in getattr(item, "missing_tokens", ())}
    if not missing:
        return
    facts = node_facts.FactsOfPrompt(nodes.NODE_CLASS_MAPPINGS)
    for node_id, node in item[2].items():
        about = facts.of(node["class_type"])
        if missing & {*about.hidden.values(), *about.hidden_of_schema.values()}:
            raise TokensGone(
                f"Node {node_id} ({node['class_type']}) needs the token that this prompt was sent with. "
                "Tokens are never written to the disk, so it was lost when the server stopped. Queue the "
                "prompt again."
            )


def model_management() -> Any | None:
    """`comfy.model_management` if any prompt has loaded it."""
    return sys.modules.get("comfy.model_management")


class LogOfEnds:
    """A line in the log for each prompt that has run, or for many that follow each other quickly."""

    def __init__(self) -> None:
        self.unsaid: list[float] = []
        self._last_line = float("-inf")

    def add(self, seconds: float) -> None:
        """A prompt has run for so long."""
        self.unsaid.append(seconds)
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self.say_rest()

    def say_rest(self) -> None:
        """Write what was put off."""
        if len(self.unsaid) == 1:
            logging.info("Prompt executed in %.2f seconds", self.unsaid[0])
        elif self.unsaid:
            logging.info("%d prompts executed in %.2f seconds", len(self.unsaid), sum(self.unsaid))
        self.unsaid = []
        self._last_line = time.monotonic()


class Worker:
    """Takes prompts from the queue, runs them, keeps house between them."""

    def __init__(self, queue: Any, server: Any, *, environment: Any = inference_environment) -> None:
        self.queue = queue
        self.server = server
        self.executor = execution.PromptExecutor(
            server, environment=environment, **cache_settings(args)
        )
        if args.merge_requests > 1:
            self.executor.serve_together(args.merge_requests, queue.first_waiting)
        server.cache_stats = self.cache_stats
        server.let_models_go = self.let_models_go
        server.between_prompts = self.between_prompts
        self.thread_id: int | None = None
        self.errands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self.needs_cleanup = False
        self.next_cleanup = 0.0
        self.ends = LogOfEnds()

    def run_next(self) -> None:
        """Wait for a prompt, run it, act on what was asked for meanwhile."""
        until_cleanup = max(0.0, self.next_cleanup - time.monotonic())
        wait = until_cleanup if self.needs_cleanup else SECONDS_TO_WAIT
        taken = self.queue.get(timeout=min(wait, SECONDS_BETWEEN_LINES) if self.ends.unsaid else wait)
        if taken is not None:
            self.run_prompt(*taken)
        else:
            self.ends.say_rest()
        self.follow_flags()
        self.run_errands()
        self.clean_up()

    def run_prompt(self, item: tuple, item_id: int) -> None:
        """Run one prompt. It reaches the history before its client hears that it is over."""
        prompt_id, started = item[1], time.perf_counter()
        self.thread_id = threading.get_ident()
        self.server.last_prompt_id = prompt_id
        with self.time_limit(item):
            result, status = self.execute(item)
        self.queue.task_done(item_id, result, status=status, process_item=without_sensitive)
        if self.server.client_id is not None and not self.queue.stopping:
            self.server.send_sync("executing", {"node": None, "prompt_id": prompt_id}, self.server.client_id)
        self.needs_cleanup = True
        self.ends.add(time.perf_counter() - started)
        if status.completed:
            self.server.prompt_succeeded(item[2], item[4])

    def execute(self, item: tuple) -> tuple[dict[str, Any], execution.PromptQueue.ExecutionStatus]:
        """(outputs for the history, status) of a prompt, also when the executor itself breaks."""
        _, prompt_id, prompt, extra_data, outputs, *sensitive = item
        durable = self.queue.durable
        self.executor.attempt = None if durable is None else durable.attempt
        try:
            refuse_without_tokens(item)
            self.executor.execute(
                prompt, prompt_id, {**extra_data, **(sensitive[0] if sensitive else {})}, outputs
            )
        except BaseException as error:  # packs replace parts of the executor; it must end in the history
            logging.exception("Prompt %s ended in an error outside of its nodes.", prompt_id)
            status = failure(prompt_id, error)
            if self.server.client_id is not None:
                self.server.send_sync(*status.messages[0], self.server.client_id)
            return {"outputs": {}, "meta": {}, "reasons": {}}, status
        success = self.executor.success
        return self.executor.history_result, execution.PromptQueue.ExecutionStatus(
            status_str="success" if success else "error",
            completed=success,
            messages=self.executor.status_messages,
        )

    @contextlib.contextmanager
    def time_limit(self, item: tuple) -> Iterator[None]:
        """Interrupt the prompt when its time is over; its history then says so."""
        self.executor.overdue = None
        seconds = schedule.schedule_of(item).timeout_seconds or args.prompt_timeout
        if not seconds:
            yield
            return

        def interrupt() -> None:
            self.executor.overdue = TIME_IS_OVER.format(seconds)
            interruption.interrupt_current_processing()

        seconds_of_clock = min(seconds, threading.TIMEOUT_MAX)
        timer = threading.Timer(seconds_of_clock, self.queue.interrupt_if_running, (item[1], interrupt))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def cache_stats(self) -> dict[str, Any]:
        """How stored results stand, and how many prompts were served together."""
        merging = self.executor.merging
        return {**self.executor.caches.stats(), "merged": None if merging is None else merging.stats()}

    def let_models_go(self) -> bool:
        """Drop the models in results of other workflows; whether there were any. Results are this thread's:
        only a node that runs in it may ask.
        """
        return threading.get_ident() == self.thread_id and self.executor.caches.drop_models()

    def follow_flags(self) -> None:
        """Do what POST /free asked for."""
        flags = self.queue.get_flags()
        free_memory = flags.get("free_memory", False)
        if free_memory:
            self.executor.reset()
        if flags.get("unload_models", free_memory) and (management := model_management()) is not None:
            management.unload_all_models()
        if flags:
            self.needs_cleanup, self.next_cleanup = True, 0.0

    def between_prompts(self, act: Callable[[], None]) -> None:
        """Call `act` in this worker's thread when no prompt runs, and wait until it has ended; raises what it
        raises. For other threads that change what prompts rely on, such as where weights are.
        """
        ended: Future[None] = Future()
        self.errands.append((act, ended))
        self.queue.set_flag("errand", True)  # wakes the worker
        ended.result()

    def run_errands(self) -> None:
        """Do what other threads wait for."""
        while self.errands:
            act, ended = self.errands.popleft()
            try:
                with inference_environment():
                    act()
            except BaseException as error:  # whoever waits gets it, whatever it is
                ended.set_exception(error)
            else:
                ended.set_result(None)

    def clean_up(self) -> None:
        """Give unused memory back, some time after work."""
        now = time.monotonic()
        if not self.needs_cleanup or now < self.next_cleanup:
            return
        gc.collect()
        if (management := model_management()) is not None:
            management.soft_empty_cache()
        pause = max(SECONDS_BETWEEN_CLEANUPS, (time.monotonic() - now) / SHARE_OF_CLEANUPS)
        self.needs_cleanup, self.next_cleanup = False, now + pause


def prompt_worker(queue: Any, server: Any) -> None:
    """Run prompts forever. Whatever happens to one, the next is taken."""
    worker = Worker(queue, server, environment=settled_environment)
    while True:
        try:
            worker.run_next()
        except interruption.InterruptProcessingException:
            logging.info("A stop was asked for between two nodes.")
        except Exception:  # the thread must outlive whatever happens between prompts
            logging.exception("The worker failed between two prompts. The next one is taken.")


def start(server: Any) -> threading.Thread:
    """Start the thread."""
    thread = threading.Thread(
        target=prompt_worker, args=(server.prompt_queue, server), name="prompts", daemon=True
    )
    thread.start()
    return thread

"""The executor of prompts, under the names that servers and node packs use.

`PromptExecutor` runs a validated prompt and sends events to any host with `send_sync`; `PromptQueue` holds
the waiting prompts; `validate_prompt` checks one. The work is done in `comfy_execution`. Functions here
that node packs replace (`execute`, `get_output_data`) are looked up in this module each time they are
called.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from enum import Enum
from typing import Any

import comfy.interruption
import latent_preview
import nodes
from comfy_execution import merging, prompt_loop, prompt_validation, schema_nodes
from comfy_execution.caching import CacheEntry, CacheSet, CacheType
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.execution_list import ExecutionList
from comfy_execution.force import Request, read_request
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from comfy_execution.inputs import collect_inputs
from comfy_execution.is_changed import ChangeValues
from comfy_execution.mapping import CallOfNode, call_now, is_async, single_arguments, unfinished
from comfy_execution.node_facts import NodeFacts, Prompt
from comfy_execution.node_run import Functions, NodeRun, PromptRun, merge_returns
from comfy_execution.progress import (
    WebUIProgressHandler,
    add_progress_handler,
    get_progress_state,
    reset_progress_state,
)
from comfy_execution.prompt_validation import full_type_name
from comfy_execution.queueing import prompt_queue
from comfy_execution.queueing.attempt import Attempt
from comfy_execution.results.reasons import CACHED, PLAIN
from comfy_depot import hooks as depot

__all__ = [
    "CacheEntry", "CacheSet", "CacheType", "ExecutionBlocker", "ExecutionList", "ExecutionResult",
    "GraphBuilder", "PromptExecutor", "PromptQueue", "SENSITIVE_EXTRA_DATA_KEYS", "execute",
    "full_type_name", "get_input_data", "get_output_data", "get_output_from_returns", "validate_prompt",
]

log = logging.getLogger(__name__)

SENSITIVE_EXTRA_DATA_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")
MAXIMUM_HISTORY_SIZE = prompt_queue.MAXIMUM_HISTORY_SIZE

OUT_OF_MEMORY_ADVICE = (
    "The {} has no memory left for this. If the workflow ran before, check for a larger batch or picture."
)
SHAPE_ADVICE = (
    "\n\nCheck that the text encoder that is linked to this sampler belongs to its model: "
    "file and type of the CLIP loader."
)

Outcome = tuple["ExecutionResult", dict[str, Any] | None, BaseException | None]


class ExecutionResult(Enum):
    """How a visit to a node ended. PENDING: it waits for something and is visited again."""

    SUCCESS = 0
    FAILURE = 1
    PENDING = 2


class PromptQueue(prompt_queue.PromptQueue):
    """The queue of prompts, wired to the interrupt flag of this process."""

    def taken(self) -> None:
        """A prompt begins, under the lock. An older wish to stop ends here: from now on
        `interrupt_if_running` means this prompt, and none of its wishes may get lost.
        """
        comfy.interruption.interrupt_current_processing(False)

    def interrupt_if_running(self, prompt_id: str, interrupt: Callable[[], None] | None = None) -> bool:
        """Interrupt this prompt if it runs, and not one that has taken its place."""
        return super().interrupt_if_running(
            prompt_id, interrupt or comfy.interruption.interrupt_current_processing
        )


# -- functions of one node -----------------------------------------------------------------------------------


def get_input_data(inputs, class_def, unique_id, execution_list=None, dynprompt=None, extra_data=None):
    """(values by input name as lists, names of links without a result, facts of other schemas)."""
    found = collect_inputs(
        inputs, NodeFacts(class_def), unique_id,
        results=execution_list, dynprompt=dynprompt, extra_data=extra_data,
    )
    return found.values, found.missing, found.schema or {}


def _call_of(prompt_id, unique_id, obj, func, check, on_block, before_call, v3_data) -> CallOfNode:
    """How to call the method `func` of a node or class."""
    is_schema = schema_nodes.is_schema_class(obj)
    function = schema_nodes.bound_function(obj, func, v3_data) if is_schema else getattr(obj, func)
    takes_lists = bool(getattr(obj, "INPUT_IS_LIST", False))
    return CallOfNode(prompt_id, unique_id, function, takes_lists, check, on_block, before_call)


async def _async_map_node_over_list(
    prompt_id, unique_id, obj, input_data_all, func, allow_interrupt=False, execution_block_cb=None,
    pre_execute_cb=None, v3_data=None,
):
    """Call the method `func` of a node (or class) once per element of its inputs. One result per call."""
    check = comfy.interruption.throw_exception_if_processing_interrupted if allow_interrupt else None
    call = _call_of(prompt_id, unique_id, obj, func, check, execution_block_cb, pre_execute_cb, v3_data)
    return await call.over_lists(input_data_all)


def get_output_from_returns(return_values, obj):
    """(outputs, ui, whether a call expanded) from what all calls of a node returned."""
    return merge_returns(return_values, obj)


async def get_output_data(
    prompt_id, unique_id, obj, input_data_all, execution_block_cb=None, pre_execute_cb=None, v3_data=None
):
    """Run a node: (outputs, ui, whether it expands, whether asynchronous calls are still going on)."""
    returned = await _async_map_node_over_list(
        prompt_id, unique_id, obj, input_data_all, obj.FUNCTION, allow_interrupt=True,
        execution_block_cb=execution_block_cb, pre_execute_cb=pre_execute_cb, v3_data=v3_data,
    )
    if unfinished(returned):
        return returned, {}, False, True
    return *get_output_from_returns(returned, obj), False


def _get_output_now(prompt_id, unique_id, obj, input_data_all, execution_block_cb, pre_execute_cb, v3_data):
    """What `get_output_data` gives for a node that is not asynchronous; None for one that is."""
    check = comfy.interruption.throw_exception_if_processing_interrupted
    if v3_data is None and not getattr(obj, "INPUT_IS_LIST", False):
        arguments = single_arguments(input_data_all)
        function = getattr(obj, obj.FUNCTION)
        if arguments is not None and not is_async(function):  # by far the most usual case
            check()
            pre_execute_cb(0)
            return merge_returns([call_now(prompt_id, unique_id, 0, function, arguments)], obj)
    call = _call_of(
        prompt_id, unique_id, obj, obj.FUNCTION, check, execution_block_cb, pre_execute_cb, v3_data
    )
    return None if call.is_async else merge_returns(call.at_once(input_data_all), obj)


_AS_SHIPPED = (_async_map_node_over_list, get_output_data, get_output_from_returns)
_FUNCTIONS = Functions(_async_map_node_over_list, get_output_data, _get_output_now)


def _functions() -> Functions:
    """What calls a node now: packs replace functions of this module, also while a prompt runs."""
    if (_async_map_node_over_list, get_output_data, get_output_from_returns) == _AS_SHIPPED:
        return _FUNCTIONS
    return Functions(_async_map_node_over_list, get_output_data)


def format_value(value: Any) -> Any:
    """An input value as error messages show it."""
    if value is None or isinstance(value, (int, float, bool, str)):
        return value
    try:
        return str(value)
    except Exception as error:  # any class may come along here, and an error report must not fail
        return f"<{type(value).__name__}: {error}>"


async def execute(
    server, dynprompt, caches, current_item, extra_data, executed, prompt_id, execution_list,
    pending_subgraph_results, pending_async_nodes, ui_outputs,
) -> Outcome:
    """Visit one node: (result, details of the error, exception)."""
    run = PromptRun(
        server, dynprompt, caches, extra_data, executed, prompt_id, execution_list, pending_subgraph_results,
        pending_async_nodes, ui_outputs,
    )
    return await _visit(run, current_item)


_execute_as_shipped = execute
_DONE: Outcome = (ExecutionResult.SUCCESS, None, None)
_WAITS: Outcome = (ExecutionResult.PENDING, None, None)


async def _visit(run: PromptRun, node_id: str) -> Outcome:
    node = None
    try:
        node = NodeRun(run, node_id, _functions())
        return _DONE if await node.step() else _WAITS
    except comfy.interruption.InterruptProcessingException as interruption:
        get_progress_state().fail_progress(node_id)
        log.info("Prompt %s was interrupted.", run.prompt_id)
        return ExecutionResult.FAILURE, {"node_id": run.dynprompt.get_real_node_id(node_id)}, interruption
    except Exception as error:  # the node's own code: its failure is the prompt's result, not ours
        get_progress_state().fail_progress(node_id)
        log.error("Node %s of prompt %s failed.", node_id, run.prompt_id, exc_info=True)
        return ExecutionResult.FAILURE, _describe_failure(error, run.dynprompt, node_id, node), error


def _describe_failure(error: Exception, dynprompt: DynamicPrompt, node_id: str, node: NodeRun | None) -> dict:
    values = {} if node is None or node.values is None else node.values
    advice = _advice(error, "" if node is None else node.class_type)
    return {
        "node_id": dynprompt.get_real_node_id(node_id),
        "exception_message": f"{error}\n{advice}",
        "exception_type": full_type_name(type(error)),
        "traceback": traceback.format_tb(error.__traceback__),
        "current_inputs": {name: [format_value(value) for value in many] for name, many in values.items()},
    }


def _let_models_go(management: Any) -> None:
    log.error("Out of memory: all models are unloaded, and those that nobody uses are let go.")
    management.unload_all_models()
    depot.free_idle_models()


@depot.explains_full_memory
def _advice(error: Exception, class_type: str) -> str:
    """What the user can do about errors that are known. When memory is full, models are let go."""
    management = sys.modules.get("comfy.model_management")  # before it is loaded there is no large tensor
    if management is not None and management.is_oom(error):
        _let_models_go(management)
        full = "GPU" if isinstance(error, management.OOM_EXCEPTION) else "machine"
        return OUT_OF_MEMORY_ADVICE.format(full)
    if isinstance(error, RuntimeError) and "mat1 and mat2 shapes" in str(error) and "Sampler" in class_type:
        return SHAPE_ADVICE
    return ""


# -- prompts -------------------------------------------------------------------------------------------------


class _InOrder(dict):
    """The nodes that ran, in their order; a set to those who add."""

    add = dict.setdefault


class _InOrderOfAttempt(_InOrder):
    """The same, and those that have shown something are written down as finished."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__()
        self._attempt = attempt

    def add(self, node_id: str) -> None:
        self[node_id] = None
        if node_id in self._attempt.outputs:
            self._attempt.note_done(node_id)


class PromptExecutor:
    """Runs prompts, one at a time, and remembers results between them.

    `server` is the host (see `comfy_execution.host.EventSink`). `environment()` gives a context manager that
    surrounds the run of nodes. With `force`, every prompt runs as if it asked for `"force": true`.
    After `execute`: `success`, `status_messages`, `history_result`.
    """

    def __init__(
        self,
        server: Any,
        cache_type: CacheType | bool | None = None,
        cache_args: dict[str, Any] | None = None,
        *,
        environment: Callable[[], AbstractContextManager[Any]] = nullcontext,
        force: bool = False,
    ) -> None:
        self.server = server
        self.cache_type = cache_type or CacheType.BUDGET
        self.cache_args = cache_args
        self.environment = environment
        self.force = force
        self.attempt: Attempt | None = None
        self.overdue: str | None = None
        self.merging: merging.Merging | None = None
        self._loop = prompt_loop.PromptLoop()
        self.reset()

    def reset(self) -> None:
        """Forget all results and node objects."""
        self.caches = CacheSet(self.cache_type, self.cache_args, getattr(self, "caches", None))
        self.status_messages: list[tuple[str, dict[str, Any]]] = []
        self.success = True
        self.history_result: dict[str, Any] = {"outputs": {}, "meta": {}, "reasons": {}}
        depot.free_idle_models()

    def add_message(self, event: str, data: dict[str, Any], broadcast: bool) -> None:
        """Put an event into the prompt's messages, and send it to its client (or to all)."""
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.status_messages.append((event, data))
        if self.server.client_id is not None or broadcast:
            self.server.send_sync(event, data, self.server.client_id)

    def handle_execution_error(
        self, prompt_id: str, prompt: Prompt, current_outputs: Any, executed: Any, error: Any, ex: Any
    ) -> None:
        """Report why a prompt ended early."""
        self.success = False
        node_id = error["node_id"]
        data = {
            "prompt_id": prompt_id,
            "node_id": node_id,
            "node_type": prompt.get(node_id, {}).get("class_type", ""),
            "executed": list(executed),
        }
        if isinstance(ex, comfy.interruption.InterruptProcessingException) and self.overdue is not None:
            error = {"exception_message": self.overdue, "exception_type": "TimeLimitReached",
                     "traceback": [], "current_inputs": {}}
        elif isinstance(ex, comfy.interruption.InterruptProcessingException):
            self.add_message("execution_interrupted", data, broadcast=True)
            return
        keys = ("exception_message", "exception_type", "traceback", "current_inputs")
        data.update({key: error[key] for key in keys}, current_outputs=list(current_outputs))
        self.add_message("execution_error", data, broadcast=False)

    def execute(
        self, prompt: Prompt, prompt_id: str, extra_data: dict | None = None, execute_outputs: Any = ()
    ) -> None:
        """Run a prompt to its end. Errors of nodes do not raise: they are in the messages."""
        self._loop.run(self.execute_async(prompt, prompt_id, extra_data, execute_outputs))

    def serve_together(self, most: int, waiting: Callable[[int], Iterable[tuple]]) -> None:
        """From now on up to `most` prompts may share a call of a node that can do so; `waiting(n)` gives the
        first n prompts that wait.
        """
        self.merging = merging.Merging(
            most, waiting, lambda: nodes.NODE_CLASS_MAPPINGS, _async_map_node_over_list
        )

    async def execute_async(
        self, prompt: Prompt, prompt_id: str, extra_data: dict | None = None, execute_outputs: Any = ()
    ) -> None:
        """The same inside an event loop of its own; tasks of nodes that are left are the loop's to cancel."""
        latent_preview.set_preview_method((extra_data or {}).get("preview_method"))
        if getattr(self.server, "prompt_queue", None) is None:  # a queue has taken back older wishes itself
            comfy.interruption.interrupt_current_processing(False)
        extra_data = extra_data or {}
        self.server.client_id = extra_data.get("client_id")
        self.status_messages = []
        self.success = True
        run = _RunOfPrompt(self, prompt, prompt_id, extra_data)
        self.add_message("execution_start", {"prompt_id": prompt_id}, broadcast=False)
        try:
            with self.environment():
                await run.run(list(execute_outputs))
        except comfy.interruption.InterruptProcessingException as interruption:
            run.fail({"node_id": run.current or ""}, interruption)
        except Exception as error:  # whatever goes wrong around nodes ends this prompt, never the worker
            log.exception("Prompt %s failed outside of its nodes.", prompt_id)
            blamed = run.current or next(iter(execute_outputs), "")
            run.fail(_describe_failure(error, run.dynprompt, blamed, None), error)
        finally:
            await run.end()
            self.history_result = run.history()
            self.server.last_node_id = None


class _RunOfPrompt:
    """One prompt on its way through the executor."""

    def __init__(self, executor: PromptExecutor, prompt: Prompt, prompt_id: str, extra_data: dict) -> None:
        self.executor = executor
        self.caches = executor.caches
        self.caches.reasons = {}
        self.prompt_id = prompt_id
        self.extra_data = extra_data
        self.dynprompt = DynamicPrompt(prompt, nodes.NODE_CLASS_MAPPINGS)
        self.execution_list = ExecutionList(self.dynprompt, self.caches.outputs)
        attempt = self.attempt = executor.attempt
        self.executed = _InOrder() if attempt is None else _InOrderOfAttempt(attempt)
        self.ui_outputs: dict[str, dict[str, Any]] = {} if attempt is None else attempt.outputs
        self.current: str | None = None

    async def run(self, execute_outputs: list[str]) -> None:
        """Find what is known, then visit nodes until all outputs have run or one fails."""
        request = self._request()
        if request.cache == "off":
            self.caches = self.executor.caches.apart()
            self.execution_list = ExecutionList(self.dynprompt, self.caches.outputs)
        reset_progress_state(self.prompt_id, self.dynprompt)
        add_progress_handler(WebUIProgressHandler(self.executor.server))
        changes = ChangeValues(self.prompt_id, self.dynprompt, _async_map_node_over_list)
        await self.caches.begin(self.dynprompt, changes, request, self.prompt_id)
        check = comfy.interruption.throw_exception_if_processing_interrupted
        await self.caches.fetch(execute_outputs, self.execution_list.needed_sources, check)
        cached = list(self.caches.reasons)
        self.executor.add_message(
            "execution_cached", {"nodes": cached, "prompt_id": self.prompt_id}, broadcast=False
        )
        left = self._left_to_run(execute_outputs, cached)
        if self._are_known(left):
            self._reuse(left)
            is_complete = True
        else:
            for node_id in left:
                self.current = node_id
                self.execution_list.add_node(node_id)
            is_complete = await self._visit_all()
        if is_complete:
            self._show_cached_intermediates(cached)
            get_progress_state().flush_handlers()
            self.executor.add_message("execution_success", {"prompt_id": self.prompt_id}, broadcast=False)

    def _left_to_run(self, outputs: list[str], cached: list[str]) -> list[str]:
        """All outputs but those that had finished when the process died; they are shown again."""
        if self.attempt is None:
            return outputs
        left = self.attempt.outputs_to_run(self.dynprompt.original_prompt, outputs, cached)
        for node_id, shown in self.ui_outputs.items():
            self.caches.reasons.setdefault(node_id, PLAIN[CACHED])
            self._tell_shown(node_id, shown)
        return left

    def _tell_shown(self, node_id: str, shown: dict[str, Any]) -> None:
        if self.executor.server.client_id is not None:
            data = {
                "node": node_id,
                "display_node": shown["meta"]["display_node"],
                "output": shown["output"],
                "prompt_id": self.prompt_id,
            }
            self.executor.server.send_sync("executed", data, self.executor.server.client_id)

    def _request(self) -> Request:
        asked = read_request(self.extra_data)
        return replace(asked, every=True) if self.executor.force else asked

    def _shared(self) -> PromptRun:
        return PromptRun(
            self.executor.server, self.dynprompt, self.caches, self.extra_data, self.executed,
            self.prompt_id, self.execution_list, {}, {}, self.ui_outputs, self.executor.merging,
        )

    def _are_known(self, outputs: list[str]) -> bool:
        """Is the result of each output stored, so that there is nothing to put in order and to run? The list
        would take asynchronous ones first.
        """
        return execute is _execute_as_shipped and all(
            self.caches.outputs.get(node_id) is not None and not self.dynprompt.node_facts(node_id).is_async
            for node_id in outputs
        )

    def _reuse(self, outputs: list[str]) -> None:
        check = comfy.interruption.throw_exception_if_processing_interrupted
        run, functions = self._shared(), _functions()
        for node_id in outputs:
            check()
            self.current = node_id
            NodeRun(run, node_id, functions).reuse(self.caches.outputs.get(node_id))

    async def _visit_all(self) -> bool:
        """False if a node failed."""
        check = comfy.interruption.throw_exception_if_processing_interrupted
        steps, run = self.execution_list, self._shared()
        while True:
            node_id = steps.stage_ready()
            if node_id is None:
                if steps.is_empty():
                    return True
                node_id, error, ex = await steps.stage_node_execution(check)
            if node_id is None:
                self.fail(error, ex)
                return False
            self.current = node_id
            if execute is _execute_as_shipped:
                result, error, ex = await _visit(run, node_id)
            else:  # a node pack has replaced it
                result, error, ex = await execute(
                    run.server, run.dynprompt, run.caches, node_id, run.extra_data, run.executed,
                    run.prompt_id, steps, run.pending_subgraphs, run.pending_calls, run.ui_outputs,
                )
            if result is ExecutionResult.FAILURE:
                self.fail(error, ex)
                return False
            if result is ExecutionResult.PENDING:
                steps.unstage_node_execution()
            else:
                steps.complete_node_execution()

    def _show_cached_intermediates(self, cached: list[str]) -> None:
        """Nodes that show something without being outputs show it again when their result is reused."""
        for node_id in cached if self.dynprompt.facts.have_intermediate_output else ():
            if node_id in self.executed or node_id in self.ui_outputs:
                continue
            if self.dynprompt.node_facts(node_id).has_intermediate_output:
                entry = self.caches.outputs.get(node_id)
                if entry is not None and entry.ui is not None:
                    self.ui_outputs[node_id] = entry.ui
                    self._tell_shown(node_id, {**entry.ui, "meta": {"display_node": node_id}})

    def fail(self, error: dict | None, ex: BaseException | None) -> None:
        """The prompt ends with an error."""
        get_progress_state().flush_handlers()
        outputs = self.caches.outputs.all_node_ids()
        self.executor.handle_execution_error(
            self.prompt_id, self.dynprompt.original_prompt, outputs, self.executed, error, ex
        )

    async def end(self) -> None:
        """Nothing is held back after the end."""
        get_progress_state().flush_handlers()
        await self.caches.end()

    def history(self) -> dict[str, Any]:
        """What the history keeps by node: outputs, their meta data, and why the node ran or did not."""
        return {
            "outputs": {node_id: shown["output"] for node_id, shown in self.ui_outputs.items()},
            "meta": {node_id: shown["meta"] for node_id, shown in self.ui_outputs.items()},
            "reasons": self.caches.reasons,
        }


async def validate_prompt(prompt_id: str, prompt: Any, partial_execution_list: list[str] | None):
    """(valid, error, outputs to execute, errors by node). Literals are converted in place."""
    return await prompt_validation.validate(
        prompt_id, prompt, partial_execution_list,
        classes=nodes.NODE_CLASS_MAPPINGS, map_over_lists=_async_map_node_over_list,
    )

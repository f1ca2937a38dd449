"""Validation of a whole prompt, before it is queued.

Every output node is walked to its ancestors, without recursion and each node once. A node is *opened* (its
own inputs are checked and its links found), then the nodes it links to are validated, then it is *closed*
(its `VALIDATE_INPUTS` is asked). An output with an error anywhere above it is left out; the others run.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.inputs import collect_inputs
from comfy_execution.mapping import finished
from comfy_execution.node_facts import FactsOfPrompt, InputSpec, NodeFacts, Prompt
from comfy_execution.schema_nodes import only_inputs_of
from comfy_execution.validation import Error, check_value, converted, make_error, validate_node_input

log = logging.getLogger(__name__)

NODES_OF_A_CYCLE_IN_MESSAGE = 64
# A request may hold 100,000 bad nodes. Its refusal names so many of them, so that it costs no more than the
# request; and so many outputs that need a bad node.
MOST_NODES_WITH_ERRORS = 256
MOST_DEPENDENT_OUTPUTS = 256
MOST_LINES_IN_LOG = 20

Verdict = tuple[bool, Error | None, list[str], dict[str, Any]]
"""(valid, error, outputs to execute, errors by node)"""


def full_type_name(klass: type) -> str:
    """The class's name with its module, without it for built-in ones."""
    module = klass.__module__
    return klass.__qualname__ if module == "builtins" else f"{module}.{klass.__qualname__}"


Link = tuple[str, InputSpec, str]
"""(input, its declaration, source node)"""


class _Visit:
    """A node while it is being validated."""

    __slots__ = ("node_id", "facts", "inputs", "links", "links_done", "errors", "received_types")

    def __init__(self, node_id: str, facts: NodeFacts, inputs: dict[str, Any]) -> None:
        self.node_id = node_id
        self.facts = facts
        self.inputs = inputs
        self.links: list[Link] = []
        self.links_done = 0
        """How many links have been followed; the one before this number was followed last."""
        self.errors: list[Error] = []
        self.received_types: dict[str, Any] | None = {} if facts.wants_received_types else None


class PromptValidation:
    """Validates the nodes of one prompt; what it found of a node is remembered."""

    def __init__(
        self,
        prompt_id: str,
        prompt: Prompt,
        facts: FactsOfPrompt,
        map_over_lists: Callable[..., Awaitable[list[Any]]],
    ) -> None:
        self.prompt_id = prompt_id
        self.prompt = prompt
        self.facts = facts
        self.map_over_lists = map_over_lists
        self.valid: dict[str, bool] = {}
        self.errors: dict[str, list[Error]] = {}
        # Who is to blame for a node, a bit per culprit: sets of names would grow along a chain of bad nodes.
        self._blame: dict[str, int] = {}
        self._bits: dict[str, int] = {}

    def blamed(self, node_id: str) -> list[str]:
        """The nodes with errors of their own that make this one invalid."""
        blame = self._blame.get(node_id, 0)
        return [culprit for culprit, bit in self._bits.items() if blame & bit]

    def _bit(self, node_id: str) -> int:
        """The bit of a node with errors, 0 when there are too many of them."""
        if node_id not in self._bits and len(self._bits) < MOST_NODES_WITH_ERRORS:
            self._bits[node_id] = 1 << len(self._bits)
        return self._bits.get(node_id, 0)

    async def validate(self, root: str) -> bool:
        """Validate a node and everything above it."""
        if root in self.valid:
            return self.valid[root]
        try:
            await self._walk(root)
        except Exception as error:  # code of node packs runs here, and a prompt may be malformed anyhow
            self._fail(root, make_error(
                "exception_during_validation", "Exception when validating node", str(error), **_trace(error)
            ))
        return self.valid[root]

    async def _walk(self, root: str) -> None:
        valid = self.valid
        stack = [self._open(root)]
        path = {root: 0}
        while stack:
            visit = stack[-1]
            while visit.links_done < len(visit.links):
                source = visit.links[visit.links_done][2]
                visit.links_done += 1
                if source in valid:
                    continue
                if source in path:
                    self._mark_cycle([entry.node_id for entry in stack[path[source]:]])
                    continue
                try:
                    stack.append(self._open(source))
                except Exception as error:  # as in `validate`
                    self._fail_inner(visit, error)
                    continue
                path[source] = len(path)
                break
            else:
                try:
                    await self._close(visit)
                except Exception as error:  # as in `validate`
                    if len(stack) == 1:
                        raise
                    self._fail_inner(stack[-2], error)
                stack.pop()
                del path[visit.node_id]

    # -- one node ------------------------------------------------------------------------------------------

    def _open(self, node_id: str) -> _Visit:
        node = self.prompt[node_id]
        facts, inputs = self.facts.of(node["class_type"]), node["inputs"]
        if facts.is_dynamic:
            facts = facts.live(inputs)
        visit = _Visit(node_id, facts, inputs)
        for name, spec in visit.facts.validated_inputs:
            error = None
            if name not in inputs:
                if spec.category == "required":
                    shown = name if facts.expansion is None else name.rpartition(".")[2]
                    error = make_error(
                        "required_input_missing", "Required input is missing", shown, input_name=name
                    )
            elif isinstance(inputs[name], list):
                error = self._check_link(visit, name, inputs[name], spec)
            else:
                error = self._check_literal(visit, name, inputs[name], spec)
            if error is not None:
                visit.errors.append(error)
        return visit

    def _check_link(self, visit: _Visit, name: str, link: list[Any], spec: InputSpec) -> Error | None:
        if len(link) != 2:
            return make_error(
                "bad_linked_input",
                "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                name,
                input_name=name,
                input_config=spec.config,
                received_value=link,
            )
        source = link[0]
        received = self._type_of_output(source, link[1])
        if visit.received_types is not None:
            visit.received_types[name] = received
        elif not validate_node_input(received, spec.type):
            return make_error(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                f"{name}, received_type({received}) mismatch input_type({spec.type})",
                input_name=name,
                input_config=spec.config,
                received_type=received,
                linked_node=link,
            )
        visit.links.append((name, spec, source))
        return None

    def _type_of_output(self, source: str, slot: int) -> Any:
        class_type = self.prompt[source]["class_type"]
        types = self.facts.classes[class_type].RETURN_TYPES
        try:
            return types[slot]
        except IndexError:
            raise IndexError(
                f"Node {source} ({class_type}) has {len(types)} outputs, counted from 0, and none of number "
                f"{slot}. Link another one."
            ) from None

    def _check_literal(self, visit: _Visit, name: str, value: Any, spec: InputSpec) -> Error | None:
        value, error = converted(name, value, spec)
        if error is not None:
            return error
        visit.inputs[name] = value
        if not spec.is_limited or visit.facts.validates_itself(name):
            return None
        return check_value(name, value, spec)

    async def _close(self, visit: _Visit) -> None:
        node_id, valid = visit.node_id, self.valid
        if visit.facts.has_custom_validation:
            visit.errors.extend(await self._custom_errors(visit))
        known = self.errors.get(node_id, [])  # of a circle that was found below
        sources_are_valid = True
        for link in visit.links:
            if not valid.get(link[2], False):
                sources_are_valid = False
        if sources_are_valid and not visit.errors and not known:
            valid[node_id] = True
            return
        errors = known + [error for error in visit.errors if error not in known]
        self._settle(node_id, errors, sources_are_valid, [link[2] for link in visit.links])

    def _settle(self, node_id: str, errors: list[Error], valid: bool, sources: list[str]) -> None:
        """Remember the verdict on a node, and who is to blame."""
        self.valid[node_id] = valid and not errors
        if self.valid[node_id]:
            return
        blame = 0
        if errors:
            self.errors[node_id] = errors
            blame = self._bit(node_id)
        for source in sources:
            blame |= self._blame.get(source, 0)
        self._blame[node_id] = blame

    async def _custom_errors(self, visit: _Visit) -> list[Error]:
        """Ask the class's VALIDATE_INPUTS. It gets the literals it names; those of links are not known yet.
        """
        facts = visit.facts
        inputs = collect_inputs(visit.inputs, facts, visit.node_id)
        passed = {k: v for k, v in inputs.values.items() if facts.validates_itself(k)}
        if visit.received_types is not None:
            passed["input_types"] = [visit.received_types]
        schema = inputs.schema
        if schema is not None and not facts.validation_takes_any:
            schema = only_inputs_of(facts.validation_names, schema)
        answers = await finished(
            await self.map_over_lists(
                self.prompt_id, visit.node_id, facts.class_def, passed, facts.validation_function,
                v3_data=schema,
            )
        )
        return [
            make_error(
                "custom_validation_failed",
                "Custom validation failed for node",
                name if answer is False else f"{name} - {answer}",
                input_name=name,
            )
            for name in passed
            for answer in answers
            if answer is not True and not isinstance(answer, ExecutionBlocker)
        ]

    # -- failures ------------------------------------------------------------------------------------------

    def _fail(self, node_id: str, error: Error) -> None:
        self._settle(node_id, [error], False, [])

    def _fail_inner(self, visit: _Visit, error: Exception) -> None:
        """The node at the other end of a link could not be validated: the error is put down to it."""
        name, spec, source = visit.links[visit.links_done - 1]
        self._fail(source, make_error(
            "exception_during_inner_validation",
            "Exception when validating inner node",
            str(error),
            input_name=name,
            input_config=spec.config,
            exception_message=str(error),
            **_trace(error),
            linked_node=visit.inputs[name],
        ))

    def _mark_cycle(self, cycle: list[str]) -> None:
        """The nodes of a circle get the same error; of a very large one those that it names."""
        shown = cycle[:NODES_OF_A_CYCLE_IN_MESSAGE]
        steps = [f"{node_id} ({self.prompt[node_id]['class_type']})" for node_id in shown]
        more = len(cycle) - len(shown)
        last = f"{more} more -> {cycle[0]}" if more else f"{cycle[0]} ({self.prompt[cycle[0]]['class_type']})"
        details = " -> ".join([*steps, last])
        everyone = 0
        for node_id in shown:
            everyone |= self._bit(node_id)
            self.errors[node_id] = [make_error(
                "dependency_cycle", "Dependency cycle detected", details, node_id=node_id, cycle_nodes=shown
            )]
        for node_id in cycle:
            self._blame[node_id] = everyone


def _trace(error: Exception) -> dict[str, Any]:
    return {
        "exception_type": full_type_name(type(error)),
        "traceback": traceback.format_tb(error.__traceback__ or sys.exc_info()[2]),
    }


# -- the prompt --------------------------------------------------------------------------------------------


def check_shape(prompt: Any, classes: Mapping[str, Any]) -> Error | None:
    """Is this a graph of nodes with known classes? Nodes without inputs are given an empty set of them."""
    if not isinstance(prompt, dict):
        message = "The prompt is not an object of nodes by id."
        return make_error("invalid_prompt", message, type(prompt).__name__)
    for node_id, node in prompt.items():
        if not isinstance(node, dict) or not isinstance(node.setdefault("inputs", {}), dict):
            return make_error(
                "invalid_prompt",
                f"Node #{node_id} is not an object with a class_type and inputs.",
                f"Node ID '#{node_id}'",
                node_id=node_id,
            )
        class_type = node.get("class_type")
        if not isinstance(class_type, str) or class_type not in classes:
            return _missing_class(node_id, node, class_type)
    return None


def _missing_class(node_id: str, node: dict[str, Any], class_type: Any) -> Error:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    if class_type is None:
        message = (
            f"Node '{title or f'ID #{node_id}'}' has no class_type. "
            "The workflow is damaged, or was made with a node pack that is missing here."
        )
    else:
        title = title or str(class_type)
        message = f"Node '{title}' not found. Install the node pack that has the class {class_type!r}."
    return make_error(
        "missing_node_type", message, f"Node ID '#{node_id}'",
        node_id=node_id, class_type=class_type, node_title=title,
    )


async def validate(
    prompt_id: str,
    prompt: Any,
    partial_execution_list: list[str] | None,
    *,
    classes: Mapping[str, Any],
    map_over_lists: Callable[..., Awaitable[list[Any]]],
) -> Verdict:
    """Validate a prompt. Literals are converted to their declared types in place."""
    error = check_shape(prompt, classes)
    if error is not None:
        return False, error, [], {}
    facts = FactsOfPrompt(classes)
    wanted = None if partial_execution_list is None else set(partial_execution_list)
    outputs = [
        node_id
        for node_id, node in prompt.items()
        if getattr(classes[node["class_type"]], "OUTPUT_NODE", False) is True
        and (wanted is None or node_id in wanted)
    ]
    if not outputs:
        return False, make_error("prompt_no_outputs", "Prompt has no outputs", ""), [], {}
    validation = PromptValidation(prompt_id, prompt, facts, map_over_lists)
    good = [output for output in outputs if await validation.validate(output)]
    bad = [output for output in outputs if not validation.valid[output]]
    node_errors = _errors_by_node(validation, bad)
    if good:
        return True, None, good, node_errors
    reasons = [reason for output in bad for reason in validation.errors.get(output, ())]
    shown = reasons[:MOST_NODES_WITH_ERRORS]
    details = "\n".join(f"{reason['message']}: {reason['details']}" for reason in shown)
    failure = make_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return False, failure, [], node_errors


def _errors_by_node(validation: PromptValidation, bad_outputs: list[str]) -> dict[str, Any]:
    """For each node with errors: the errors, the class, and the outputs that cannot run because of it."""
    found: dict[str, Any] = {}
    for output in bad_outputs:
        for node_id in sorted(validation.blamed(output)):
            entry = found.get(node_id)
            if entry is None:
                entry = found[node_id] = {
                    "errors": validation.errors[node_id],
                    "dependent_outputs": [],
                    "class_type": validation.prompt[node_id]["class_type"],
                }
            if len(entry["dependent_outputs"]) < MOST_DEPENDENT_OUTPUTS:
                entry["dependent_outputs"].append(output)
    _log_errors(found, bad_outputs)
    return found


def _log_errors(found: dict[str, Any], bad_outputs: list[str]) -> None:
    lines = [
        f"{entry['class_type']} {node_id}: {error['message']}: {error['details']}"
        for node_id, entry in found.items()
        for error in entry["errors"]
    ]
    lines += [f"Output {output} cannot run and is left out." for output in bad_outputs]
    for line in lines[:MOST_LINES_IN_LOG]:
        log.error("%s", line)
    if len(lines) > MOST_LINES_IN_LOG:
        log.error("%d more errors like these.", len(lines) - MOST_LINES_IN_LOG)

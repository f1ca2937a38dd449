"""A small world for tests of the executor: a host that records events, and node classes made in a line."""

import asyncio
from dataclasses import dataclass, field

import execution
import nodes
from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

INT = ("INT", {"default": 0})


def make(function, required=None, *, optional=None, hidden=None, returns=("INT",), **attributes):
    """A node class whose method is `function(self, **inputs)`."""
    declared = {"required": required or {}}
    if optional is not None:
        declared["optional"] = optional
    if hidden is not None:
        declared["hidden"] = hidden
    return type(
        "TestNode",
        (),
        {
            "INPUT_TYPES": classmethod(lambda cls: declared),
            "RETURN_TYPES": returns,
            "FUNCTION": "run",
            "run": function,
            **attributes,
        },
    )


def schema_node(execute, inputs=(), outputs=(io.Int.Output(),), functions=None, **schema):
    """A class with this schema; `execute(cls, ...)` and other functions become its classmethods."""

    def define_schema(cls):
        return io.Schema(
            schema.pop("node_id", "TestNode"), inputs=list(inputs), outputs=list(outputs), **schema
        )

    methods = {"define_schema": define_schema, "execute": execute, **(functions or {})}
    return type("TestNode", (io.ComfyNode,), {name: classmethod(method) for name, method in methods.items()})


def given(rig, *, outputs=(), **schema):
    """A class that notes what it is called with, and is an output."""

    def execute(cls, **inputs):
        rig.note(inputs)

    rig.add(Given=schema_node(execute, outputs=outputs, is_output_node=True, **schema))


def node(class_type, **inputs):
    """An entry of a prompt."""
    return {"class_type": class_type, "inputs": inputs}


class Host:
    """Records what is sent."""

    def __init__(self):
        self.client_id = None
        self.last_node_id = None
        self.sockets_metadata = {}
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data, sid))

    def queue_updated(self):
        pass


@dataclass
class Result:
    """What came of a prompt."""

    valid: bool
    error: dict | None
    node_errors: dict
    roots: list
    sent: list = field(default_factory=list)
    messages: list = field(default_factory=list)
    success: bool | None = None
    outputs: dict = field(default_factory=dict)
    meta: dict = field(default_factory=dict)
    reasons: dict = field(default_factory=dict)

    def of(self, event):
        return [data for name, data, _ in self.sent if name == event]

    @property
    def ran(self):
        """Ids in the order of their execution."""
        return [data["node"] for data in self.of("executing")]

    @property
    def why(self):
        """The word of each node's reason."""
        return {node_id: reason["reason"] for node_id, reason in self.reasons.items()}

    @property
    def cached(self):
        return self.of("execution_cached")[0]["nodes"]

    @property
    def failure(self):
        found = self.of("execution_error")
        return found[-1] if found else None


class Rig:
    """An executor that lives as long as the test, with classes of its own."""

    def __init__(self, **executor_options):
        self.host = Host()
        self.executor = execution.PromptExecutor(self.host, **executor_options)
        self.calls = []
        self.prompts = 0
        self.add_basics()

    def add(self, **classes):
        nodes.NODE_CLASS_MAPPINGS.update(classes)

    def note(self, what):
        self.calls.append(what)

    def add_basics(self):
        """Number -> Add -> Show, which all note that they were called."""
        rig = self

        def number(self, value):
            rig.note(("Number", value))
            return (value,)

        def add(self, a, b=1):
            rig.note(("Add", a, b))
            return (a + b,)

        def show(self, value, **others):
            rig.note(("Show", value))
            return {"ui": {"text": [value]}}

        def values(self, value):
            return (list(range(value)),)

        self.add(
            Number=make(number, {"value": INT}),
            Add=make(add, {"a": INT}, optional={"b": INT}),
            Show=make(show, {"value": ("*", {})}, returns=(), OUTPUT_NODE=True),
            Range=make(values, {"value": INT}, OUTPUT_IS_LIST=(True,)),
        )

    def validate(self, prompt, targets=None):
        valid, error, roots, node_errors = asyncio.run(execution.validate_prompt("p", prompt, targets))
        return Result(valid, error, node_errors, roots)

    def run(self, prompt, *, targets=None, client="client", extra_data=None, must_be_valid=True):
        """Validate and run a prompt."""
        self.prompts += 1
        result = self.validate(prompt, targets)
        assert result.valid or not must_be_valid, (result.error, result.node_errors)
        if not result.valid:
            return result
        self.host.sent = []
        self.calls.clear()
        data = {**(extra_data or {}), **({"client_id": client} if client else {})}
        self.executor.execute(prompt, f"prompt-{self.prompts}", data, result.roots)
        result.sent = self.host.sent
        result.messages = self.executor.status_messages
        result.success = self.executor.success
        result.outputs = self.executor.history_result["outputs"]
        result.meta = self.executor.history_result["meta"]
        result.reasons = self.executor.history_result["reasons"]
        return result


__all__ = [
    "INT", "Host", "Result", "Rig", "execution", "get_executing_context", "given", "make", "node", "nodes",
    "schema_node",
]  # fmt: skip

"""The base class of nodes, and what they return."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from comfy_api.internal import (
    _ComfyNodeInternal,
    _NodeOutputInternal,
    classproperty,
    first_real_override,
    lock_class,
)
from comfy_api.latest.io.schema import HiddenHolder, Schema
from comfy_execution.graph_utils import ExecutionBlocker


class _UIOutput(ABC):
    """Something to show in the web page."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """What the web page gets: lists by key."""


class NodeOutput(_NodeOutputInternal):
    """What a node gives back: its outputs, in their order, and what to show, expand into, or block with."""

    def __init__(
        self,
        *args: Any,
        ui: _UIOutput | dict[str, Any] | None = None,
        expand: dict[str, Any] | None = None,
        block_execution: str | None = None,
    ) -> None:
        self.args = args
        self.ui = ui
        self.expand = expand
        self.block_execution = block_execution

    @property
    def result(self) -> tuple[Any, ...] | None:
        """The outputs, None if there are none."""
        return self.args or None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NodeOutput:
        """From what nodes of the older interface return."""
        result = data.get("result")
        if isinstance(result, ExecutionBlocker):
            return _BlockedOutput(result, ui=data.get("ui"))
        return cls(*(result or ()), ui=data.get("ui"), expand=data.get("expand"))

    def __getitem__(self, index: Any) -> Any:
        return self.args[index]


class _Derived:
    """An attribute of the older interface, read from the schema."""

    def __init__(self, read: Callable[[Schema], Any]) -> None:
        self.read = read

    def __get__(self, obj: Any, owner: Any) -> Any:
        return self.read(owner._schema())


class _BlockedOutput(NodeOutput):
    """The output of a node that returned a blocker; a silent one has no message."""

    def __init__(self, blocker: ExecutionBlocker, ui: Any = None) -> None:
        super().__init__(block_execution=blocker.message, ui=ui)
        self.blocker = blocker

    @property
    def result(self) -> Any:
        return self.blocker


class _ComfyNodeBaseInternal(_ComfyNodeInternal):
    """What the executor and the older interface ask of a node class."""

    RELATIVE_PYTHON_MODULE: str | None = None
    SCHEMA: Schema | None = None
    hidden: Any = None
    """The hidden values; there while the node runs."""

    DESCRIPTION = _Derived(lambda schema: schema.description)
    CATEGORY = _Derived(lambda schema: schema.category)
    EXPERIMENTAL = _Derived(lambda schema: schema.is_experimental)
    DEPRECATED = _Derived(lambda schema: schema.is_deprecated)
    DEV_ONLY = _Derived(lambda schema: schema.is_dev_only)
    API_NODE = _Derived(lambda schema: schema.is_api_node)
    OUTPUT_NODE = _Derived(lambda schema: schema.is_output_node)
    HAS_INTERMEDIATE_OUTPUT = _Derived(lambda schema: schema.has_intermediate_output)
    INPUT_IS_LIST = _Derived(lambda schema: schema.is_input_list)
    OUTPUT_IS_LIST = _Derived(lambda schema: [bool(output.is_output_list) for output in schema.outputs])
    RETURN_TYPES = _Derived(lambda schema: [output.io_type for output in schema.outputs])
    RETURN_NAMES = _Derived(lambda schema: schema.output_names)
    OUTPUT_TOOLTIPS = _Derived(lambda schema: [output.tooltip or None for output in schema.outputs])
    NOT_IDEMPOTENT = _Derived(lambda schema: schema.not_idempotent)
    ACCEPT_ALL_INPUTS = _Derived(lambda schema: schema.accept_all_inputs)

    @classproperty
    def FUNCTION(cls: Any) -> str:  # noqa: N805
        """The function that the executor calls."""
        is_async = inspect.iscoroutinefunction(cls.execute)
        return "EXECUTE_NORMALIZED_ASYNC" if is_async else "EXECUTE_NORMALIZED"

    def __init__(self) -> None:
        type(self).VALIDATE_CLASS()

    @classmethod
    def GET_BASE_CLASS(cls) -> Any:
        """The class whose functions are placeholders."""
        return _ComfyNodeBaseInternal

    @classmethod
    def VALIDATE_CLASS(cls) -> None:
        """Raise TypeError if the class lacks a function that every node has."""
        for name in ("define_schema", "execute"):
            if first_real_override(cls, name) is None:
                raise TypeError(f"Node class {cls.__name__} has no {name}. Write it as a classmethod.")

    @classmethod
    def FINALIZE_SCHEMA(cls) -> Schema:
        """The schema as it is now: lists of files in it may change."""
        schema = cls.define_schema()  # type: ignore[attr-defined]
        schema.finalize()
        return schema  # type: ignore[no-any-return]

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        """The schema as it is now, checked. The properties of the class follow it."""
        cls.VALIDATE_CLASS()
        schema = cls.FINALIZE_SCHEMA()
        schema.validate()
        cls.SCHEMA = schema
        return schema

    @classmethod
    def _schema(cls) -> Schema:
        """The schema that was read last; a class does not take that of its parent."""
        return cls.__dict__.get("SCHEMA") or cls.GET_SCHEMA()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as the older interface declares them."""
        return cls.FINALIZE_SCHEMA().input_types()

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        return asdict(cls.GET_SCHEMA().get_v1_info(cls))

    @classmethod
    def PREPARE_CLASS_CLONE(cls, v3_data: Mapping[str, Any] | None) -> Any:
        """The locked class of one visit, with its hidden values."""
        return lock_class(cls, hidden=HiddenHolder.from_v3_data(v3_data), SCHEMA=cls._schema())

    @classmethod
    def EXECUTE_NORMALIZED(cls, *args: Any, **kwargs: Any) -> NodeOutput:
        """Call `execute`, and bring what it returns into one form."""
        return cls._normalized(cls.execute(*args, **kwargs))  # type: ignore[attr-defined]

    @classmethod
    async def EXECUTE_NORMALIZED_ASYNC(cls, *args: Any, **kwargs: Any) -> NodeOutput:
        """The same for an asynchronous `execute`."""
        return cls._normalized(await cls.execute(*args, **kwargs))  # type: ignore[attr-defined]

    @classmethod
    def _normalized(cls, returned: Any) -> NodeOutput:
        if returned is None:
            output = NodeOutput()
        elif isinstance(returned, NodeOutput):
            output = returned
        elif isinstance(returned, tuple):
            output = NodeOutput(*returned)
        elif isinstance(returned, dict):
            output = NodeOutput.from_dict(returned)
        elif isinstance(returned, ExecutionBlocker):
            output = _BlockedOutput(returned)
        else:
            raise TypeError(
                f"Node {cls.__name__} returned a {type(returned).__name__}. "
                "Its execute must return io.NodeOutput(...), a tuple, a dict, an ExecutionBlocker or None."
            )
        if output.expand is not None and not cls._schema().enable_expand:
            raise ValueError(
                f"Node {cls.__name__} returned a graph to expand into, which its schema does not allow. "
                "Set enable_expand=True in its Schema."
            )
        return output


class ComfyNode(_ComfyNodeBaseInternal):
    """Base of all nodes. Write `define_schema` and `execute`, the other functions only if they are needed."""

    @classmethod
    @abstractmethod
    def define_schema(cls) -> Schema:
        """What the node is."""
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def execute(cls, **kwargs: Any) -> NodeOutput:
        """Do the node's work. May be `async`."""
        raise NotImplementedError

    @classmethod
    def validate_inputs(cls, **kwargs: Any) -> bool | str:
        """True if the values filled in can be used, else False or what is wrong. Gets the inputs it names."""
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, **kwargs: Any) -> Any:
        """Something that is equal to that of the last run if the node need not run again."""
        raise NotImplementedError

    @classmethod
    def check_lazy_status(cls, **kwargs: Any) -> list[str]:
        """Names of the lazy inputs that are needed; those whose value is not known yet are None."""
        return [name for name, value in kwargs.items() if value is None]

    @classmethod
    def GET_BASE_CLASS(cls) -> Any:
        return ComfyNode

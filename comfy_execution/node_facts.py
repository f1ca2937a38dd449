"""What the executor needs to know about a node class, asked for in one place.

Class attributes are read once per prompt, not once per node: `INPUT_TYPES()` of a loader lists folders, and a
prompt may hold thousands of nodes of a few classes. Classes of the schema interface (V3) join here, by
`schema_nodes`; nothing else in the executor reads attributes of node classes.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any

from comfy_execution import dynamic_inputs, schema_nodes
from comfy_execution.mapping import is_async

Prompt = dict[str, Any]
"""A graph as clients send it: `{node id: {"class_type": str, "inputs": {name: literal or [id, slot]}}}`."""


class InputSpec:
    """One declared input: its type, where it is declared, and its options."""

    __slots__ = ("type", "plain_type", "category", "options", "is_lazy", "is_raw_link", "is_limited")

    def __init__(self, type: Any, category: str, options: Mapping[str, Any]) -> None:
        self.type = type
        # Packs make types that equal everything, and enumerations of types: this is the text they hold.
        self.plain_type = str.__str__(type) if isinstance(type, str) else None
        self.category = category
        """"required", "optional" or "hidden"."""
        self.options = options
        self.is_lazy = bool(options.get("lazy"))
        self.is_raw_link = bool(options.get("rawLink"))
        is_choice = isinstance(type, list) or self.plain_type == "COMBO"
        self.is_limited = is_choice or "min" in options or "max" in options

    @property
    def config(self) -> tuple[Any, Mapping[str, Any]]:
        """As error messages show it."""
        return (self.type, self.options)


def find_input(declared: Mapping[str, Any], name: str) -> InputSpec | None:
    """The declaration of an input, or None.

    `in` asks the declared dictionaries themselves: packs subclass dict so that any name counts as declared.
    """
    for category in ("required", "optional", "hidden"):
        if category in declared and name in declared[category]:
            info = declared[category][name]
            if info is None:
                return None
            options = info[1] if len(info) > 1 and isinstance(info[1], Mapping) else {}
            return InputSpec(info[0], category, options)
    return None


# Asked for each prompt, and the same for all.
_parameters_of = functools.lru_cache(maxsize=4096)(inspect.getfullargspec)


def _validation_parameters(class_def: Any, name: str | None) -> tuple[frozenset[str], bool]:
    if name is None:
        return frozenset(), False
    spec = _parameters_of(getattr(class_def, name))
    return frozenset(spec.args + spec.kwonlyargs), spec.varkw is not None


class _Inputs(dict[str, "InputSpec | None"]):
    """Declarations by name, found when first asked for."""

    def __init__(self, declared: Mapping[str, Any]) -> None:
        super().__init__()
        self._declared = declared

    def __missing__(self, name: str) -> InputSpec | None:
        spec = self[name] = find_input(self._declared, name)
        return spec


class NodeFacts:
    """The facts of one class, for the length of one prompt."""

    def __init__(self, class_def: Any) -> None:
        self.class_def = class_def
        self.declared: Mapping[str, Any] = class_def.INPUT_TYPES()
        self.function: str = getattr(class_def, "FUNCTION", "")
        self.is_output = getattr(class_def, "OUTPUT_NODE", False) is True
        self.has_intermediate_output = bool(getattr(class_def, "HAS_INTERMEDIATE_OUTPUT", False))
        self.is_async = is_async(getattr(class_def, self.function, None))
        self.is_schema = schema_nodes.is_schema_class(class_def)
        function_name = schema_nodes.function_name
        self.is_changed_function = function_name(class_def, "IS_CHANGED", self.is_schema)
        self.validation_function = function_name(class_def, "VALIDATE_INPUTS", self.is_schema)
        lazy_function = function_name(class_def, "check_lazy_status", self.is_schema)
        self.has_check_lazy_status = lazy_function is not None
        self.hidden: Mapping[str, Any] = {} if self.is_schema else self.declared.get("hidden") or {}
        """Kinds of the hidden values that are passed as arguments, by name."""
        self.hidden_of_schema = schema_nodes.hidden_kinds(self.declared) if self.is_schema else {}
        """Kinds of the hidden values that the class finds in `cls.hidden`."""
        self.accepts_all_inputs = self.is_schema and bool(class_def.ACCEPT_ALL_INPUTS)
        """Are inputs that the class does not declare passed too?"""
        self.is_dynamic = self.is_schema and dynamic_inputs.has_dynamic_inputs(self.declared)
        """Do the declared inputs depend on those that a node has? Then `live` gives its facts."""
        self.expansion: dynamic_inputs.Expansion | None = None
        self.id_is_part_of_key = bool(getattr(class_def, "NOT_IDEMPOTENT", False)) or (
            "UNIQUE_ID" in self.hidden.values() or "UNIQUE_ID" in self.hidden_of_schema.values()
        )
        self._parameters: inspect.FullArgSpec | None = None
        self.inputs = _Inputs(self.declared)
        """The declaration of each input by name, None for a name that the class does not know."""
        self._validated_inputs: list[tuple[str, InputSpec]] | None = None
        self.validation_names, self.validation_takes_any = _validation_parameters(
            class_def, self.validation_function
        )
        """What `VALIDATE_INPUTS` asks for: names, and whether it takes any keyword."""
        self.wants_received_types = "input_types" in self.validation_names
        """Does it check the types of its links itself?"""
        self.has_custom_validation = bool(self.validation_names) or self.validation_takes_any

    @property
    def validated_inputs(self) -> list[tuple[str, InputSpec]]:
        """What validation looks at, in the order of declaration: required, then optional."""
        if self._validated_inputs is None:
            names = dict.fromkeys([*self.declared.get("required", ()), *self.declared.get("optional", ())])
            specs = [(name, self.inputs[name]) for name in names]
            self._validated_inputs = [(name, spec) for name, spec in specs if spec is not None]
        return self._validated_inputs

    def live(self, inputs: Mapping[str, Any]) -> NodeFacts:
        """The facts of a class with dynamic inputs, as they are for a node with these inputs."""
        live = copy.copy(self)
        live.is_dynamic = False
        live.expansion = expansion = dynamic_inputs.expand(self.declared, inputs)
        live.declared = {"required": expansion.required, "optional": expansion.optional}
        live.inputs, live._validated_inputs = _Inputs(live.declared), None
        return live

    def validates_itself(self, name: str) -> bool:
        """Does the class check this input's value, so that the declared limits are not applied? A part of a
        dynamic input belongs to the argument of that input.
        """
        if self.expansion is not None:
            name = name.partition(".")[0]
        return self.validation_takes_any or name in self.validation_names

    def accepts(self, name: str) -> bool:
        """Can the node's function be called with this keyword? Asked for links to undeclared inputs."""
        if self._parameters is None:
            self._parameters = schema_nodes.parameters(self.class_def)
        spec = self._parameters
        takes_any = self.accepts_all_inputs or spec.varkw is not None
        return takes_any or name in spec.args or name in spec.kwonlyargs


class FactsOfPrompt:
    """Facts by class name, remembered for one prompt. `classes` is the registry of node classes."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self.classes = classes
        self._facts: dict[str, NodeFacts] = {}

    @property
    def have_intermediate_output(self) -> bool:
        """Does any class asked for so far show something without being an output?"""
        return any(facts.has_intermediate_output for facts in self._facts.values())

    def is_output(self, class_type: str) -> bool:
        """Does this class save or show something? Asked without `INPUT_TYPES`, which may fail."""
        return getattr(self.classes.get(class_type), "OUTPUT_NODE", False) is True

    def of(self, class_type: str) -> NodeFacts:
        """The facts of a class. KeyError if there is none; whatever `INPUT_TYPES` raises."""
        facts = self._facts.get(class_type)
        if facts is None:
            facts = self._facts[class_type] = NodeFacts(self.classes[class_type])
        return facts

"""Inputs that depend on the prompt: several types, matching types, growing lists, choices with inputs.

How the executor expands them is in `comfy_execution.dynamic_inputs`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from comfy_api.internal import prune_dict
from comfy_api.latest.io.kinds import (
    ComfyTypeI,
    ComfyTypeIO,
    Input,
    Output,
    WidgetInput,
    _ComfyType,
    comfytype,
)
from comfy_api.latest.io.values import AnyType


def add_to_dict_v1(declared: Input, inputs: dict[str, Any]) -> None:
    """Enter an input into what INPUT_TYPES gives."""
    options = declared.as_dict()
    options.pop("optional", None)
    section = inputs.setdefault("optional" if declared.optional else "required", {})
    section[declared.id] = (declared.get_io_type(), options)


def create_input_dict_v1(declared: Iterable[Input]) -> dict[str, Any]:
    """Inputs as INPUT_TYPES gives them."""
    inputs: dict[str, Any] = {"required": {}}
    for one in declared:
        add_to_dict_v1(one, inputs)
    return inputs


@comfytype(io_type="COMFY_MULTITYPED_V3")
class MultiType(ComfyTypeIO):
    """A value of one of several kinds."""

    class Input(Input):
        """Takes several kinds. An input given as `id` lends its widget, and its texts come first."""

        def __init__(
            self,
            id: str | Input,
            types: list[Any],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            self.input_override: Any = None
            if not isinstance(id, str):
                self.input_override = copy.copy(id)
                optional = id.optional or optional
                tooltip = tooltip if id.tooltip is None else id.tooltip
                display_name = display_name if id.display_name is None else id.display_name
                lazy = lazy if id.lazy is None else id.lazy
                id = id.id
                if isinstance(self.input_override, WidgetInput):
                    self.input_override.widget_type = self.input_override.get_io_type()
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self._types = types

        @property
        def io_types(self) -> list[Any]:
            """The kinds that are taken."""
            return [kind if isinstance(kind, type) else type(kind) for kind in self._types]

        def get_io_type(self) -> str:
            names = [kind.io_type for kind in self.io_types]
            if self.input_override is not None:
                names.insert(0, self.input_override.get_io_type())
            return ",".join(dict.fromkeys(names))

        def as_dict(self) -> dict[str, Any]:
            widget = {} if self.input_override is None else self.input_override.as_dict()
            return widget | super().as_dict()


def _kinds(allowed: Any) -> list[Any]:
    kinds = list(allowed) if isinstance(allowed, Iterable) else [allowed]
    for kind in kinds:
        if not isinstance(kind, _ComfyType) and not (isinstance(kind, type) and issubclass(kind, _ComfyType)):
            raise ValueError(f"{kind!r} is no kind of value. Allowed types are kinds such as io.Image.")
    return kinds


@comfytype(io_type="COMFY_MATCHTYPE_V3")
class MatchType(ComfyTypeIO):
    """Values whose kind is the same wherever one template stands."""

    class Template:
        """Ties inputs and outputs together by its id."""

        def __init__(self, template_id: str, allowed_types: Any = AnyType) -> None:
            self.template_id = template_id
            self.allowed_types = _kinds(allowed_types)

        def as_dict(self) -> dict[str, Any]:
            """As /object_info tells it."""
            return {
                "template_id": self.template_id,
                "allowed_types": ",".join(kind.io_type for kind in self.allowed_types),
            }

    class Input(Input):
        """Takes a value of the template's kind."""

        def __init__(
            self,
            id: str,
            template: MatchType.Template,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"template": self.template.as_dict()}

    class Output(Output):
        """Gives a value of the template's kind."""

        def __init__(
            self,
            template: MatchType.Template,
            id: str | None = None,
            display_name: str | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name or (None if id else "MATCHTYPE"), tooltip, is_output_list)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"template": self.template.as_dict()}


class DynamicInput(Input):
    """An input that stands for others."""


class DynamicOutput(Output):
    """An output that stands for others."""


@comfytype(io_type="COMFY_AUTOGROW_V3")
class Autogrow(ComfyTypeI):
    """A list of inputs that grows as they are linked. `execute` gets a dictionary."""

    Type = dict[str, Any]
    _MaxNames = 100

    class _Template:
        def __init__(self, input: Input, names: list[str], min: int) -> None:
            if isinstance(input, DynamicInput):
                raise ValueError(f"Input {input.id!r} is dynamic itself, and cannot be repeated.")
            if min < 0:
                raise ValueError(f"min is {min}. It is a number of inputs: 0 or more.")
            self.input = copy.copy(input)
            if isinstance(self.input, WidgetInput):
                self.input.force_input = True
            self.names = names
            self.min = min
            self.cached_inputs: dict[str, Input] = {}
            for name in names:
                self.cached_inputs[name] = copy.copy(self.input)
                self.cached_inputs[name].id = name

        def get_all(self) -> list[Input]:
            """The inputs that may be linked."""
            return list(self.cached_inputs.values())

        def as_dict(self) -> dict[str, Any]:
            """As /object_info tells it."""
            return {"input": create_input_dict_v1([self.input])}

        def validate(self) -> None:
            """Raise ValueError if the declaration cannot be used."""
            self.input.validate()

    class TemplatePrefix(_Template):
        """Names are the prefix and a number from 0; `min` of them are required."""

        def __init__(self, input: Input, prefix: str, min: int = 1, max: int = 10) -> None:
            if not 1 <= max <= Autogrow._MaxNames:
                raise ValueError(f"max is {max}. An input can grow to 1..{Autogrow._MaxNames}.")
            super().__init__(input, [f"{prefix}{index}" for index in range(max)], min)
            self.prefix = prefix
            self.max = max

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"prefix": self.prefix, "min": self.min, "max": self.max}

    class TemplateNames(_Template):
        """Names are given; the first `min` are required."""

        def __init__(self, input: Input, names: list[str], min: int = 1) -> None:
            super().__init__(input, names[: Autogrow._MaxNames], min)

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"names": self.names, "min": self.min}

    class Input(DynamicInput):
        """The growing input."""

        def __init__(
            self,
            id: str,
            template: Autogrow.TemplatePrefix | Autogrow.TemplateNames,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.template = template

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"template": self.template.as_dict()}

        def get_all(self) -> list[Input]:
            return [self, *self.template.get_all()]

        def validate(self) -> None:
            self.template.validate()


@comfytype(io_type="COMFY_DYNAMICCOMBO_V3")
class DynamicCombo(ComfyTypeI):
    """A choice that brings inputs of its own. `execute` gets a dictionary of the choice and their values."""

    Type = dict[str, Any]

    class Option:
        """One choice and its inputs."""

        def __init__(self, key: str, inputs: list[Input]) -> None:
            self.key = key
            self.inputs = inputs

        def as_dict(self) -> dict[str, Any]:
            """As /object_info tells it."""
            return {"key": self.key, "inputs": create_input_dict_v1(self.inputs)}

    class Input(DynamicInput):
        """The choice."""

        def __init__(
            self,
            id: str,
            options: list[DynamicCombo.Option],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, lazy, extra_dict)
            self.options = options

        def get_all(self) -> list[Input]:
            return [self, *(one for option in self.options for one in option.inputs)]

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | {"options": [option.as_dict() for option in self.options]}

        def validate(self) -> None:
            for one in self.get_all()[1:]:
                one.validate()


@comfytype(io_type="COMFY_DYNAMICSLOT_V3")
class DynamicSlot(ComfyTypeI):
    """An optional input that brings others when it is linked. `execute` gets a dictionary."""

    Type = dict[str, Any]

    class Input(DynamicInput):
        """The slot. `slot` declares what it takes."""

        def __init__(
            self,
            slot: Input,
            inputs: list[Input],
            display_name: str | None = None,
            tooltip: str | None = None,
            lazy: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
        ) -> None:
            if isinstance(slot, DynamicInput):
                raise ValueError(f"Input {slot.id!r} is dynamic itself, and cannot be a slot.")
            self.slot = own = copy.copy(slot)
            own.display_name = display_name if own.display_name is None else own.display_name
            own.tooltip = tooltip if own.tooltip is None else own.tooltip
            own.lazy = lazy if own.lazy is None else own.lazy
            own.extra_dict = own.extra_dict or extra_dict or {}
            super().__init__(own.id, own.display_name, True, own.tooltip, own.lazy, own.extra_dict)
            self.inputs = inputs
            self.force_input = True if isinstance(own, WidgetInput) else None
            if isinstance(own, WidgetInput):
                own.force_input = True

        def get_all(self) -> list[Input]:
            return [self.slot, *self.inputs]

        def as_dict(self) -> dict[str, Any]:
            own = {
                "slotType": self.slot.get_io_type(),
                "inputs": create_input_dict_v1(self.inputs),
                "forceInput": self.force_input,
            }
            return super().as_dict() | prune_dict(own)

        def validate(self) -> None:
            for one in self.get_all():
                one.validate()

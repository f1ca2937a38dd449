"""The parts a schema is made of: kinds of values, and inputs and outputs of a kind.

A kind (`io.Image`) names what travels along a link. Its nested classes `Input` and `Output` declare a place
for such values in a schema; `Type` is the Python type of a value, for annotations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from comfy_api.internal import copy_class, prune_dict

KindType = TypeVar("KindType", bound=type)


class _ComfyType:
    """Base of all kinds."""

    Type: Any = Any
    io_type: str = ""


class _Place:
    """Base of inputs and outputs. `Parent` is the kind they are nested in."""

    Parent: Any = None

    @property
    def io_type(self) -> str:
        """The kind's name in /object_info."""
        return self.Parent.io_type  # type: ignore[no-any-return]

    @property
    def Type(self) -> Any:
        """The Python type of the values."""
        return self.Parent.Type

    def get_io_type(self) -> str:
        """The type as /object_info names it."""
        return self.io_type

    def validate(self) -> None:
        """Raise ValueError if the declaration cannot be used."""


class Input(_Place):
    """Declares an input that takes values from a link."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        self.id = id
        self.display_name = display_name
        self.optional = optional
        self.tooltip = tooltip
        self.lazy = lazy
        self.extra_dict = {} if extra_dict is None else extra_dict
        self.rawLink = raw_link
        self.advanced = advanced

    def as_dict(self) -> dict[str, Any]:
        """The options of the input."""
        own = {
            "display_name": self.display_name,
            "optional": self.optional,
            "tooltip": self.tooltip,
            "lazy": self.lazy,
            "rawLink": self.rawLink,
            "advanced": self.advanced,
        }
        return prune_dict(own) | prune_dict(self.extra_dict)

    def get_all(self) -> list[Input]:
        """This input and those that it contains."""
        return [self]


class WidgetInput(Input):
    """Declares an input that the user can fill in."""

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        lazy: bool | None = None,
        default: Any = None,
        socketless: bool | None = None,
        widget_type: str | None = None,
        force_input: bool | None = None,
        extra_dict: dict[str, Any] | None = None,
        raw_link: bool | None = None,
        advanced: bool | None = None,
    ) -> None:
        super().__init__(id, display_name, optional, tooltip, lazy, extra_dict, raw_link, advanced)
        self.default = default
        self.socketless = socketless
        self.widget_type = widget_type
        self.force_input = force_input

    def as_dict(self) -> dict[str, Any]:
        own = {
            "default": self.default,
            "socketless": self.socketless,
            "widgetType": self.widget_type,
            "forceInput": self.force_input,
        }
        return super().as_dict() | prune_dict(own)

    def get_io_type(self) -> str:
        return super().get_io_type() if self.widget_type is None else self.widget_type


class Output(_Place):
    """Declares an output."""

    def __init__(
        self,
        id: str | None = None,
        display_name: str | None = None,
        tooltip: str | None = None,
        is_output_list: bool = False,
    ) -> None:
        self.id = id
        self.display_name = display_name or id
        self.tooltip = tooltip
        self.is_output_list = is_output_list

    def as_dict(self) -> dict[str, Any]:
        """The options of the output."""
        own = {
            "display_name": self.display_name or self.id,
            "tooltip": self.tooltip,
            "is_output_list": self.is_output_list,
        }
        return prune_dict(own)


_Input, _Output = Input, Output


class ComfyTypeI(_ComfyType):
    """A kind of value that only inputs have."""

    class Input(_Input):
        """Declares an input of this kind."""


class ComfyTypeIO(ComfyTypeI):
    """A kind of value that inputs and outputs have."""

    class Output(_Output):
        """Declares an output of this kind."""


def comfytype(io_type: str, **kwargs: Any) -> Callable[[KindType], KindType]:
    """Decorator that makes a class a kind with this name. A class of no kind becomes a ComfyTypeIO."""

    def decorate(cls: Any) -> Any:
        if not issubclass(cls, _ComfyType):
            names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
            cls = type(cls.__name__, (cls, ComfyTypeIO), names)
        cls.io_type = io_type
        for place in ("Input", "Output"):
            if getattr(cls, place, None) is not None:
                own = copy_class(getattr(cls, place))  # it may be that of another kind
                own.Parent = cls
                setattr(cls, place, own)
        return cls

    return decorate


def Custom(io_type: str) -> type[ComfyTypeIO]:
    """A kind for values of a pack's own."""

    @comfytype(io_type=io_type)
    class CustomComfyType(ComfyTypeIO):
        """Values of a node pack."""

    return CustomComfyType

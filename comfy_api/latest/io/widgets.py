"""Kinds that the user fills in: numbers, texts, choices."""

from __future__ import annotations

from enum import Enum
from typing import Any

from comfy_api.internal import prune_dict
from comfy_api.latest.io.kinds import ComfyTypeI, ComfyTypeIO, Output, WidgetInput, comfytype
from comfy_api.latest.io.options import (
    ControlAfterGenerate,
    FolderType,
    NumberDisplay,
    RemoteOptions,
    UploadType,
)


@comfytype(io_type="BOOLEAN")
class Boolean(ComfyTypeIO):
    """True or false."""

    Type = bool

    class Input(WidgetInput):
        """A switch."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: bool | None = None,
            label_on: str | None = None,
            label_off: str | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict,
                raw_link, advanced,
            )  # fmt: skip
            self.label_on = label_on
            self.label_off = label_off

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune_dict({"label_on": self.label_on, "label_off": self.label_off})


@comfytype(io_type="INT")
class Int(ComfyTypeIO):
    """A whole number."""

    Type = int

    class Input(WidgetInput):
        """A field for a whole number."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: int | None = None,
            min: int | None = None,
            max: int | None = None,
            step: int | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            display_mode: NumberDisplay | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict,
                raw_link, advanced,
            )  # fmt: skip
            self.min = min
            self.max = max
            self.step = step
            self.control_after_generate = control_after_generate
            self.display_mode = display_mode

        def as_dict(self) -> dict[str, Any]:
            own = {
                "min": self.min,
                "max": self.max,
                "step": self.step,
                "control_after_generate": self.control_after_generate,
                "display": self.display_mode.value if self.display_mode else None,
            }
            return super().as_dict() | prune_dict(own)


@comfytype(io_type="FLOAT")
class Float(ComfyTypeIO):
    """A number."""

    Type = float

    class Input(WidgetInput):
        """A field for a number."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: float | None = None,
            min: float | None = None,
            max: float | None = None,
            step: float | None = None,
            round: float | None = None,
            display_mode: NumberDisplay | None = None,
            gradient_stops: list[dict[str, Any]] | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict,
                raw_link, advanced,
            )  # fmt: skip
            self.min = min
            self.max = max
            self.step = step
            self.round = round
            self.display_mode = display_mode
            self.gradient_stops = gradient_stops

        def as_dict(self) -> dict[str, Any]:
            own = {
                "min": self.min,
                "max": self.max,
                "step": self.step,
                "round": self.round,
                "display": self.display_mode.value if self.display_mode else None,
                "gradient_stops": self.gradient_stops,
            }
            return super().as_dict() | prune_dict(own)


@comfytype(io_type="STRING")
class String(ComfyTypeIO):
    """A text."""

    Type = str

    class Input(WidgetInput):
        """A field for a text."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            multiline: bool = False,
            placeholder: str | None = None,
            default: str | None = None,
            dynamic_prompts: bool | None = None,
            socketless: bool | None = None,
            force_input: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, force_input, extra_dict,
                raw_link, advanced,
            )  # fmt: skip
            self.multiline = multiline
            self.placeholder = placeholder
            self.dynamic_prompts = dynamic_prompts

        def as_dict(self) -> dict[str, Any]:
            own = {
                "multiline": self.multiline,
                "placeholder": self.placeholder,
                "dynamicPrompts": self.dynamic_prompts,
            }
            return super().as_dict() | prune_dict(own)


def _values(options: Any) -> Any:
    """The choices, where an enumeration may stand for its values."""
    if isinstance(options, type) and issubclass(options, Enum):
        return [member.value for member in options]
    return options


@comfytype(io_type="COMBO")
class Combo(ComfyTypeIO):
    """One of several choices."""

    Type = str

    class Input(WidgetInput):
        """A list to choose from; `options` are texts, numbers, or an enumeration."""

        Type = str  # type: ignore[assignment]

        def __init__(
            self,
            id: str,
            options: list[str] | list[int] | type[Enum] | None = None,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: Any = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            upload: UploadType | None = None,
            image_folder: FolderType | None = None,
            remote: RemoteOptions | None = None,
            socketless: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            default = default.value if isinstance(default, Enum) else default
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, None, extra_dict,
                raw_link, advanced,
            )  # fmt: skip
            self.multiselect = False
            self.options = _values(options)
            self.control_after_generate = control_after_generate
            self.upload = upload
            self.image_folder = image_folder
            self.remote = remote

        def as_dict(self) -> dict[str, Any]:
            own = {
                "multiselect": self.multiselect,
                "options": self.options,
                "control_after_generate": self.control_after_generate,
                "image_folder": self.image_folder.value if self.image_folder else None,
                "remote": self.remote.as_dict() if self.remote else None,
            }
            if self.upload is not None:
                own[self.upload.value] = True
            return super().as_dict() | prune_dict(own)

    class Output(Output):
        """An output of choices."""

        def __init__(
            self,
            id: str | None = None,
            display_name: str | None = None,
            options: list[str] | None = None,
            tooltip: str | None = None,
            is_output_list: bool = False,
        ) -> None:
            super().__init__(id, display_name, tooltip, is_output_list)
            self.options = [] if options is None else options


@comfytype(io_type="COMBO")
class MultiCombo(ComfyTypeI):
    """Any number of several choices."""

    Type = list[str]

    class Input(Combo.Input):
        """A list to choose several from."""

        def __init__(
            self,
            id: str,
            options: list[str],
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: list[str] | None = None,
            placeholder: str | None = None,
            chip: bool | None = None,
            control_after_generate: bool | ControlAfterGenerate | None = None,
            socketless: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, options, display_name, optional, tooltip, lazy, default, control_after_generate,
                socketless=socketless, extra_dict=extra_dict, raw_link=raw_link, advanced=advanced,
            )  # fmt: skip
            self.multiselect = True
            self.placeholder = placeholder
            self.chip = chip

        def as_dict(self) -> dict[str, Any]:
            # The web page reads the object, the validation of prompts the flag.
            widget = prune_dict({"placeholder": self.placeholder, "chip": self.chip})
            return super().as_dict() | {"multi_select": widget}

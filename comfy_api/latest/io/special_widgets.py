"""Kinds with widgets of their own on the web page: cameras, colours, boxes, curves, ranges."""

from __future__ import annotations

from typing import Any, TypedDict

from comfy_api.internal import prune_dict
from comfy_api.latest._input.curve_types import CurvePoint as _CurvePoint
from comfy_api.latest.io.kinds import ComfyTypeI, ComfyTypeIO, WidgetInput, comfytype


class _SocketlessInput(WidgetInput):
    """An input that has a widget and, unless told otherwise, no socket. `start` is its default."""

    start: Any = None

    def __init__(
        self,
        id: str,
        display_name: str | None = None,
        optional: bool = False,
        tooltip: str | None = None,
        socketless: bool | None = True,
        default: Any = None,
        advanced: bool | None = None,
    ) -> None:
        default = self._first_value() if default is None else default
        super().__init__(id, display_name, optional, tooltip, None, default, socketless, advanced=advanced)

    def _first_value(self) -> Any:
        return self.start.copy() if isinstance(self.start, (dict, list)) else self.start


@comfytype(io_type="WEBCAM")
class Webcam(ComfyTypeIO):
    """A picture taken by the user's camera, as the name of its file."""

    Type = str

    class Input(WidgetInput):
        """The picture of a camera."""

        Type = str  # type: ignore[assignment]

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            lazy: bool | None = None,
            default: str | None = None,
            socketless: bool | None = None,
            extra_dict: dict[str, Any] | None = None,
            raw_link: bool | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(
                id, display_name, optional, tooltip, lazy, default, socketless, None, None, extra_dict,
                raw_link, advanced,
            )  # fmt: skip


@comfytype(io_type="IMAGECOMPARE")
class ImageCompare(ComfyTypeI):
    """Two pictures under a slider."""

    Type = dict

    class Input(_SocketlessInput):
        """The slider."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, None, advanced)


@comfytype(io_type="COLOR")
class Color(ComfyTypeIO):
    """A colour as "#rrggbb"."""

    Type = str

    class Input(_SocketlessInput):
        """A field for a colour."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            advanced: bool | None = None,
            default: str = "#ffffff",
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, default, advanced)


@comfytype(io_type="COLORS")
class Colors(ComfyTypeIO):
    """Several colours."""

    Type = list[str]

    class Input(_SocketlessInput):
        """A field for several colours."""

        start: list[str] = []


@comfytype(io_type="BOUNDING_BOX")
class BoundingBox(ComfyTypeIO):
    """A rectangle in pixels."""

    class BoundingBoxDict(TypedDict):
        """Corner at the top left, and size."""

        x: int
        y: int
        width: int
        height: int

    Type = BoundingBoxDict

    class Input(WidgetInput):
        """A field for a rectangle."""

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: dict[str, int] | None = None,
            component: str | None = None,
            force_input: bool | None = None,
        ) -> None:
            default = {"x": 0, "y": 0, "width": 512, "height": 512} if default is None else default
            super().__init__(
                id, display_name, optional, tooltip, None, default, socketless, force_input=force_input
            )
            self.component = component

        def as_dict(self) -> dict[str, Any]:
            return super().as_dict() | prune_dict({"component": self.component or None})


@comfytype(io_type="BOUNDING_BOXES")
class BoundingBoxes(ComfyTypeIO):
    """Several rectangles with data."""

    class BoundingBoxWithMetadata(BoundingBox.BoundingBoxDict):
        """A rectangle and what is known of it."""

        metadata: dict[str, Any]

    Type = list[BoundingBoxWithMetadata]

    class Input(_SocketlessInput):
        """A field for rectangles."""

        start: list[Any] = []


@comfytype(io_type="CURVE")
class Curve(ComfyTypeIO):
    """A curve through points, of 0..1 to 0..1."""

    CurvePoint = _CurvePoint

    class Input(_SocketlessInput):
        """A field for a curve; `default` are its points."""

        start = [(0.0, 0.0), (1.0, 1.0)]

        def as_dict(self) -> dict[str, Any]:
            points = [list(point) for point in self.default]
            return super().as_dict() | {"default": {"points": points, "interpolation": "monotone_cubic"}}


@comfytype(io_type="HISTOGRAM")
class Histogram(ComfyTypeIO):
    """How often values occur, bin by bin."""

    Type = list[int]


@comfytype(io_type="RANGE")
class Range(ComfyTypeIO):
    """A range of levels with an optional midpoint."""

    class Input(_SocketlessInput):
        """A field for a range."""

        start = {"min": 0.0, "max": 1.0}

        def __init__(
            self,
            id: str,
            display_name: str | None = None,
            optional: bool = False,
            tooltip: str | None = None,
            socketless: bool | None = True,
            default: dict[str, float] | None = None,
            display: str | None = None,
            gradient_stops: list[Any] | None = None,
            show_midpoint: bool | None = None,
            midpoint_scale: str | None = None,
            value_min: float | None = None,
            value_max: float | None = None,
            advanced: bool | None = None,
        ) -> None:
            super().__init__(id, display_name, optional, tooltip, socketless, default, advanced)
            self.display = display
            self.gradient_stops = gradient_stops
            self.show_midpoint = show_midpoint
            self.midpoint_scale = midpoint_scale
            self.value_min = value_min
            self.value_max = value_max

        def as_dict(self) -> dict[str, Any]:
            own = {
                "display": self.display,
                "gradient_stops": self.gradient_stops,
                "show_midpoint": self.show_midpoint,
                "midpoint_scale": self.midpoint_scale,
                "value_min": self.value_min,
                "value_max": self.value_max,
            }
            return super().as_dict() | prune_dict(own)


@comfytype(io_type="COMPOSITOR")
class Compositor(ComfyTypeIO):
    """The state of an editor of layers."""

    class LayerState(TypedDict, total=False):
        """What the editor keeps."""

        version: int
        canvas: dict[str, Any]
        background: dict[str, Any]
        inputs: list[str]
        order: list[int]
        layers: list[dict[str, Any]]

    Type = LayerState

    class Input(_SocketlessInput):
        """The editor."""

        start: dict[str, Any] = {}

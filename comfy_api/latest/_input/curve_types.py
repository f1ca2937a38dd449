"""Curves through points. They are what the curve widget of the web page draws."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from typing import Any

log = logging.getLogger(__name__)

CurvePoint = tuple[float, float]


class CurveInput(ABC):
    """A function of 0..1, given by points."""

    @property
    @abstractmethod
    def points(self) -> list[CurvePoint]:
        """The points, from left to right."""

    @abstractmethod
    def interp(self, x: float) -> float:
        """The value at `x`."""

    def interp_array(self, xs: Any) -> Any:
        """The values at all of `xs`."""
        import numpy

        return numpy.array([self.interp(float(x)) for x in xs], dtype=numpy.float64)

    def to_lut(self, size: int = 256) -> Any:
        """The values at `size` places from 0 to 1."""
        import numpy

        return self.interp_array(numpy.linspace(0.0, 1.0, size))

    @staticmethod
    def from_raw(data: Any) -> CurveInput:
        """From what the widget gives: {"points", "interpolation"}, or points alone."""
        if isinstance(data, CurveInput):
            return data
        points, kind = data, "monotone_cubic"
        if isinstance(data, dict):
            points, kind = data["points"], data.get("interpolation", kind)
        if kind not in ("linear", "monotone_cubic"):
            log.warning("Interpolation %r of a curve is not known; monotone_cubic is used.", kind)
        curve = LinearCurve if kind == "linear" else MonotoneCubicCurve
        return curve([(float(x), float(y)) for x, y in points])


class _PointCurve(CurveInput):
    def __init__(self, control_points: list[CurvePoint]) -> None:
        points = [(float(x), float(y)) for x, y in control_points]
        self._points = sorted(points, key=lambda point: point[0])

    @property
    def points(self) -> list[CurvePoint]:
        return list(self._points)

    def _segment(self, x: float) -> int | None:
        """The number of the point to the left of `x`; None outside of the points."""
        if not self._points or not self._points[0][0] < x < self._points[-1][0]:
            return None
        return max(index for index, point in enumerate(self._points) if point[0] <= x)

    def _outside(self, x: float) -> float:
        if not self._points:
            return 0.0
        return self._points[0][1] if x <= self._points[0][0] else self._points[-1][1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(points={self._points})"


class LinearCurve(_PointCurve):
    """Straight lines from point to point."""

    def interp(self, x: float) -> float:
        index = self._segment(x)
        if index is None:
            return self._outside(x)
        (x0, y0), (x1, y1) = self._points[index : index + 2]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def monotone_slopes(points: list[CurvePoint]) -> list[float]:
    """Slopes at the points, so that a cubic curve never overshoots (Fritsch and Carlson 1980)."""
    if len(points) < 2:
        return [0.0] * len(points)
    secants = [
        0.0 if x1 == x0 else (y1 - y0) / (x1 - x0)
        for (x0, y0), (x1, y1) in zip(points, points[1:])
    ]  # fmt: skip
    inner = [(left + right) / 2 if left * right > 0 else 0.0 for left, right in zip(secants, secants[1:])]
    slopes = [secants[0], *inner, secants[-1]]
    for index, secant in enumerate(secants):
        if secant == 0:
            slopes[index] = slopes[index + 1] = 0.0
            continue
        length = math.hypot(slopes[index] / secant, slopes[index + 1] / secant)
        if length > 3:
            slopes[index] *= 3 / length
            slopes[index + 1] *= 3 / length
    return slopes


class MonotoneCubicCurve(_PointCurve):
    """A smooth curve that rises and falls only where its points do."""

    def __init__(self, control_points: list[CurvePoint]) -> None:
        super().__init__(control_points)
        self._slopes = monotone_slopes(self._points)

    def interp(self, x: float) -> float:
        index = self._segment(x)
        if index is None:
            return self._outside(x)
        (x0, y0), (x1, y1) = self._points[index : index + 2]
        slope0, slope1 = self._slopes[index : index + 2]
        width = x1 - x0
        t = (x - x0) / width
        # Cubic Hermite basis.
        value = y0 * (1 + 2 * t) * (1 - t) ** 2 + slope0 * width * t * (1 - t) ** 2
        return value + y1 * t * t * (3 - 2 * t) + slope1 * width * t * t * (t - 1)

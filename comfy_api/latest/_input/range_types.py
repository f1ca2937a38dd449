"""Levels: what is below, between and above two values."""

from __future__ import annotations

import math
from typing import Any

NARROWEST = 1e-10


class RangeInput:
    """A range of levels, `min_val`..`max_val`, with the place of the middle tone in it (0..1)."""

    def __init__(self, min_val: float, max_val: float, midpoint: float | None = None) -> None:
        self.min_val = min_val
        self.max_val = max_val
        self.midpoint = midpoint

    @staticmethod
    def from_raw(data: Any) -> RangeInput:
        """From what the widget gives."""
        if isinstance(data, RangeInput):
            return data
        if not isinstance(data, dict):
            name = type(data).__name__
            raise TypeError(f"A {name} is no range. Give an object with min, max and midpoint.")
        midpoint = data.get("midpoint")
        middle = None if midpoint is None else float(midpoint)
        return RangeInput(float(data.get("min", 0.0)), float(data.get("max", 1.0)), middle)

    @property
    def gamma(self) -> float:
        """The exponent's divisor: 1 for a middle at 0.5."""
        if self.midpoint is None or self.midpoint <= 0 or self.midpoint == 0.5:
            return 1.0
        return max(-math.log2(self.midpoint), 0.001)

    def to_lut(self, size: int = 256) -> Any:
        """The new level of `size` levels from 0 to 1, as float64."""
        import numpy

        levels = numpy.linspace(0.0, 1.0, size)
        width = self.max_val - self.min_val
        if abs(width) < NARROWEST:
            return (levels >= self.min_val).astype(numpy.float64)
        return numpy.clip((levels - self.min_val) / width, 0.0, 1.0) ** (1.0 / self.gamma)

    def __repr__(self) -> str:
        middle = "" if self.midpoint is None else f", midpoint={self.midpoint}"
        return f"RangeInput(min={self.min_val}, max={self.max_val}{middle})"

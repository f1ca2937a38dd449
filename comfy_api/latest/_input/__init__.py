"""Types of the values that nodes are given."""

from __future__ import annotations

from typing import Any

from comfy_api.latest._input import basic_types
from comfy_api.latest._input.basic_types import AudioInput, LatentInput
from comfy_api.latest._input.curve_types import CurveInput, CurvePoint, LinearCurve, MonotoneCubicCurve
from comfy_api.latest._input.range_types import RangeInput
from comfy_api.latest._input.video_types import VideoInput

__all__ = [
    "AudioInput", "CurveInput", "CurvePoint", "ImageInput", "LatentInput", "LinearCurve", "MaskInput",
    "MonotoneCubicCurve", "RangeInput", "VideoInput",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in basic_types.TENSORS:
        return getattr(basic_types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

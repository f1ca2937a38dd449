"""Older name of classes in `comfy_api.latest.Input`."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import _input
from comfy_api.latest._input import (
    AudioInput,
    CurveInput,
    CurvePoint,
    LatentInput,
    LinearCurve,
    MonotoneCubicCurve,
    RangeInput,
    VideoInput,
)

__all__ = [
    "AudioInput", "CurveInput", "CurvePoint", "ImageInput", "LatentInput", "LinearCurve", "MaskInput",
    "MonotoneCubicCurve", "RangeInput", "VideoInput",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    return getattr(_input, name)

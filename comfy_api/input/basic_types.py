"""Older name of classes in `comfy_api.latest.Input`."""

from __future__ import annotations

from typing import Any

from comfy_api.latest._input import basic_types
from comfy_api.latest._input.basic_types import AudioInput, LatentInput

__all__ = ["AudioInput", "ImageInput", "LatentInput", "MaskInput"]


def __getattr__(name: str) -> Any:
    return getattr(basic_types, name)

"""Annotations for node classes of the older interface, and for functions that wrap a diffusion model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypedDict

from comfy.comfy_types.node_typing import IO, CheckLazyMixin, ComfyNodeABC, FileLocator, InputTypeDict

__all__ = [
    "IO", "CheckLazyMixin", "ComfyNodeABC", "FileLocator", "InputTypeDict", "UnetApplyConds",
    "UnetApplyFunction", "UnetParams", "UnetWrapperFunction",
]  # fmt: skip


class UnetApplyFunction(Protocol):
    """Predicts: `x` (B, C, H, W) at the timesteps `t` (B,)."""

    def __call__(self, x: Any, t: Any, **kwargs: Any) -> Any: ...


class UnetApplyConds(TypedDict, total=False):
    """What a prediction follows."""

    c_concat: Any
    c_crossattn: Any
    control: Any
    transformer_options: dict[str, Any]


class UnetParams(TypedDict):
    """What a wrapper is given; `cond_or_uncond` says of each part of the batch: 0 positive, 1 negative."""

    input: Any
    timestep: Any
    c: UnetApplyConds
    cond_or_uncond: list[int]


UnetWrapperFunction = Callable[[UnetApplyFunction, UnetParams], Any]

"""What each architecture of an upscale model says about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from comfy.families.base import StateDict


@dataclass(frozen=True)
class Architecture:
    """One row of the table of architectures; a module here holds one as `ARCHITECTURE`.

    `layouts` are sets of keys: the weights are of this architecture when all keys of one set are there and
    `accepts` holds. `build` makes the module around the weights; it has `scale` and `channels`, and takes and
    gives pictures (B, channels, H, W) in 0..1, `scale` times as large.
    """

    name: str
    layouts: tuple[tuple[str, ...], ...]
    build: Callable[[StateDict], torch.nn.Module]
    accepts: Callable[[StateDict], bool] = lambda weights: True

    def share_found(self, weights: StateDict) -> float:
        """How much of a layout's keys are there, 0..1, for the layout that comes nearest."""
        return max(sum(key in weights for key in keys) / len(keys) for keys in self.layouts)

    def matches(self, weights: StateDict) -> bool:
        """Are these weights of this architecture?"""
        return self.share_found(weights) == 1 and self.accepts(weights)

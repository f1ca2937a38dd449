"""Types of pictures, sound, masks and latents, for annotations.

`ImageInput` (B, H, W, C) and `MaskInput` (B, H, W) are torch.Tensor, imported when they are first asked for.
"""

from __future__ import annotations

from typing import Any, TypedDict

TENSORS = ("ImageInput", "MaskInput")


class AudioInput(TypedDict):
    """Sound: `waveform` (B, C, T)."""

    waveform: Any
    sample_rate: int


class LatentInput(TypedDict):
    """Latents: `samples` (B, C, H, W); `noise_mask` of the same form; `batch_index`, the number of each."""

    samples: Any
    noise_mask: Any
    batch_index: list[int] | None


def __getattr__(name: str) -> Any:
    if name in TENSORS:
        import torch

        return torch.Tensor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

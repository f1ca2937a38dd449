"""Two helpers of every diffusion transformer: padding to whole patches, and the RMS norm."""

import torch

from comfy.rmsnorm import rms_norm

__all__ = ["pad_to_patch_size", "rms_norm"]


def pad_to_patch_size(img, patch_size=(2, 2), padding_mode="circular"):
    """(B, C, *sides) with each side continued to a multiple of its patch; one size per side."""
    sides = img.shape[2:]
    missing = [-side % patch for side, patch in zip(sides, patch_size)]
    pads = [pad for side in reversed(missing) for pad in (0, side)]  # torch counts from the last side
    if padding_mode == "circular" and (torch.jit.is_tracing() or torch.jit.is_scripting()):
        padding_mode = "reflect"  # circular padding cannot be traced
    return torch.nn.functional.pad(img, pads, mode=padding_mode)

"""Weights stored as fp8 with a scale: the weight of layer `x` is `x.weight` (float8) times `x.scale_weight`.

Files name the scale `scale_weight` (with a marker tensor `scaled_fp8`) or `weight_scale` (with a description
`comfy_quant`). Scales of inputs are for fp8 arithmetic, which is not used here: weights are scaled when they
are used, and the arithmetic runs in the dtype of the input.
"""

from __future__ import annotations

import torch

import comfy.model_management
import comfy.ops

_MARKERS = ("scaled_fp8", "scale_input", "input_scale", "comfy_quant")


def normalise_names(weights: dict, prefix: str = "") -> frozenset[str]:
    """Name every scale below `prefix` `scale_weight`, drop the markers; the keys that must not be cast."""
    for key in [key for key in weights if key.startswith(prefix)]:
        layer, _, name = key.rpartition(".")
        if name in _MARKERS:
            del weights[key]
        elif name == "weight_scale":
            weights[f"{layer}.scale_weight"] = weights.pop(key)
    kept = set()
    for key in weights:
        layer, _, name = key.rpartition(".")
        if key.startswith(prefix) and name == "scale_weight":
            kept.add(key)
            if weights.get(f"{layer}.weight", weights[key]).dtype in comfy.model_management.FLOAT8_TYPES:
                kept.add(f"{layer}.weight")
    return frozenset(kept)


def make_room(module: torch.nn.Module, weights) -> None:
    """Let the layers of `module` that have a scale in `weights` (by the module's names) hold and use it."""
    for key, scale in weights.items():
        layer_name, _, name = key.rpartition(".")
        if name != "scale_weight":
            continue
        layer = module.get_submodule(layer_name)
        layer.__class__ = comfy.ops.ScaledLinear
        empty = torch.empty_like(scale, device="meta")
        layer.register_parameter("scale_weight", torch.nn.Parameter(empty, requires_grad=False))

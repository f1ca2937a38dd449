"""Quantised weights, as far as packs name them. Here fp8 weights with a scale are `comfy.ops.ScaledLinear`.

The tensor classes of comfy-kitchen are given where that package is installed; without it their construction
says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import json

import torch

_CK_AVAILABLE = importlib.util.find_spec("comfy_kitchen") is not None
_FROM_KITCHEN = (
    "QuantizedTensor", "QuantizedLayout", "TensorCoreFP8Layout", "TensorCoreNVFP4Layout",
    "TensorWiseINT8Layout",
    "TensorCoreConvRotW4A4Layout", "AsymW4A8Int8Layout", "register_layout_op", "register_layout_class",
    "get_layout_class",
)  # fmt: skip
QUANT_ALGOS = {
    "float8_e4m3fn": {
        "storage_t": torch.float8_e4m3fn,
        "parameters": {"weight_scale", "input_scale"},
        "comfy_tensor_layout": "TensorCoreFP8E4M3Layout",
    },
    "float8_e5m2": {
        "storage_t": torch.float8_e5m2,
        "parameters": {"weight_scale", "input_scale"},
        "comfy_tensor_layout": "TensorCoreFP8E5M2Layout",
    },
}


def convert_old_quants(state_dict, model_prefix="", metadata=None):
    """(state_dict, metadata) with scales named as newer files name them, and a description per layer.

    Files with a marker `scaled_fp8` name a scale `scale_weight`; others describe layers in the metadata.
    Both kinds, before and after, load here.
    """
    metadata = metadata or {}
    layers, marker = None, f"{model_prefix}scaled_fp8"
    if "_quantization_metadata" in metadata:
        layers = json.loads(metadata["_quantization_metadata"])["layers"]
    elif marker in state_dict:
        layers, described = {}, {"format": "float8_e4m3fn"}
        if state_dict.pop(marker).nelement() == 2:
            described["full_precision_matrix_mult"] = True
        for key in [key for key in state_dict if key.startswith(model_prefix)]:
            layer, _, name = key.rpartition(".")
            if name == "scale_weight":
                layers[layer] = described
                state_dict[f"{layer}.weight_scale"] = state_dict.pop(key)
            elif name == "scale_input":
                scale = state_dict.pop(key)
                if scale.item() != 1.0:
                    state_dict[f"{layer}.input_scale"] = scale
    for layer, described in (layers or {}).items():
        row = list(json.dumps(described).encode())
        state_dict[f"{layer}.comfy_quant"] = torch.tensor(row, dtype=torch.uint8)
    return state_dict, metadata


def _refuse(name: str):
    raise ImportError(
        f"comfy.quant_ops.{name} needs the package comfy-kitchen, which is not installed. Files with scaled "
        "fp8 weights load without it."
    )


class _Missing:
    """In place of a class of comfy-kitchen: nothing is one, and none can be made."""

    def __init__(self, *args, **kwargs):
        _refuse(type(self).__name__)


class _MissingKitchen:
    """In place of the package: packs import it by name and use it, or not, later."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(f"ck.{name}")


def __getattr__(name: str):
    """comfy-kitchen's, when a pack first names it."""
    if name == "TensorCoreFP8E4M3Layout" or name == "TensorCoreFP8E5M2Layout":
        return __getattr__("TensorCoreFP8Layout")
    if name == "ck":
        return importlib.import_module("comfy_kitchen") if _CK_AVAILABLE else _MissingKitchen()
    if name not in _FROM_KITCHEN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _CK_AVAILABLE:
        found = getattr(importlib.import_module("comfy_kitchen.tensor"), name)
    elif name[0].islower():

        def found(*args, **kwargs):
            _refuse(name)

    else:
        found = type(name, (_Missing,), {"__module__": __name__})
    globals()[name] = found
    return found

"""LoRA files: which of their tensors patch which weight, and applying patches to a weight.

A patch is `(strength, value, strength_model, offset, function)`; `value` is `(diff,)`, a pair of a kind and
its tensors, a list of nested patches, or an adapter (`comfy.weight_adapter`) with its own `calculate_weight`.
"""

from __future__ import annotations

import logging

import torch

import comfy.model_management
from comfy import lora_names
from comfy.lora_convert import convert_lora
from comfy.weight_adapter import RowsAdapter, WeightAdapterBase, adapters

# Tensors that are patches as they are: (ending, kind of the patch, whether the bias is patched).
WHOLE_PATCHES = (
    (".diff", "diff", False),
    (".diff_b", "diff", True),
    (".w_norm", "diff", False),
    (".b_norm", "diff", True),
    (".set_weight", "set", False),
)
NUMBERS = (".alpha", ".dora_scale")
ENDINGS = tuple(sorted(
    {ending for kind in adapters for ending in kind.endings} | {row[0] for row in WHOLE_PATCHES},
    key=len, reverse=True,
))  # fmt: skip


# --- from the tensors of a file to patches ---


def load_lora(lora, to_load, log_missing=True):
    """The patches of a LoRA file: {weight: value}, for `ModelPatcher.add_patches`.

    Args:
        lora: the tensors of the file.
        to_load: {name of a layer in files: target}; see `comfy.lora_names`.
        log_missing: log one line with the keys that belong to no layer in `to_load`.
    """
    patches, unused = match(lora, to_load)
    if log_missing and unused:
        logging.warning("LoRA: %s", describe_unused(unused, len(lora)))
    return patches


def match(lora, to_load) -> tuple[dict, list[str]]:
    """(patches as by `load_lora`, the keys that belong to no layer in `to_load`); nothing is logged."""
    plain = convert_lora(lora)
    patches: dict = {}
    used: set[str] = set()
    for layer in dict.fromkeys(_layer_of(key) for key in plain):
        target = to_load.get(layer)
        if target is not None:
            patches.update(_patches_of_layer(layer, target, plain, used))
    return patches, [key for key in plain if key not in used]


def describe_unused(unused: list[str], total: int) -> str:
    """One sentence with the number and the first names of keys that were not used."""
    first = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
    return f"{len(unused)} of {total} keys belong to no layer of this model and are left out: {first}."


def _layer_of(key: str) -> str:
    ending = next((ending for ending in ENDINGS if key.endswith(ending)), "")
    return key.removesuffix(ending)


def _patches_of_layer(layer: str, target, lora, used: set[str]) -> dict:
    alpha, dora_scale = lora.get(layer + ".alpha"), lora.get(layer + ".dora_scale")
    used.update(layer + ending for ending in NUMBERS if layer + ending in lora)
    patches: dict = {}
    for kind in adapters:
        adapter = kind.load(layer, lora, None if alpha is None else alpha.item(), dora_scale, set())
        if adapter is not None:
            used |= adapter.loaded_keys
            patches.update(_on_target(adapter, target))
            break
    for ending, name, is_bias in WHOLE_PATCHES:
        tensor = lora.get(layer + ending)
        if tensor is not None:
            used.add(layer + ending)
            place = lora_names.with_key(target, _bias_of) if is_bias else target
            patches.update(_whole_on_target(name, tensor, place))
    return patches


def _bias_of(key: str) -> str:
    return key.removesuffix(".weight") + ".bias"


def _is_rows(target) -> bool:
    return isinstance(target, tuple) and isinstance(target[0], lora_names.Rows)


def _on_target(adapter: WeightAdapterBase, target) -> dict:
    if not _is_rows(target):
        return {target: adapter}
    return {rows.key: RowsAdapter(adapter, rows.start, rows.length, rows.total) for rows in target}


def _whole_on_target(kind: str, tensor: torch.Tensor, target) -> dict:
    if not _is_rows(target):
        return {target: (kind, (tensor,))}
    return {rows.key: (kind, (tensor.narrow(0, rows.start, rows.length),)) for rows in target}


# --- the names of a model's layers in files ---


def model_lora_keys_unet(model, key_map=None):
    """{name of a layer in LoRA files: its weight} of a diffusion model (a BaseModel), added to `key_map`."""
    key_map = {} if key_map is None else key_map
    prefix = "diffusion_model."
    for name, target in model.model_config.lora_names(model.diffusion_model).items():
        key_map[name] = lora_names.with_key(target, lambda key: prefix + key)
    for key in model.state_dict():
        if key.startswith(prefix):
            key_map.setdefault(key, key)
    return key_map


def model_lora_keys_clip(model, key_map=None):
    """The same for text encoders (`CLIP.cond_stage_model`)."""
    key_map = {} if key_map is None else key_map
    own = getattr(model, "lora_names", None)
    key_map.update(lora_names.of_text_encoders(model.state_dict()) if own is None else own())
    return key_map


# --- applying patches ---


def calculate_weight(patches, weight, key, intermediate_dtype=torch.float32, original_weights=None):
    """`weight` with all `patches` applied, in place where possible."""
    for strength, value, strength_model, offset, function in patches:
        whole = weight
        part = weight if offset is None else weight.narrow(*offset)
        if strength_model != 1.0:
            part *= strength_model
        part = _apply(
            part, value, key, strength, strength_model, offset, function, intermediate_dtype, original_weights
        )
        weight = part if offset is None else whole
    return weight


def _apply(weight, value, key, strength, strength_model, offset, function, dtype, original_weights):
    if hasattr(value, "calculate_weight"):
        change = function or (lambda tensor: tensor)
        out = value.calculate_weight(
            weight, key, strength, strength_model, offset, change, dtype, original_weights
        )
        if out is None:
            logging.warning("The patch %s could not be applied to %s.", getattr(value, "name", value), key)
        return weight if out is None else out
    if isinstance(value, list):
        value = ("diff", (_nested(value, weight, key, dtype),))
    kind, tensors = value if len(value) == 2 else ("diff", value)
    if kind == "set":
        return weight.copy_(tensors[0])
    if kind == "diff":
        difference = tensors[0]
    elif kind == "model_as_lora":
        original = comfy.model_management.cast_to_device(original_weights[key][0][0], weight.device, dtype)
        difference = comfy.model_management.cast_to_device(tensors[0], weight.device, dtype) - original
    else:
        logging.warning("A patch of the unknown kind '%s' was not applied to %s.", kind, key)
        return weight
    if difference is None:  # only the weight's own factor was asked for
        return weight
    if difference.shape != weight.shape:
        if kind == "diff" and len(tensors) > 1 and tensors[1].get("pad_weight"):
            weight = _padded(weight, difference.shape)
        else:
            logging.warning(
                "A patch of shape %s was not applied to %s, which has shape %s.",
                tuple(difference.shape), key, tuple(weight.shape),
            )  # fmt: skip
            return weight
    if strength == 0.0:
        return weight
    change = strength * comfy.model_management.cast_to_device(difference, weight.device, weight.dtype)
    weight += change if function is None else function(change)
    return weight


def _nested(value: list, weight, key, dtype):
    """A list begins with (weight, conversion) of another model and goes on with that model's patches."""
    (base, convert), *patches = value
    start = comfy.model_management.cast_to_device(base, weight.device, dtype, copy=True)
    return calculate_weight(patches, convert(start, inplace=True), key, intermediate_dtype=dtype)


def _padded(weight, shape):
    larger = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    larger[tuple(slice(0, size) for size in weight.shape)] = weight
    return larger

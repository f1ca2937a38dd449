"""Applying patches to a weight.

A patch is `(strength, value, strength_model, offset, function)`; `value` is `(diff,)`, a pair of a kind and
its tensors, a list of nested patches, or an object with its own `calculate_weight`.
"""

import logging

import torch

import comfy.model_management


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

"""The text half of OpenCLIP as SD2 and SDXL store it, under transformers' names and back.

OpenCLIP keeps query, key and value of an attention as one matrix, and the projection transposed.
"""

from __future__ import annotations

import torch

from comfy.families.base import StateDict, count_indices
from comfy.families.clip_text import PROJECTION

_BLOCKS = "transformer.resblocks."
_LAYERS = "text_model.encoder.layers."
_ENDS = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_INSIDE = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}  # fmt: skip
_FUSED = ("q_proj", "k_proj", "v_proj")
_NO_WEIGHTS = ("logit_scale", "attn_mask")


def is_open_clip(weights: StateDict) -> bool:
    """Are these a text encoder's weights in OpenCLIP's layout, without a prefix?"""
    return _BLOCKS + "0.ln_1.weight" in weights


def from_own_file(weights: StateDict) -> StateDict:
    """A text encoder's own file, in either layout, under transformers' names; other files as they are."""
    if is_open_clip(weights):
        return to_transformers(weights)
    if "text_projection" in weights:  # transformers' names, but OpenCLIP's projection
        rest = {key: tensor for key, tensor in weights.items() if key != "text_projection"}
        return {**rest, PROJECTION: weights["text_projection"].T}
    return weights


def to_transformers(weights: StateDict) -> dict[str, torch.Tensor]:
    """OpenCLIP's weights under transformers' names, as views; unknown ones keep their names."""
    out = {}
    for key, tensor in weights.items():
        if key in _NO_WEIGHTS:
            continue
        if key == "text_projection":  # (width, width of the result)
            out[PROJECTION] = tensor.T
        elif key.startswith(_BLOCKS):
            out.update(layer_weights(key[len(_BLOCKS) :], tensor))
        else:
            out[_ENDS.get(key, key)] = tensor
    return out


def layer_weights(key: str, tensor: torch.Tensor, layers: str = _LAYERS) -> dict[str, torch.Tensor]:
    """One tensor of a layer, `key` from the layer's number on; the fused one gives three."""
    number, _, name = key.partition(".")
    prefix = f"{layers}{number}."
    block, _, kind = name.rpartition(".")
    if block == "attn" and kind in ("in_proj_weight", "in_proj_bias"):
        kind = kind.removeprefix("in_proj_")
        thirds = zip(_FUSED, tensor.chunk(3), strict=True)
        return {f"{prefix}self_attn.{part}.{kind}": third for part, third in thirds}
    return {f"{prefix}{_INSIDE.get(block, block)}.{kind}": tensor}


def to_open_clip(weights: StateDict) -> dict[str, torch.Tensor]:
    """The inverse of `to_transformers`; weights named `text_model...` and `text_projection.weight`."""
    ends = {new: old for old, new in _ENDS.items()}
    inside = {new: old for old, new in _INSIDE.items()}
    out = {ends[key]: tensor for key, tensor in weights.items() if key in ends}
    if PROJECTION in weights:
        out["text_projection"] = weights[PROJECTION].T.contiguous()
    for key, tensor in weights.items():
        number, _, name = key.removeprefix(_LAYERS).partition(".")
        block, _, kind = name.rpartition(".")
        if key.startswith(_LAYERS) and block in inside:
            out[f"{_BLOCKS}{number}.{inside[block]}.{kind}"] = tensor
    for number in range(count_indices(weights, _LAYERS + "{}.")):
        for kind in ("weight", "bias"):
            thirds = [weights[f"{_LAYERS}{number}.self_attn.{part}.{kind}"] for part in _FUSED]
            out[f"{_BLOCKS}{number}.attn.in_proj_{kind}"] = torch.cat(thirds)
    return out

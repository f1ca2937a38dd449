"""Weights of Stable Diffusion 1 and 2 from diffusers' layout to that of checkpoints."""

from __future__ import annotations

import re

import torch

from comfy.errors import ModelFileError

_LEVELS = 4
_ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
    "query": "q", "key": "k", "value": "v", "proj_attn": "proj_out",
}  # fmt: skip
# (in diffusers, in a checkpoint); levels of the decoder are counted from the other end.
_VAE = [
    (r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", lambda m: f"encoder.down.{m[1]}.block.{m[2]}."),
    (r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", lambda m: f"encoder.down.{m[1]}.downsample."),
    (
        r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.",
        lambda m: f"decoder.up.{_LEVELS - 1 - int(m[1])}.block.{m[2]}.",
    ),
    (
        r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.",
        lambda m: f"decoder.up.{_LEVELS - 1 - int(m[1])}.upsample.",
    ),
    (r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}."),
    (
        r"mid_block\.attentions\.0\.([\w.]+)\.(weight|bias)$",
        lambda m: f"mid.attn_1.{_ATTENTION[m[1]]}.{m[2]}",
    ),
    (r"conv_norm_out", lambda m: "norm_out"),
    (r"conv_shortcut", lambda m: "nin_shortcut"),
]
_TEXT = {
    "text_model.encoder.layers.": "resblocks.", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
    ".fc1.": ".c_fc.", ".fc2.": ".c_proj.", ".self_attn": ".attn",
    "transformer.text_model.final_layer_norm.": "ln_final.",
    "transformer.text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "transformer.text_model.embeddings.position_embedding.weight": "positional_embedding",
}  # fmt: skip
_TEXT_PATTERN = re.compile("|".join(re.escape(name) for name in sorted(_TEXT, key=len, reverse=True)))
_PROJECTION = "transformer.text_projection.weight"


def reshape_weight_for_sd(w, conv3d=False):
    """The matrix of a linear layer as the weight of a 1x1 convolution."""
    return w.reshape(*w.shape, *([1] * (3 if conv3d else 2)))


def convert_vae_state_dict(vae_state_dict):
    """The autoencoder's weights under the names of a checkpoint; its attention becomes 1x1 convolutions."""
    is_3d = any(key.endswith(".conv.weight") and t.ndim == 5 for key, t in vae_state_dict.items())
    out = {}
    for key, tensor in vae_state_dict.items():
        for pattern, name in _VAE:
            key = re.sub(pattern, name, key)
        is_matrix = re.search(r"mid\.attn_1\.(q|k|v|proj_out)\.weight$", key) and tensor.ndim == 2
        out[key] = reshape_weight_for_sd(tensor, is_3d) if is_matrix else tensor
    return out


def cat_tensors(tensors):
    """Tensors joined along the first side, of any dtype."""
    bytes_of = [tensor.contiguous().view(torch.uint8) if tensor.ndim else tensor for tensor in tensors]
    return torch.cat(bytes_of).view(tensors[0].dtype)


def convert_text_enc_state_dict_v20(text_enc_dict, prefix=""):
    """OpenCLIP's text encoder under its original names: q, k and v are one matrix.

    Raises:
        ModelFileError: of q, k and v of a layer one is missing.
    """
    out, split = {}, {}
    for key, tensor in text_enc_dict.items():
        found = re.match(r"(.*\.self_attn)\.([qkv])_proj\.(weight|bias)$", key)
        if not key.startswith(prefix):
            continue
        if found:
            split.setdefault((found[1], found[3]), {})[found[2]] = tensor
        elif key.endswith(_PROJECTION):
            out[key.replace(_PROJECTION, "text_projection")] = tensor.transpose(0, 1).contiguous()
        else:
            out[_original(key)] = tensor
    for (layer, leaf), parts in split.items():
        if len(parts) < 3:
            missing = ", ".join(sorted(set("qkv") - set(parts)))
            raise ModelFileError(
                f"The text encoder lacks {layer}.{missing}_proj.{leaf}. The file is damaged."
            )
        out[f"{_original(layer)}.in_proj_{leaf}"] = cat_tensors([parts[part] for part in "qkv"])
    return out


def _original(key: str) -> str:
    return _TEXT_PATTERN.sub(lambda found: _TEXT[found[0]], key)


def convert_text_enc_state_dict(text_enc_dict):
    """CLIP's names are the same in both layouts."""
    return text_enc_dict

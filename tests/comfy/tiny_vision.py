"""Tiny vision models of random weights: transformers' own, and their weights in the layouts of files."""

import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.comfy.tiny_sd1 import randomise

SIZES = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 2,
         "patch_size": 14, "image_size": 56}  # fmt: skip
INSIDE = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
ENDS = {
    "embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight", "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight", "post_layernorm.bias": "ln_post.bias",
}  # fmt: skip


def _half(model):
    for parameter in model.parameters():  # vision models are kept in half precision
        parameter.data = parameter.data.half().float()
    return model


def clip(seed=0, projection=48, **changes) -> CLIPVisionModelWithProjection:
    torch.manual_seed(seed)
    config = CLIPVisionConfig(**{**SIZES, **changes}, projection_dim=projection)
    return _half(randomise(CLIPVisionModelWithProjection(config)))


def siglip(seed=0, **changes) -> SiglipVisionModel:
    torch.manual_seed(seed)
    config = SiglipVisionConfig(**{**SIZES, "hidden_act": "gelu_pytorch_tanh", **changes})
    return _half(randomise(SiglipVisionModel(config)))


def siglip_weights(model) -> dict[str, torch.Tensor]:
    """As in the files that users have, the pooling head included."""
    named = {key.removeprefix("vision_model."): tensor for key, tensor in model.state_dict().items()}
    return {f"vision_model.{key}": tensor for key, tensor in named.items()}


def in_open_clip(model: CLIPVisionModelWithProjection, prefix="visual.") -> dict[str, torch.Tensor]:
    """The weights in OpenCLIP's layout, query, key and value in one, written out by hand."""
    weights = {key.removeprefix("vision_model."): t for key, t in model.state_dict().items()}
    out = {name: weights[key] for key, name in ENDS.items()}
    out["proj"] = weights["visual_projection.weight"].T.contiguous()
    for i in range(model.config.num_hidden_layers):
        old, new = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            for part, name in INSIDE.items():
                out[f"{new}{name}.{kind}"] = weights[f"{old}{part}.{kind}"]
            fused = [weights[f"{old}self_attn.{side}_proj.{kind}"] for side in "qkv"]
            out[f"{new}attn.in_proj_{kind}"] = torch.cat(fused)
    return {prefix + key: tensor for key, tensor in out.items()}


def pictures(seed=1, batch=2, height=70, width=91, channels=3) -> torch.Tensor:
    """Smooth pictures (B, H, W, C) in 0..1."""
    coarse = torch.rand(batch, channels, 7, 9, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return smooth.movedim(1, -1)

"""Flux.1 in diffusers' layout: the same family, whose file has the zoo's own names."""

from __future__ import annotations

import dataclasses

from comfy.families import flux
from comfy.families.base import StateDict, count_indices
from comfy.families.flux_model import MLP_RATIO, PATCH, FluxShape, axes_of

_TEXT = "time_text_embed.text_embedder.linear_1.weight"
_GUIDANCE = "time_text_embed.guidance_embedder.linear_1.weight"


def shape_of(weights: StateDict, prefix: str) -> FluxShape:
    """Read the hyper-parameters off the shapes of the weights below `prefix`."""
    hidden_size, patch_channels = weights[prefix + "x_embedder.weight"].shape
    head_width = weights[prefix + "transformer_blocks.0.attn.norm_k.weight"].shape[0]
    return FluxShape(
        in_channels=patch_channels // PATCH**2,
        out_channels=weights[prefix + "proj_out.weight"].shape[0] // PATCH**2,
        vec_in_dim=weights[prefix + _TEXT].shape[1],
        context_in_dim=weights[prefix + "context_embedder.weight"].shape[1],
        hidden_size=hidden_size,
        num_heads=hidden_size // head_width,
        depth=count_indices(weights, prefix + "transformer_blocks.{}."),
        depth_single_blocks=count_indices(weights, prefix + "single_transformer_blocks.{}."),
        axes_dim=axes_of(head_width),
        guidance_embed=prefix + _GUIDANCE in weights,
    )


def accepts(weights: StateDict, prefix: str) -> bool:
    """An MLP of four times the width, with biases, and no network of a picture that controls."""
    width = weights[prefix + "x_embedder.weight"].shape[0]
    mlp = prefix + "single_transformer_blocks.0.proj_mlp."
    is_control = prefix + "controlnet_x_embedder.weight" in weights
    return (
        weights[mlp + "weight"].shape[0] == MLP_RATIO * width and mlp + "bias" in weights and not is_control
    )


def config(weights: StateDict, prefix: str) -> flux.Flux:
    unet_config = shape_of(weights, prefix).as_unet_config()
    kinds = (flux.FluxInpaint, flux.Flux, flux.FluxSchnell)
    return next(kind for kind in kinds if kind.matches(unet_config))(unet_config)


FAMILY = dataclasses.replace(
    flux.FAMILY,
    keys=(
        "x_embedder.weight",
        "context_embedder.weight",
        _TEXT,
        "transformer_blocks.0.attn.add_q_proj.weight",
        "transformer_blocks.0.attn.norm_k.weight",
        "single_transformer_blocks.0.proj_mlp.weight",
        "norm_out.linear.weight",
        "proj_out.weight",
    ),
    accepts=accepts,
    config=config,
    config_classes={},
    text_encoders={},
)

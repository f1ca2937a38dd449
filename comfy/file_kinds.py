"""What a model file is, said in a few words: for errors about a file of another kind than was asked for."""

from __future__ import annotations

import comfy.families
from comfy.families import clip_image
from comfy.families.base import StateDict

# A key, or a part of one, that tells; the first that fits is said.
_MARKS = (
    ("redux_down.weight", "a style model for Flux (Redux)"),
    ("style_embedding", "a style adapter for SD1"),
    ("visual.transformer.resblocks", "a CLIP vision model"),
    ("vision_model.embeddings", "a CLIP vision model"),
    ("lora_", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("controlnet_", "a ControlNet"),
    ("position_net.", "a GLIGEN model"),
    ("text_model.encoder", "a CLIP text encoder"),
    ("encoder.block.0.layer.0.SelfAttention", "a T5 text encoder"),
    ("decoder.up.0", "a VAE"),
    ("decoder.up_blocks.0", "a VAE"),
)


def describe(weights: StateDict) -> str:
    """Such as "a LoRA", or how many tensors there are and what some are called."""
    found = comfy.families.recognise(weights)
    if found is not None:
        return f"a diffusion model ({found[0].name})"
    if clip_image.is_open_clip(weights, "") and "conv1.weight" in weights:
        return "a CLIP vision model"
    for mark, kind in _MARKS:
        if any(mark in key for key in weights):
            return kind
    names = ", ".join(f"'{name}'" for name in list(weights)[:3])
    return f"{len(weights)} tensors" + (f", such as {names}" if names else "")

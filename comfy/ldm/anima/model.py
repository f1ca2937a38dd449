"""Rotary positions of Anima's text adapter. The networks do not run here."""

from __future__ import annotations

import torch

from comfy.absent_families import absent_class, absent_classes
from comfy.ldm.cosmos.predict2 import MiniTrainDIT


def rotate_half(x):
    """The halves of the channels swapped, the new first one negated."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def apply_rotary_pos_emb(x, cos, sin, unsqueeze_dim=1):
    """x (B, heads, tokens, d) with the positions cos and sin (B, tokens, d)."""
    return x * cos.unsqueeze(unsqueeze_dim) + rotate_half(x) * sin.unsqueeze(unsqueeze_dim)


Anima = absent_class(__name__, "Anima", MiniTrainDIT)
globals().update(absent_classes(__name__, "RotaryEmbedding", "Attention", "TransformerBlock", "LLMAdapter"))

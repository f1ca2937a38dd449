"""Rotary positions of Qwen-Image. The network does not run here."""

from comfy.absent_families import absent_classes
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.flux.math import apply_rope1

__all__ = ["EmbedND", "apply_rope1", "apply_rotary_emb"]


def apply_rotary_emb(x, freqs_cis):
    """x (B, tokens, heads, d) turned by rotations (B, tokens, 1, d / 2, 2, 2); x alone without them."""
    if x.shape[1] == 0:
        return x
    return apply_rope1(x, freqs_cis)


globals().update(
    absent_classes(__name__, "GELU", "FeedForward", "QwenTimestepProjEmbeddings", "Attention",
                   "QwenImageTransformerBlock", "LastLayer", "QwenImageTransformer2DModel")
)  # fmt: skip

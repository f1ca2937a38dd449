"""HiDream, which does not run here."""

from comfy.absent_families import absent_classes
from comfy.ldm.flux.layers import EmbedND

__all__ = ["EmbedND"]

globals().update(
    absent_classes(__name__, "PatchEmbed", "PooledEmbed", "TimestepEmbed", "HiDreamAttnProcessor_flashattn",
                   "HiDreamAttention", "FeedForwardSwiGLU", "MoEGate", "MOEFeedForwardSwiGLU",
                   "TextProjection",
                   "HiDreamImageSingleTransformerBlock", "HiDreamImageTransformerBlock", "HiDreamImageBlock",
                   "HiDreamImageTransformer2DModel")
)  # fmt: skip


class BlockType:
    """The two kinds of blocks."""

    TransformerBlock = 1
    SingleTransformerBlock = 2

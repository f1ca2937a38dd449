"""Where packs of earlier days look for the text encoders of Stable Diffusion 3."""

from comfy.text_encoders.sd3_clip import (
    SD3ClipModel,
    SD3Tokenizer,
    T5XXLModel,
    T5XXLTokenizer,
    sd3_clip,
    t5_xxl_detect,
)

__all__ = ["SD3ClipModel", "SD3Tokenizer", "T5XXLModel", "T5XXLTokenizer", "sd3_clip", "t5_xxl_detect"]

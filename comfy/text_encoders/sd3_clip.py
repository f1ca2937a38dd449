"""T5 as a text encoder, under the names that packs import."""

from comfy.families.t5_text import T5XXLModel, T5XXLTokenizer

__all__ = ["T5XXLModel", "T5XXLTokenizer"]

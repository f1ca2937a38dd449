# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The text encoders of Flux.1: T5-XXL for the tokens, CLIP ViT-L for the pooled vector."""

from __future__ import annotations

import functools

import torch

import comfy.model_management
from comfy import scaled_weights
from comfy.families import t5_text
from comfy.mapped_memory import cast_weights
from comfy.sd1_clip import SDClipModel, SDTokenizer

CLIP_PREFIX, T5_PREFIX = "clip_l.transformer.", "t5xxl.transformer."


class T5XXLTokenizer(t5_text.T5XXLTokenizer):
    """Flux was trained with at least 256 tokens."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        super().__init__(embedding_directory, tokenizer_data, min_length=256)


class FluxTokenizer:
    """{"l": chunks of 77 tokens, "t5xxl": one chunk}."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        self.clip_l = SDTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)
        self.t5xxl = T5XXLTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids=False, **kwargs) -> dict:
        """Per text encoder: chunks of (token, weight), or (token, weight, word id)."""
        return {
            "l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs),
            "t5xxl": self.t5xxl.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, token_weight_pair) -> list:
        return self.clip_l.untokenize(token_weight_pair)

    def state_dict(self) -> dict:
        return {}


class FluxClipModel(torch.nn.Module):
    """`clip_l` and `t5xxl`; `config_l` and `config_t5` are for other sizes than the usual.

    T5 keeps its weights in `dtype_t5` where that is no larger than `dtype`, fp8 included.
    """

    def __init__(
        self, dtype_t5=None, device="cpu", dtype=None, model_options={}, config_l=None, config_t5=None
    ):  # fmt: skip
        super().__init__()
        self.dtype_t5 = comfy.model_management.pick_weight_dtype(dtype_t5, dtype, device)
        self.clip_l = SDClipModel(
            device=device, dtype=dtype, return_projected_pooled=False, textmodel_json_config=config_l,
            model_options={**model_options, "model_name": "clip_l"},
        )  # fmt: skip
        self.t5xxl = t5_text.T5XXLModel(
            device=device, dtype=self.dtype_t5, model_options=model_options, config=config_t5
        )
        self.dtypes = {dtype, self.dtype_t5}

    def set_clip_options(self, options: dict) -> None:
        for encoder in (self.clip_l, self.t5xxl):
            encoder.set_clip_options(options)

    def reset_clip_options(self) -> None:
        for encoder in (self.clip_l, self.t5xxl):
            encoder.reset_clip_options()

    def encode_token_weights(self, token_weight_pairs: dict):
        """(T5's tokens (1, tokens, 4096), CLIP's pooled vector (1, 768))."""
        tokens, _ = self.t5xxl.encode_token_weights(token_weight_pairs["t5xxl"])
        _, pooled = self.clip_l.encode_token_weights(token_weight_pairs["l"])
        return tokens, pooled

    def cast_weights(self, weights: dict, dtype) -> None:
        """Cast a file's weights, in place, to the dtypes that they are kept in; scaled fp8 stays as it is."""
        kept = scaled_weights.normalise_names(weights)
        clip = [key for key in weights if "text_model." in key]
        t5 = [key for key in weights if "text_model." not in key and key not in kept]
        cast_weights(weights, clip, dtype)
        cast_weights(weights, t5, self.dtype_t5)

    def load_sd(self, sd):
        """Take the weights of one encoder's own file."""
        clip = {key: tensor for key, tensor in sd.items() if key.startswith("text_model.")}
        return self.clip_l.load_sd(clip) if clip else self.t5xxl.load_sd(sd)

    def load_full_sd(self, sd) -> None:
        """Take the weights of both, named as in this module's own state dict."""
        for prefix in (CLIP_PREFIX, T5_PREFIX):
            self.load_sd({key[len(prefix) :]: tensor for key, tensor in sd.items() if key.startswith(prefix)})


def flux_clip(dtype_t5=None, t5_quantization_metadata=None):
    """`FluxClipModel` with T5's dtype given; how weights are quantised is read off the weights themselves."""
    return functools.partial(FluxClipModel, dtype_t5=dtype_t5)

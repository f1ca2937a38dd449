# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The text encoders of Stable Diffusion 3: CLIP ViT-L, OpenCLIP ViT-bigG and T5-XXL, each optional."""

from __future__ import annotations

import functools

import torch

import comfy.model_management
from comfy.families.t5_text import T5XXLModel, T5XXLTokenizer
from comfy.sd1_clip import SDClipModel, SDTokenizer
from comfy.sdxl_clip import SDXLClipG, SDXLClipGTokenizer

WIDTHS = {"l": 768, "g": 1280}
WIDTH = 4096  # of T5, and of what CLIP gives, filled with zeros

__all__ = ["SD3ClipModel", "SD3Tokenizer", "T5XXLModel", "T5XXLTokenizer", "sd3_clip", "t5_xxl_detect"]


def t5_xxl_detect(state_dict, prefix="") -> dict:
    """{"dtype_t5": ...} of a T5-XXL in `state_dict`; {} where there is none."""
    weight = state_dict.get(f"{prefix}encoder.final_layer_norm.weight")
    return {} if weight is None else {"dtype_t5": weight.dtype}


class SD3Tokenizer:
    """{"l", "g": chunks of 77 tokens, "t5xxl": one chunk of at least 77}."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        data = {"embedding_directory": embedding_directory, "tokenizer_data": tokenizer_data}
        self.clip_l = SDTokenizer(**data)
        self.clip_g = SDXLClipGTokenizer(**data)
        self.t5xxl = T5XXLTokenizer(**data)

    def tokenize_with_weights(self, text: str, return_word_ids=False, **kwargs) -> dict:
        """Per text encoder: chunks of (token, weight), or (token, weight, word id)."""
        tokenizers = {"l": self.clip_l, "g": self.clip_g, "t5xxl": self.t5xxl}
        return {
            name: tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)
            for name, tokenizer in tokenizers.items()
        }

    def untokenize(self, token_weight_pair) -> list:
        return self.clip_g.untokenize(token_weight_pair)

    def state_dict(self) -> dict:
        return {}


class SD3ClipModel(torch.nn.Module):
    """`clip_l`, `clip_g` and `t5xxl`, None where switched off; `configs` has other sizes by these names."""

    def __init__(
        self, clip_l=True, clip_g=True, t5=True, dtype_t5=None, t5_attention_mask=False, device="cpu",
        dtype=None, model_options={}, configs={},
    ):  # fmt: skip
        super().__init__()
        kind = {"device": device, "dtype": dtype, "model_options": model_options}
        self.dtypes = {dtype} if clip_l or clip_g else set()
        self.clip_l = self.clip_g = self.t5xxl = None
        if clip_l:
            self.clip_l = SDClipModel(
                layer="hidden", layer_idx=-2, layer_norm_hidden_state=False, return_projected_pooled=False,
                textmodel_json_config=configs.get("clip_l"),
                **{**kind, "model_options": {**model_options, "model_name": "clip_l"}},
            )  # fmt: skip
        if clip_g:
            self.clip_g = SDXLClipG(textmodel_json_config=configs.get("clip_g"), **kind)
        self.t5_attention_mask = t5_attention_mask
        if t5:
            dtype_t5 = comfy.model_management.pick_weight_dtype(dtype_t5, dtype, device)
            self.t5xxl = T5XXLModel(
                attention_mask=t5_attention_mask, config=configs.get("t5xxl"), **{**kind, "dtype": dtype_t5}
            )
            self.dtypes.add(dtype_t5)

    def _encoders(self):
        return [one for one in (self.clip_l, self.clip_g, self.t5xxl) if one is not None]

    def set_clip_options(self, options: dict) -> None:
        for encoder in self._encoders():
            encoder.set_clip_options(options)

    def reset_clip_options(self) -> None:
        for encoder in self._encoders():
            encoder.reset_clip_options()

    def encode_token_weights(self, token_weight_pairs: dict):
        """(tokens of CLIP, then of T5 (1, tokens, 4096); pooled (1, 2048); what else there is to tell).

        CLIP's two encoders stand side by side; what is missing is zeros.
        """
        device = comfy.model_management.intermediate_device()
        states, pooled = [None, None], []
        for index, (name, encoder) in enumerate((("l", self.clip_l), ("g", self.clip_g))):
            vector = None
            if encoder is not None and (token_weight_pairs["l"] or token_weight_pairs["g"]):
                states[index], vector = encoder.encode_token_weights(token_weight_pairs[name])
            pooled.append(torch.zeros(1, WIDTHS[name], device=device) if vector is None else vector)
        parts, extra = [], {}
        if any(state is not None for state in states):
            parts.append(self._side_by_side(*states))
        if self.t5xxl is not None:
            tokens, _, *told = self.t5xxl.encode_token_weights(token_weight_pairs["t5xxl"])
            parts.append(tokens)
            if self.t5_attention_mask:
                extra["attention_mask"] = told[0]["attention_mask"]
        out = torch.cat(parts, dim=-2) if parts else torch.zeros(1, 77, WIDTH, device=device)
        return out, torch.cat(pooled, dim=-1), extra

    @staticmethod
    def _side_by_side(left, right):
        """(1, tokens, 4096): as many tokens as both have, then zeros."""
        if left is None:
            left = right.new_zeros(*right.shape[:2], WIDTHS["l"])
        if right is not None:
            count = min(left.shape[1], right.shape[1])
            left = torch.cat([left[:, :count], right[:, :count]], dim=-1)
        return torch.nn.functional.pad(left, (0, WIDTH - left.shape[-1]))

    def load_sd(self, sd):
        """Take the weights of one encoder's own file, told apart by how many layers it has."""
        layer = "text_model.encoder.layers.{}.mlp.fc1.weight"
        if layer.format(30) in sd:
            return self.clip_g.load_sd(sd)
        return (self.clip_l if layer.format(1) in sd else self.t5xxl).load_sd(sd)


def sd3_clip(
    clip_l=True, clip_g=True, t5=True, dtype_t5=None, t5_quantization_metadata=None, t5_attention_mask=False
):
    """`SD3ClipModel` with its encoders given; how weights are quantised is read off the weights."""
    return functools.partial(
        SD3ClipModel,
        clip_l=clip_l,
        clip_g=clip_g,
        t5=t5,
        dtype_t5=dtype_t5,
        t5_attention_mask=t5_attention_mask,
    )

# ruff: noqa: B006 - defaults like upstream's; they are only read
"""SDXL's two text encoders: CLIP ViT-L and OpenCLIP ViT-bigG, both taken at the last layer but one.

Their hidden states, not normalised, stand side by side; the pooled output is bigG's, projected.
"""

from __future__ import annotations

import torch

from comfy.absent_families import absent_class
from comfy.clip_vocabulary import END_TOKEN, START_TOKEN
from comfy.errors import ModelFileError
from comfy.sd1_clip import SD1ClipModel, SDClipModel, SDTokenizer

PENULTIMATE = -2


class SDXLClipG(SDClipModel):
    """OpenCLIP ViT-bigG; `layer` "penultimate" is hidden layer -2."""

    def __init__(
        self, device="cpu", max_length=77, freeze=True, layer="penultimate", layer_idx=None, dtype=None,
        model_options={}, textmodel_json_config=None,
    ):  # fmt: skip
        from comfy.families.clip_text import CLIP_G

        if layer == "penultimate":
            layer, layer_idx = "hidden", PENULTIMATE
        super().__init__(
            device=device, max_length=max_length, freeze=freeze, layer=layer, layer_idx=layer_idx,
            textmodel_json_config=textmodel_json_config or CLIP_G, dtype=dtype, model_options=model_options,
            special_tokens={"start": START_TOKEN, "end": END_TOKEN, "pad": 0}, layer_norm_hidden_state=False,
        )  # fmt: skip

    def load_sd(self, sd):
        """Take the weights; the projection must be there, since the pooled output is what it makes."""
        if "text_projection.weight" not in sd:
            raise ModelFileError(
                "The text encoder (CLIP bigG) in this file lacks the weight text_projection.weight. "
                "The file is damaged or of an unsupported variant."
            )
        return super().load_sd(sd)


class SDXLClipGTokenizer(SDTokenizer):
    """CLIP's vocabulary, padded with token 0."""

    def __init__(self, tokenizer_path=None, embedding_directory=None, tokenizer_data={}):
        super().__init__(
            tokenizer_path, pad_with_end=False, embedding_directory=embedding_directory, embedding_size=1280,
            embedding_key="clip_g", tokenizer_data=tokenizer_data,
        )  # fmt: skip


class SDXLTokenizer:
    """{"g": chunks, "l": chunks} of a prompt; the refiner uses "g" alone."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        data = {"embedding_directory": embedding_directory, "tokenizer_data": tokenizer_data}
        self.clip_l = tokenizer_data.get("clip_l_tokenizer_class", SDTokenizer)(**data)
        self.clip_g = SDXLClipGTokenizer(**data)

    def tokenize_with_weights(self, text: str, return_word_ids=False, **kwargs) -> dict:
        return {
            "g": self.clip_g.tokenize_with_weights(text, return_word_ids, **kwargs),
            "l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, token_weight_pair) -> list:
        return self.clip_g.untokenize(token_weight_pair)

    def state_dict(self) -> dict:
        return {}


class SDXLClipModel(torch.nn.Module):
    """Both encoders; `configs` has their sizes by the names "clip_l" and "clip_g", full size by default."""

    def __init__(self, device="cpu", dtype=None, model_options={}, configs={}):
        super().__init__()
        self.clip_l = SDClipModel(
            device=device, dtype=dtype, layer="hidden", layer_idx=PENULTIMATE, layer_norm_hidden_state=False,
            textmodel_json_config=configs.get("clip_l"),
            model_options={**model_options, "model_name": "clip_l"},
        )  # fmt: skip
        self.clip_g = SDXLClipG(
            device=device, dtype=dtype, textmodel_json_config=configs.get("clip_g"),
            model_options={**model_options, "model_name": "clip_g"},
        )  # fmt: skip
        self.dtypes = {dtype} if dtype is not None else set()

    def set_clip_options(self, options: dict) -> None:
        self.clip_l.set_clip_options(options)
        self.clip_g.set_clip_options(options)

    def reset_clip_options(self) -> None:
        self.clip_l.reset_clip_options()
        self.clip_g.reset_clip_options()

    def encode_token_weights(self, token_weight_pairs: dict):
        """(conditioning (1, tokens, width of L + width of G), pooled (1, width of G's projection))."""
        g, pooled = self.clip_g.encode_token_weights(token_weight_pairs["g"])
        l, _ = self.clip_l.encode_token_weights(token_weight_pairs["l"])  # noqa: E741 - the encoder's name
        length = min(l.shape[1], g.shape[1])
        return torch.cat((l[:, :length], g[:, :length]), dim=-1), pooled

    def load_sd(self, sd):
        """Take the weights of one encoder: bigG's where they have its depth and width, else L's."""
        config = self.clip_g.transformer.text_model.config
        last = f"text_model.encoder.layers.{config.num_hidden_layers - 1}.mlp.fc1.weight"
        is_g = last in sd and sd[last].shape == (config.intermediate_size, config.hidden_size)
        return (self.clip_g if is_g else self.clip_l).load_sd(sd)

    def load_full_sd(self, sd) -> None:
        """Take the weights of both, named as in this module's own state dict."""
        for name in ("clip_l", "clip_g"):
            prefix = f"{name}.transformer."
            own = {key[len(prefix) :]: tensor for key, tensor in sd.items() if key.startswith(prefix)}
            getattr(self, name).load_sd(own)


class SDXLRefinerClipModel(SD1ClipModel):
    """The refiner's text encoder: bigG alone."""

    def __init__(self, device="cpu", dtype=None, model_options={}, **kwargs):
        super().__init__(
            device=device, dtype=dtype, model_options=model_options, clip_name="g", clip_model=SDXLClipG,
            **kwargs,
        )  # fmt: skip


StableCascadeClipModel = absent_class(__name__, "StableCascadeClipModel", SD1ClipModel)

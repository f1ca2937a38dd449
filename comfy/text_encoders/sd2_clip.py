# ruff: noqa: B006 - defaults like upstream's; they are only read
"""SD2's text encoder, OpenCLIP ViT-H/14: the last layer but one, normalised; padding is token 0."""

from __future__ import annotations

from comfy.clip_vocabulary import END_TOKEN, START_TOKEN
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer


class SD2ClipHModel(SDClipModel):
    """The encoder; `layer` "penultimate" is hidden layer -2."""

    def __init__(
        self, arch="ViT-H-14", device="cpu", max_length=77, freeze=True, layer="penultimate", layer_idx=None,
        dtype=None, model_options={}, textmodel_json_config=None,
    ):  # fmt: skip
        from comfy.families.clip_text import CLIP_H

        if layer == "penultimate":
            layer, layer_idx = "hidden", -2
        super().__init__(
            device=device, max_length=max_length, freeze=freeze, layer=layer, layer_idx=layer_idx,
            textmodel_json_config=textmodel_json_config or CLIP_H, dtype=dtype, model_options=model_options,
            special_tokens={"start": START_TOKEN, "end": END_TOKEN, "pad": 0},
        )  # fmt: skip


class SD2ClipHTokenizer(SDTokenizer):
    """CLIP's vocabulary, padded with token 0."""

    def __init__(self, tokenizer_path=None, embedding_directory=None, tokenizer_data={}):
        super().__init__(
            tokenizer_path, pad_with_end=False, embedding_directory=embedding_directory, embedding_size=1024,
            embedding_key="clip_h", tokenizer_data=tokenizer_data,
        )  # fmt: skip


class SD2Tokenizer(SD1Tokenizer):
    """{"h": chunks} of a prompt."""

    def __init__(self, embedding_directory=None, tokenizer_data={}):
        super().__init__(embedding_directory, tokenizer_data, clip_name="h", tokenizer=SD2ClipHTokenizer)


class SD2ClipModel(SD1ClipModel):
    """The text encoder of a model; `clip_h` is it."""

    def __init__(self, device="cpu", dtype=None, model_options={}, **kwargs):
        super().__init__(
            device=device, dtype=dtype, model_options=model_options, clip_name="h", clip_model=SD2ClipHModel,
            **kwargs,
        )  # fmt: skip

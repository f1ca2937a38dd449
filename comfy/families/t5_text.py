# ruff: noqa: B006 - defaults like upstream's; they are only read
"""T5's encoder from transformers, as a text encoder: any size, weights of any dtype, arithmetic in fp32."""

from __future__ import annotations

import torch
from transformers import T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense, T5LayerNorm

import comfy.ops
from comfy import scaled_weights
from comfy.families.base import StateDict, count_indices, load_exactly
from comfy.sd1_clip import SDClipModel, SDTokenizer
from comfy.tokenizer_files import TokenizerFile, tokenizer_file

# Google's T5 v1.1 XXL, the text encoder of Flux.1 and SD3.
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "gated-gelu",
}
PAD_TOKEN, END_TOKEN = 0, 1


def config_of(weights: StateDict, prefix: str = "") -> dict:
    """The configuration as the shapes have it."""
    block = prefix + "encoder.block.0.layer."
    buckets, heads = weights[block + "0.SelfAttention.relative_attention_bias.weight"].shape
    is_gated = block + "1.DenseReluDense.wi_0.weight" in weights
    vocabulary, width = weights[prefix + "shared.weight"].shape
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": weights[block + "0.SelfAttention.q.weight"].shape[0] // heads,
        "d_ff": weights[block + f"1.DenseReluDense.{'wi_0' if is_gated else 'wi'}.weight"].shape[0],
        "num_layers": count_indices(weights, prefix + "encoder.block.{}."),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if is_gated else "relu",
    }


# transformers casts what passes through these to the dtype of their weights, which would be fp16 or fp8.


class _LayerNorm(T5LayerNorm):
    def forward(self, x):
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.variance_epsilon)


class _Gated(T5DenseGatedActDense):
    def forward(self, x):
        return self.wo(self.act(self.wi_0(x)) * self.wi_1(x))


class _Plain(T5DenseActDense):
    def forward(self, x):
        return self.wo(self.act(self.wi(x)))


_UNCAST = {T5LayerNorm: _LayerNorm, T5DenseGatedActDense: _Gated, T5DenseActDense: _Plain}


class T5(T5EncoderModel):
    """Weights are named as in files: shared.weight, encoder.block.0.layer.0.SelfAttention.q.weight, ..."""

    dtype = None  # of the weights; transformers' own property could not be set

    def __init__(self, config_dict: dict, dtype=None, device=None, operations=None):
        super().__init__(T5Config(**config_dict, is_encoder_decoder=False, dropout_rate=0.0))
        self.encoder.embed_tokens = None  # the same table as `shared`
        for part in self.modules():
            part.__class__ = _UNCAST.get(type(part), type(part))
        comfy.ops.cast_on_use(self)
        self.num_layers = self.config.num_layers
        self.dtype = dtype

    def get_input_embeddings(self):
        return self.shared

    def set_input_embeddings(self, embeddings) -> None:
        self.shared = embeddings

    def load_weights(self, weights: StateDict) -> None:
        """Take the encoder's weights; those of a decoder, and the table's second name, are left out."""
        used = {
            key: tensor
            for key, tensor in weights.items()
            if key.startswith(("shared.", "encoder.")) and key != "encoder.embed_tokens.weight"
        }
        scaled_weights.make_room(self, used)
        load_exactly(self, used, what="text encoder (T5)")

    def forward(
        self, input_tokens, attention_mask=None, embeds=None, num_tokens=None, intermediate_output=None,
        final_layer_norm_intermediate=True, dtype=torch.float32, **_unused,
    ):  # fmt: skip
        """(last layer, chosen layer or None, None, None); states (B, tokens, width). T5 pools nothing."""
        x = embeds if embeds is not None else self.shared(input_tokens)
        x = x.to(dtype)
        attention = self.encoder.block[0].layer[0].SelfAttention
        bias = attention.compute_bias(x.shape[1], x.shape[1], device=x.device).to(x.dtype)
        if attention_mask is not None:
            hidden = (attention_mask == 0)[:, None, None, :]
            bias = bias.masked_fill(hidden, torch.finfo(x.dtype).min)
        chosen = None
        layers = len(self.encoder.block)
        for index, block in enumerate(self.encoder.block):
            x = block(x, position_bias=bias)[0]
            if isinstance(intermediate_output, int) and intermediate_output % layers == index:
                chosen = x
        if chosen is not None and final_layer_norm_intermediate:
            chosen = self.encoder.final_layer_norm(chosen)
        return self.encoder.final_layer_norm(x), chosen, None, None


class T5XXLModel(SDClipModel):
    """T5's encoder as one of a model's text encoders; `config` is for other sizes than XXL."""

    def __init__(
        self, device="cpu", layer="last", layer_idx=None, dtype=None, attention_mask=False,
        model_options={}, config=None,
    ):  # fmt: skip
        super().__init__(
            device=device, layer=layer, layer_idx=layer_idx, dtype=dtype,
            textmodel_json_config=T5_XXL if config is None else config, model_class=T5,
            special_tokens={"end": END_TOKEN, "pad": PAD_TOKEN}, enable_attention_masks=attention_mask,
            return_attention_masks=attention_mask,
            model_options={**model_options, "model_name": "t5xxl"},
        )  # fmt: skip


class T5XXLTokenizer(SDTokenizer):
    """Chunks of any length, filled to `min_length` with padding tokens."""

    def __init__(
        self, embedding_directory=None, tokenizer_data={}, min_length=77, max_length=99999999
    ):  # fmt: skip
        super().__init__(
            tokenizer_file("t5/tokenizer.json"), max_length=max_length, pad_with_end=False,
            embedding_directory=embedding_directory, embedding_size=4096, embedding_key="t5xxl",
            tokenizer_class=TokenizerFile, has_start_token=False, pad_to_max_length=False,
            min_length=min_length, tokenizer_data=tokenizer_data,
        )  # fmt: skip

# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Language models from transformers as text encoders: Qwen2.5, Qwen3, and others with the same names.

Any size: the configuration is read off the shapes. Weights keep the file's dtype, fp8 included; the
arithmetic is fp32. A family says which language model, which of its layers is taken, and the template that
is put around the prompt:

    target(weights, prefix, QWEN3, name="qwen3_4b", template="<|im_start|>user\n{}<|im_end|>\n", ...)
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import comfy.model_management
import comfy.ops
from comfy import scaled_weights
from comfy.families.base import StateDict, count_indices, load_exactly
from comfy.mapped_memory import cast_weights
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.tokenizer_files import TokenizerFile, tokenizer_file


@dataclass(frozen=True)
class LanguageModel:
    """Which class of transformers, what no shape tells, and the vocabulary's file."""

    package: str  # of transformers.models
    name: str  # "Qwen3": classes Qwen3Config and Qwen3Model
    vocabulary: str
    pad_token: int
    head_dim: int = 128  # where no norm of a head tells
    numbers: Mapping[str, Any] = field(default_factory=dict)


QWEN25 = LanguageModel("qwen2", "Qwen2", "qwen2.5/tokenizer.json", 151643, 128,
                       {"rms_norm_eps": 1e-6, "rope_theta": 1e6})  # fmt: skip
QWEN3 = LanguageModel("qwen3", "Qwen3", "qwen2.5/tokenizer.json", 151643, 128,
                      {"rms_norm_eps": 1e-6, "rope_theta": 1e6})  # fmt: skip

EMBEDDING = "model.embed_tokens.weight"


def config_of(weights: StateDict, prefix: str, kind: LanguageModel) -> dict:
    """The configuration as the shapes have it."""
    vocabulary, width = weights[prefix + EMBEDDING].shape
    layer = prefix + "model.layers.0."
    norm = weights.get(layer + "self_attn.q_norm.weight")
    head = kind.head_dim if norm is None else norm.shape[0]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights[layer + "mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": count_indices(weights, prefix + "model.layers.{}."),
        "num_attention_heads": weights[layer + "self_attn.q_proj.weight"].shape[0] // head,
        "num_key_value_heads": weights[layer + "self_attn.k_proj.weight"].shape[0] // head,
        "head_dim": head,
    }


class _Norm(torch.nn.Module):
    """In place of transformers' norms, whose product with an fp8 weight has no dtype."""

    weight: torch.Tensor
    variance_epsilon: float

    def forward(self, x):
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.variance_epsilon)


class LanguageModelText(torch.nn.Module):
    """Weights are named as in files: model.embed_tokens.weight, model.layers.0.mlp.up_proj.weight, ..."""

    def __init__(self, config: dict, dtype=None, device=None, operations=None, *, kind: LanguageModel):
        super().__init__()
        module = importlib.import_module(f"transformers.models.{kind.package}")
        numbers = dict(kind.numbers)
        rope = {"rope_type": "default", "rope_theta": numbers.pop("rope_theta")}
        given = {**numbers, **config, "rope_parameters": rope, "use_cache": False, "pad_token_id": None}
        self.model = getattr(module, f"{kind.name}Model")(getattr(module, f"{kind.name}Config")(**given))
        for part in self.modules():
            part.__class__ = _Norm if hasattr(part, "variance_epsilon") else type(part)
        comfy.ops.cast_on_use(self)
        self.num_layers = self.model.config.num_hidden_layers
        self.dtype = dtype

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def load_weights(self, weights: StateDict) -> None:
        """Take the weights; those of the head that would write text, and of a picture encoder, are left out.

        Raises:
            ModelFileError: a weight is missing or of a wrong shape.
        """
        used = {key: tensor for key, tensor in weights.items() if key.startswith("model.")}
        used = {key: tensor for key, tensor in used.items() if not key.startswith("model.visual.")}
        scaled_weights.make_room(self, used)
        load_exactly(self, used, what=f"text encoder ({type(self.model).__name__.removesuffix('Model')})")
        with torch.device("cpu"):  # its frequencies are computed, not loaded, and were so far on no device
            self.model.rotary_emb = type(self.model.rotary_emb)(self.model.config)

    def forward(
        self, input_tokens, attention_mask=None, embeds=None, num_tokens=None, intermediate_output=None,
        final_layer_norm_intermediate=True, dtype=torch.float32, **_unused,
    ):  # fmt: skip
        """(last layer, chosen layer or None, None, None); states (B, tokens, width)."""
        x = embeds if embeds is not None else self.model.embed_tokens(input_tokens)
        wants_layer = isinstance(intermediate_output, int)
        out = self.model(
            inputs_embeds=x.to(dtype), attention_mask=attention_mask, output_hidden_states=wants_layer
        )
        chosen = None
        if wants_layer:
            index = intermediate_output % self.num_layers
            is_last = index == self.num_layers - 1  # transformers gives this one behind the last norm
            chosen = out.last_hidden_state if is_last else out.hidden_states[index + 1]
            if final_layer_norm_intermediate and not is_last:
                chosen = self.model.norm(chosen)
        return out.last_hidden_state, chosen, None, None


class _TextEncoder(SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options={}, *, kind, config, layer, layer_idx):
        super().__init__(
            device=device, dtype=dtype, layer=layer, layer_idx=layer_idx, textmodel_json_config=config,
            model_class=functools.partial(LanguageModelText, kind=kind),
            special_tokens={"pad": kind.pad_token}, layer_norm_hidden_state=False,
            enable_attention_masks=True, return_attention_masks=True, model_options=model_options,
        )  # fmt: skip


class LanguageModelClip(SD1ClipModel):
    """A model's only text encoder, kept in the dtype of its file where that is no larger than `dtype`."""

    def __init__(self, device="cpu", dtype=None, model_options={}, *, dtype_llm=None, name, **encoder):
        self.kept_dtype = comfy.model_management.pick_weight_dtype(dtype_llm, dtype, device)
        super().__init__(
            device=device, dtype=self.kept_dtype, model_options=model_options, name=name,
            clip_model=functools.partial(_TextEncoder, **encoder),
        )  # fmt: skip

    def cast_weights(self, weights: dict, dtype) -> None:
        """Cast a file's weights, in place; fp8 with scales stays as it is."""
        kept = scaled_weights.normalise_names(weights)
        cast_weights(weights, [key for key in weights if key not in kept], self.kept_dtype)


class _Tokenizer(SDTokenizer):
    def __init__(self, embedding_directory=None, tokenizer_data={}, *, kind, width, name):
        super().__init__(
            tokenizer_file(kind.vocabulary), pad_with_end=False, embedding_directory=embedding_directory,
            embedding_size=width, embedding_key=name, tokenizer_class=TokenizerFile, has_start_token=False,
            has_end_token=False, pad_to_max_length=False, max_length=99999999, min_length=1,
            pad_token=kind.pad_token, tokenizer_data=tokenizer_data,
        )  # fmt: skip


class TemplateTokenizer(SD1Tokenizer):
    """Puts a prompt into a template; language models know no weights of words, so parentheses are text."""

    def __init__(self, embedding_directory=None, tokenizer_data={}, *, kind, width, name, template):
        self.llama_template = template
        make = functools.partial(_Tokenizer, kind=kind, width=width, name=name)
        super().__init__(embedding_directory, tokenizer_data, name=name, tokenizer=make)

    def tokenize_with_weights(self, text: str, return_word_ids=False, llama_template=None, **kwargs) -> dict:
        template = self.llama_template if llama_template is None else llama_template
        kwargs["disable_weights"] = True
        return super().tokenize_with_weights(template.replace("{}", text, 1), return_word_ids, **kwargs)


def target(
    weights: StateDict, prefix: str, kind: LanguageModel, *, name: str, template: str, layer="last",
    layer_idx=None,
) -> ClipTarget:  # fmt: skip
    """The text encoder for the weights below `prefix`; layer "hidden" with index -2 is the last but one.

    `name` is what files call it: `text_encoders.<name>.transformer.` in checkpoints.
    """
    config = config_of(weights, prefix, kind)
    tokenizer = functools.partial(
        TemplateTokenizer, kind=kind, width=config["hidden_size"], name=name, template=template
    )
    params = {
        "name": name, "kind": kind, "config": config, "layer": layer, "layer_idx": layer_idx,
        "dtype_llm": weights[prefix + "model.norm.weight"].dtype,  # never scaled: the dtype of the others
    }  # fmt: skip
    return ClipTarget(tokenizer, LanguageModelClip, params)

"""CLIP's text model from transformers, called layer by layer so that any layer's output can be taken."""

from __future__ import annotations

import torch
from transformers import CLIPTextConfig, CLIPTextModel

import comfy.ops
from comfy.clip_vocabulary import END_TOKEN, START_TOKEN
from comfy.errors import ModelFileError
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly

# The text encoder of SD1.x: OpenAI's CLIP ViT-L/14.
CLIP_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
# OpenCLIP ViT-H/14 (SD2) and ViT-bigG/14 (SDXL), as their text halves are.
CLIP_H = {
    **CLIP_L, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "hidden_act": "gelu",
}  # fmt: skip
CLIP_G = {
    **CLIP_H, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 20,
}  # fmt: skip
HEAD_WIDTH = 64
PROJECTION = "text_projection.weight"


def config_of(weights: StateDict, prefix: str, hidden_act: str = "quick_gelu") -> dict:
    """The configuration as the shapes have it. Heads leave no trace there: they have 64 channels.

    Raises:
        ModelFileError: a weight that tells a size is missing.
    """
    for key in ("embeddings.token_embedding", "embeddings.position_embedding", "encoder.layers.0.mlp.fc1"):
        if f"{prefix}{key}.weight" not in weights:
            raise ModelFileError(
                f"The text encoder (CLIP) in this file lacks the weight {prefix}{key}.weight. "
                "The file is damaged or of an unsupported variant."
            )
    vocabulary, width = weights[prefix + "embeddings.token_embedding.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights[prefix + "encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": count_indices(weights, prefix + "encoder.layers.{}."),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": weights[prefix + "embeddings.position_embedding.weight"].shape[0],
        "hidden_act": hidden_act,
    }


def number_of_layers(weights: StateDict) -> int:
    """Of weights that are named `text_model...`; 0 where they are no CLIP text encoder."""
    return count_indices(weights, "text_model.encoder.layers.{}.")


def kind_of(weights: StateDict) -> str:
    """ "l", "h" or "g" by the depth of a CLIP text encoder from its own file, "" for anything else."""
    layers = number_of_layers(weights)
    return next(kind for least, kind in ((31, "g"), (23, "h"), (1, "l"), (0, "")) if layers >= least)


class ClipTextModel(torch.nn.Module):
    """`text_model` is transformers' module, so weights are named as in checkpoints: text_model.encoder...

    `text_projection` is there when the weights bring one.
    """

    def __init__(self, config_dict: dict, dtype=None, device=None, operations=None):
        super().__init__()
        config = CLIPTextConfig(
            **config_dict, bos_token_id=START_TOKEN, eos_token_id=END_TOKEN, pad_token_id=END_TOKEN
        )
        self.num_layers = config.num_hidden_layers
        self.text_model = comfy.ops.cast_on_use(CLIPTextModel(config))
        self.text_projection: torch.nn.Module | None = None
        self.dtype = dtype

    def get_input_embeddings(self):
        return self.text_model.embeddings.token_embedding

    def set_input_embeddings(self, embeddings) -> None:
        self.text_model.embeddings.token_embedding = embeddings

    def load_weights(self, weights: StateDict) -> None:
        """Take the weights below the checkpoint's `transformer.`, without what is no part of the model."""
        skipped = ("text_model.embeddings.position_ids", "logit_scale")
        used = {key: tensor for key, tensor in weights.items() if key not in skipped}
        if PROJECTION in used:
            width_out, width = used[PROJECTION].shape
            linear = comfy.ops.manual_cast.Linear
            self.text_projection = build_empty(lambda: linear(width, width_out, bias=False))
        load_exactly(self, used, what="text encoder (CLIP)")
        embeddings = self.text_model.embeddings
        # Not part of a checkpoint, so a model built without memory has none yet.
        embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings).unsqueeze(0)

    def forward(
        self, input_tokens, attention_mask=None, embeds=None, num_tokens=None, intermediate_output=None,
        final_layer_norm_intermediate=True, dtype=torch.float32, **_unused,
    ):  # fmt: skip
        """(last layer, chosen layer or None, projected pooled, pooled); states (B, tokens, width).

        `intermediate_output` counts layers from the end when negative; "all" and lists give (B, layers, ...).
        """
        embeddings = self.text_model.embeddings
        x = embeds if embeds is not None else embeddings.token_embedding(input_tokens).to(dtype)
        x = x + embeddings.position_embedding.weight[: x.shape[1]].to(device=x.device, dtype=x.dtype)
        mask = None if attention_mask is None else _causal_mask(attention_mask, x)
        states = []
        for layer in self.text_model.encoder.layers:
            x = layer(x, mask, is_causal=mask is None)
            states.append(x)
        last = self.text_model.final_layer_norm(x)
        chosen = self._chosen(states, intermediate_output)
        if chosen is not None and final_layer_norm_intermediate:
            chosen = self.text_model.final_layer_norm(chosen)
        ends = torch.tensor([count - 1 for count in num_tokens], device=x.device)
        pooled = last[torch.arange(len(last), device=x.device), ends]
        projected = pooled if self.text_projection is None else self.text_projection(pooled)
        return last, chosen, projected, pooled

    @staticmethod
    def _chosen(states: list[torch.Tensor], which):
        if which is None:
            return None
        if which == "all" or isinstance(which, list):
            return torch.stack([states[i] for i in (which if which != "all" else range(len(states)))], dim=1)
        return states[which]


def _causal_mask(attention_mask: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Additive mask (B, 1, tokens, tokens): nothing looks ahead, nothing looks at padding."""
    length = x.shape[1]
    hidden = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    hidden = hidden | (attention_mask == 0)[:, None, None, :]
    return torch.zeros(hidden.shape, dtype=x.dtype, device=x.device).masked_fill(
        hidden, torch.finfo(x.dtype).min
    )

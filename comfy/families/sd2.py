# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Stable Diffusion 2.x: UNet with 64 channels per head, OpenCLIP ViT-H text encoder, KL autoencoder.

Every size of the architecture loads, for eps and for v prediction, and for inpainting (9 input channels).
Checkpoints in the original layout: the text encoder is OpenCLIP's, below `cond_stage_model.model.`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import comfy.latent_formats
import comfy.model_base
import comfy.utils
from comfy.families import clip_text, ldm_unet, open_clip_text
from comfy.families.base import Family, StateDict, count_indices
from comfy.families.ldm_config import PREFIXES, UNET_KEYS, LDMConfig, has_usual_inputs
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer

TEXT_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
# Deviation of a bias near the output above which a network was trained on velocity: files do not say.
V_PREDICTION_DEVIATION = 0.09


class SD20(LDMConfig):
    """Names, numbers and conversions of SD2.x; the defaults are those of the full size."""

    unet_config = {
        "context_dim": 1024, "model_channels": 320, "use_linear_in_transformer": True,
        "adm_in_channels": None, "use_temporal_attention": False,
    }  # fmt: skip
    latent_format = comfy.latent_formats.SD15
    memory_usage_factor = 1.0

    def model_type(self, state_dict, prefix=""):
        types = comfy.model_base.ModelType
        return types.V_PREDICTION if predicts_velocity(state_dict, prefix) else types.EPS

    def process_clip_state_dict(self, state_dict):
        """Take the text encoder's weights out, named from `clip_h.` on."""
        prefixes = dict.fromkeys(TEXT_PREFIXES, "")
        weights = comfy.utils.state_dict_prefix_replace(state_dict, prefixes, filter_keys=True)
        named = open_clip_text.to_transformers(weights)
        return {f"clip_h.transformer.{key}": tensor for key, tensor in named.items()}

    def process_clip_state_dict_for_saving(self, state_dict):
        prefix = "clip_h.transformer."
        weights = {key.removeprefix(prefix): tensor for key, tensor in state_dict.items()}
        named = open_clip_text.to_open_clip(weights)
        return {TEXT_PREFIXES[0] + key: tensor for key, tensor in named.items()}

    def clip_target(self, state_dict={}):
        for prefix in TEXT_PREFIXES:
            own = {key[len(prefix) :]: t for key, t in state_dict.items() if key.startswith(prefix)}
            if open_clip_text.is_open_clip(own):
                return text_target(open_clip_text.to_transformers(own))
        return None


def text_target(weights: StateDict) -> ClipTarget:
    """Tokenizer and encoder for a ViT-H's weights, named `text_model...`."""
    config = clip_text.config_of(weights, "text_model.", hidden_act="gelu")
    tokenizer = functools.partial(_tokenizer, width=config["hidden_size"])
    return ClipTarget(tokenizer, SD2ClipModel, params={"textmodel_json_config": config})


def text_files(files: Sequence[StateDict]) -> ClipTarget | None:
    """A ViT-H alone."""
    if [clip_text.kind_of(weights) for weights in files] != ["h"]:
        return None
    return text_target(files[0])


def _tokenizer(embedding_directory=None, tokenizer_data={}, *, width=1024):
    return SD2Tokenizer(embedding_directory, {**tokenizer_data, "clip_h_embedding_size": width})


def predicts_velocity(weights: StateDict, prefix: str) -> bool:
    """Does the file say so, or does the last block look trained that way? Inpainting models predict noise."""
    if weights[prefix + "input_blocks.0.0.weight"].shape[1] != 4:
        return False
    last = count_indices(weights, prefix + "output_blocks.{}.") - 1
    bias = weights.get(f"{prefix}output_blocks.{last}.1.transformer_blocks.0.norm1.bias")
    looks_so = bias is not None and bias.float().std(unbiased=False).item() > V_PREDICTION_DEVIATION
    return "v_pred" in weights or looks_so


def accepts(weights: StateDict, prefix: str) -> bool:
    """Attention enters by a matrix (SD1: a convolution), and there is no vector or label conditioning."""
    return (
        weights[prefix + "middle_block.1.proj_in.weight"].ndim == 2
        and not any(prefix + key in weights for key in ("label_emb.0.0.weight", "label_emb.weight"))
        and prefix + "input_blocks.1.0.emb_layers.1.weight" in weights
        and has_usual_inputs(weights, prefix)
    )


def config(weights: StateDict, prefix: str) -> SD20:
    return SD20(ldm_unet.shape_of(weights, prefix).as_unet_config())


FAMILY = Family(
    name="Stable Diffusion 2.x",
    prefixes=PREFIXES,
    keys=UNET_KEYS,
    accepts=accepts,
    config=config,
    config_classes={"SD20": SD20},
    text_encoders={"stable_diffusion": text_files},
)

# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Stable Diffusion 1.x: UNet with 8 heads per attention, CLIP ViT-L text encoder, KL autoencoder.

Every size of the architecture loads: the configuration is read off the shapes. Checkpoints in the original
layout (`model.diffusion_model.`, `first_stage_model.`, `cond_stage_model.transformer.text_model.`),
variants for inpainting (9 input channels) included.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import comfy.latent_formats
import comfy.utils
from comfy.families import clip_text, ldm_unet
from comfy.families.base import Family, StateDict
from comfy.families.ldm_config import PREFIXES, UNET_KEYS, LDMConfig
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.supported_models_base import ClipTarget

TEXT_PREFIX = "cond_stage_model.transformer."


class SD15(LDMConfig):
    """Names, numbers and conversions of SD1.x; the defaults are those of the full size."""

    unet_config = {
        "context_dim": 768, "model_channels": 320, "use_linear_in_transformer": False,
        "adm_in_channels": None, "use_temporal_attention": False,
    }  # fmt: skip
    unet_extra_config = {"num_heads": 8, "num_head_channels": -1}
    latent_format = comfy.latent_formats.SD15
    memory_usage_factor = 1.0

    def process_clip_state_dict(self, state_dict):
        """Take the text encoder's weights out, named from `clip_l.` on; old files lack the `text_model.`."""
        weights = comfy.utils.state_dict_prefix_replace(
            state_dict, {"cond_stage_model.": ""}, filter_keys=True
        )
        return {_clip_name(key): tensor for key, tensor in weights.items() if key.startswith("transformer.")}

    def process_clip_state_dict_for_saving(self, state_dict):
        return {
            key.replace("clip_l.", "cond_stage_model.", 1): tensor
            for key, tensor in state_dict.items()
            if not key.endswith(clip_text.PROJECTION)  # of a text encoder from its own file
        }

    def clip_target(self, state_dict={}):
        config = text_config(state_dict)
        return None if config is None else _target(config)


def text_files(files: Sequence[StateDict]) -> ClipTarget | None:
    """A ViT-L alone."""
    if [clip_text.kind_of(weights) for weights in files] != ["l"]:
        return None
    return _target(clip_text.config_of(files[0], "text_model."))


def _target(config: dict) -> ClipTarget:
    tokenizer = functools.partial(_tokenizer, width=config["hidden_size"])
    return ClipTarget(tokenizer, SD1ClipModel, params={"textmodel_json_config": config})


def _clip_name(key: str) -> str:
    inside = key[len("transformer.") :]
    return f"clip_l.transformer.{inside if inside.startswith('text_') else 'text_model.' + inside}"


def text_config(weights: StateDict) -> dict | None:
    """Configuration of the text encoder in a checkpoint; None where there is none."""
    for prefix in (TEXT_PREFIX + "text_model.", TEXT_PREFIX):
        if prefix + "embeddings.token_embedding.weight" in weights:
            return clip_text.config_of(weights, prefix)
    return None


def _tokenizer(embedding_directory=None, tokenizer_data={}, *, width=768):
    return SD1Tokenizer(embedding_directory, {**tokenizer_data, "clip_l_embedding_size": width})


def accepts(weights: StateDict, prefix: str) -> bool:
    """Attention enters by a 1x1 convolution (SD2 and SDXL: a matrix), and there is no vector conditioning."""
    return (
        weights[prefix + "middle_block.1.proj_in.weight"].ndim == 4
        and prefix + "label_emb.0.0.weight" not in weights
        and prefix + "input_blocks.1.0.emb_layers.1.weight" in weights
    )


def config(weights: StateDict, prefix: str) -> SD15:
    return SD15(ldm_unet.shape_of(weights, prefix).as_unet_config())


FAMILY = Family(
    name="Stable Diffusion 1.x",
    prefixes=PREFIXES,
    keys=UNET_KEYS,
    accepts=accepts,
    config=config,
    config_classes={"SD15": SD15},
    text_encoders={"stable_diffusion": text_files},
)

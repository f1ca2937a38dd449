# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Flux.1: a rectified flow transformer with T5-XXL and CLIP-L, and an autoencoder of 16 channels.

Every size of the architecture loads: the configuration is read off the shapes. Files in the original layout,
with the diffusion model alone or with all parts (`model.diffusion_model.`, `text_encoders.`, `vae.`); dev has
`guidance_in`, schnell has not; Fill takes 384 channels per token, Kontext is dev with reference pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

import comfy.latent_formats
import comfy.model_base
from comfy.errors import ModelFileError
from comfy.families import clip_text, flux_model, ldm_vae, t5_text
from comfy.families.base import Family, StateDict
from comfy.supported_models_base import BASE, ClipTarget
from comfy.text_encoders import flux as flux_text

TEXT_PREFIX = "text_encoders."
CLIP_KEY = "text_model.embeddings.token_embedding.weight"
T5_KEY = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


class Flux(BASE):
    """Names, numbers and conversions of Flux.1 dev."""

    unet_config = {"image_model": "flux", "guidance_embed": True}
    unet_extra_config: dict = {}
    latent_format = comfy.latent_formats.Flux
    context_width = "context_in_dim"
    text_encoder = "CLIP-L and T5-XXL (DualCLIPLoader, type flux)"
    memory_usage_factor = 3.1
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    vae_key_prefix = ["vae."]
    text_encoder_key_prefix = [TEXT_PREFIX]

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.FLUX

    def get_model(self, state_dict, prefix="", device=None):
        return comfy.model_base.Flux(
            self,
            model_type=self.model_type(state_dict, prefix),
            device=device,
            unet_model=flux_model.FluxModel.empty,
        )

    def make_vae(self, state_dict: StateDict):
        return ldm_vae.LDMVAE.from_weights(state_dict)

    def process_vae_state_dict_for_saving(self, state_dict):
        return super().process_vae_state_dict_for_saving(ldm_vae.checkpoint_weights(state_dict))

    def clip_target(self, state_dict={}):
        prefixes = (TEXT_PREFIX + flux_text.CLIP_PREFIX, TEXT_PREFIX + flux_text.T5_PREFIX)
        if any(prefix + key not in state_dict for prefix, key in zip(prefixes, (CLIP_KEY, T5_KEY))):
            return None
        return _clip_target((state_dict, prefixes[0]), (state_dict, prefixes[1]))


class FluxInpaint(Flux):
    """Fill: takes the masked picture and the mask besides the noise."""

    unet_config = {"image_model": "flux", "guidance_embed": True, "in_channels": 96}
    supported_inference_dtypes = [torch.bfloat16, torch.float32]


class FluxSchnell(Flux):
    """Distilled to few steps: no guidance, and noise levels without a shift."""

    unet_config = {"image_model": "flux", "guidance_embed": False}
    sampling_settings = {"multiplier": 1.0, "shift": 1.0}

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.FLOW


def _clip_target(clip: tuple[StateDict, str], t5: tuple[StateDict, str]) -> ClipTarget:
    """What to build for the weights of both encoders, each with the prefix of its names."""
    config_l = clip_text.config_of(clip[0], clip[1] + "text_model.")
    config_t5 = t5_text.config_of(*t5)
    tokenizer = functools.partial(_tokenizer, width_l=config_l["hidden_size"], width_t5=config_t5["d_model"])
    norm = t5[0][t5[1] + "encoder.final_layer_norm.weight"]  # never scaled: the dtype of the file's weights
    params = {"config_l": config_l, "config_t5": config_t5, "dtype_t5": norm.dtype}
    return ClipTarget(tokenizer, flux_text.FluxClipModel, params)


def _tokenizer(embedding_directory=None, tokenizer_data={}, *, width_l=768, width_t5=4096):
    sizes = {"clip_l_embedding_size": width_l, "t5xxl_embedding_size": width_t5}
    return flux_text.FluxTokenizer(embedding_directory, {**tokenizer_data, **sizes})


def text_encoders(files: Sequence[StateDict]) -> ClipTarget:
    """For the weights of a CLIP-L file and a T5-XXL file, in any order."""
    clip = next((weights for weights in files if CLIP_KEY in weights), None)
    t5 = next((weights for weights in files if T5_KEY in weights), None)
    missing = [name for name, found in (("CLIP-L", clip), ("T5-XXL", t5)) if found is None]
    if clip is None or t5 is None:
        raise ModelFileError(
            f"Flux needs the files of two text encoders, CLIP-L and T5-XXL; {' and '.join(missing)} is not "
            f"among the {len(files)} that were chosen. Choose, say, clip_l.safetensors and "
            "t5xxl_fp16.safetensors."
        )
    return _clip_target((clip, ""), (t5, ""))


def accepts(weights: StateDict, prefix: str) -> bool:
    """Fused q, k, v and an MLP of four times the width, with biases (others of this layout have none)."""
    width = weights[prefix + "img_in.weight"].shape[0]
    single = prefix + "single_blocks.0.linear1."
    return (
        weights[prefix + "double_blocks.0.img_attn.qkv.weight"].shape[0] == 3 * width
        and weights[single + "weight"].shape[0] == (3 + flux_model.MLP_RATIO) * width
        and single + "bias" in weights
        and prefix + "distilled_guidance_layer.norms.0.scale" not in weights
    )


def config(weights: StateDict, prefix: str) -> Flux:
    unet_config = flux_model.shape_of(weights, prefix).as_unet_config()
    kind = next(kind for kind in (FluxInpaint, Flux, FluxSchnell) if kind.matches(unet_config))
    return kind(unet_config)


FAMILY = Family(
    name="Flux.1",
    prefixes=("model.diffusion_model.", "", "diffusion_model."),
    keys=(
        "img_in.weight",
        "txt_in.weight",
        "vector_in.in_layer.weight",
        "double_blocks.0.img_attn.qkv.weight",
        "double_blocks.0.img_attn.norm.key_norm.scale",
        "single_blocks.0.linear1.weight",
        "final_layer.linear.weight",
    ),
    accepts=accepts,
    config=config,
    config_classes={"FluxInpaint": FluxInpaint, "Flux": Flux, "FluxSchnell": FluxSchnell},
    text_encoders={"flux": text_encoders},
)

# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Stable Diffusion XL, base and refiner: a UNet that also takes a vector (pooled prompt and picture sizes).

The base has two text encoders, CLIP ViT-L and OpenCLIP ViT-bigG, the refiner bigG alone. Every size of the
architecture loads, for inpainting (9 input channels) too, with the predictions that tensors beside the
weights tell of: `v_pred` with `ztsnr`, `edm_vpred.sigma_max`, `edm_mean` and `edm_std`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import comfy.latent_formats
import comfy.model_base
import comfy.utils
from comfy.families import clip_text, ldm_unet, open_clip_text
from comfy.families.base import Family, StateDict
from comfy.families.ldm_config import MARKERS, PREFIXES, UNET_KEYS, LDMConfig, has_usual_inputs
from comfy.model_base import SIZE_EMBEDDING, ModelType
from comfy.sdxl_clip import SDXLClipModel, SDXLRefinerClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget

LABEL_KEY = "label_emb.0.0.weight"  # (4 * model_channels, width of the vector)
CLIP_PREFIX = "transformer."  # before the names of the ViT-L in a checkpoint
REFINER_NUMBERS = 5  # of the vector; the base has 6


class _SDXLConfig(LDMConfig):
    """Conversions of base and refiner; `text_encoders` is the place of each encoder in a checkpoint."""

    latent_format = comfy.latent_formats.SDXL
    text_encoders: dict[str, str] = {}

    def process_clip_state_dict(self, state_dict):
        """Take the text encoders' weights out, named from `clip_l.` and `clip_g.` on."""
        out = {}
        for name, prefix in self.text_encoders.items():
            own = comfy.utils.state_dict_prefix_replace(state_dict, {prefix: ""}, filter_keys=True)
            out.update({f"{name}.transformer.{key}": tensor for key, tensor in _named(name, own).items()})
        return out

    def process_clip_state_dict_for_saving(self, state_dict):
        out = {}
        for name, prefix in self.text_encoders.items():
            own = _below(state_dict, f"{name}.transformer.")
            if name == "clip_g":
                own = open_clip_text.to_open_clip(own)
            else:  # its projection is no part of the family
                own = {CLIP_PREFIX + key: t for key, t in own.items() if key != clip_text.PROJECTION}
            out.update({prefix + key: tensor for key, tensor in own.items()})
        return out

    def text_configs(self, state_dict: StateDict) -> dict[str, dict]:
        """Configurations of the text encoders that are in a checkpoint."""
        parts = {name: _below(state_dict, prefix) for name, prefix in self.text_encoders.items()}
        named = {name: _named(name, weights) for name, weights in parts.items()}
        return {name: text_config(name, weights) for name, weights in named.items() if weights}


class SDXLRefiner(_SDXLConfig):
    """The refiner; the defaults are those of the full size."""

    unet_config = {
        "model_channels": 384, "use_linear_in_transformer": True, "context_dim": 1280,
        "adm_in_channels": 2560, "transformer_depth": (0, 4, 4, 0), "use_temporal_attention": False,
    }  # fmt: skip
    memory_usage_factor = 1.0
    model_class = comfy.model_base.SDXLRefiner
    text_encoders = {"clip_g": "conditioner.embedders.0.model."}

    def clip_target(self, state_dict={}):
        configs = self.text_configs(state_dict)
        return refiner_target(configs["clip_g"]) if configs else None


class SDXL(_SDXLConfig):
    """The base; the defaults are those of the full size."""

    unet_config = {
        "model_channels": 320, "use_linear_in_transformer": True, "transformer_depth": (0, 2, 10),
        "context_dim": 2048, "adm_in_channels": 2816, "use_temporal_attention": False,
    }  # fmt: skip
    memory_usage_factor = 0.8
    model_class = comfy.model_base.SDXL
    markers: dict = {}
    text_encoders = {"clip_l": "conditioner.embedders.0.", "clip_g": "conditioner.embedders.1.model."}

    def model_type(self, state_dict, prefix=""):
        """What the tensors beside the weights say; they are kept for saving."""
        self.markers = {key: state_dict[key] for key in MARKERS if key in state_dict}
        if {"edm_mean", "edm_std"} <= self.markers.keys():
            self.latent_format = comfy.latent_formats.SDXL_Playground_2_5()
            self.sampling_settings.update(sigma_data=0.5, sigma_max=80.0, sigma_min=0.002)
            return ModelType.EDM
        if "edm_vpred.sigma_max" in self.markers:
            for name in ("sigma_max", "sigma_min"):
                if f"edm_vpred.{name}" in self.markers:
                    self.sampling_settings[name] = float(self.markers[f"edm_vpred.{name}"])
            return ModelType.V_PREDICTION_EDM
        if "v_pred" not in self.markers:
            return ModelType.EPS
        if "ztsnr" in self.markers:
            self.sampling_settings["zsnr"] = True
        return ModelType.V_PREDICTION

    def process_unet_state_dict_for_saving(self, state_dict):
        return {**super().process_unet_state_dict_for_saving(state_dict), **self.markers}

    def clip_target(self, state_dict={}):
        configs = self.text_configs(state_dict)
        return base_target(configs) if configs else None


def _below(weights: StateDict, prefix: str) -> dict:
    return {key[len(prefix) :]: tensor for key, tensor in weights.items() if key.startswith(prefix)}


def _named(name: str, weights: StateDict) -> dict:
    """The weights of one text encoder of a checkpoint under transformers' names."""
    return open_clip_text.to_transformers(weights) if name == "clip_g" else _below(weights, CLIP_PREFIX)


def text_config(name: str, weights: StateDict) -> dict:
    """Configuration of the encoder "clip_l" or "clip_g" with these weights, named `text_model...`."""
    act = "gelu" if name == "clip_g" else "quick_gelu"
    return clip_text.config_of(weights, "text_model.", hidden_act=act)


def base_target(configs: dict[str, dict]) -> ClipTarget:
    """Tokenizers and both encoders with these configurations; one that is missing is of full size."""
    return ClipTarget(_tokenizer_for(configs), SDXLClipModel, params={"configs": configs})


def refiner_target(config_g: dict) -> ClipTarget:
    """Tokenizer and encoder of the refiner."""
    tokenizer = _tokenizer_for({"clip_g": config_g})
    return ClipTarget(tokenizer, SDXLRefinerClipModel, params={"textmodel_json_config": config_g})


def text_files(files: Sequence[StateDict]) -> ClipTarget | None:
    """A ViT-bigG alone, or a ViT-L and a bigG: the deeper one, so that small ones load too."""
    depths = [clip_text.number_of_layers(weights) for weights in files]
    if 0 in depths:
        return None
    if len(files) == 1 and clip_text.kind_of(files[0]) == "g":
        return refiner_target(text_config("clip_g", files[0]))
    if len(files) == 2 and depths[0] != depths[1]:
        shallow, deep = sorted(files, key=clip_text.number_of_layers)
        return base_target({"clip_l": text_config("clip_l", shallow), "clip_g": text_config("clip_g", deep)})
    return None


def _tokenizer_for(configs: dict[str, dict]):
    return functools.partial(
        _tokenizer, widths={f"{name}_embedding_size": text["hidden_size"] for name, text in configs.items()}
    )


def _tokenizer(embedding_directory=None, tokenizer_data={}, *, widths):
    return SDXLTokenizer(embedding_directory, {**tokenizer_data, **widths})


def accepts(weights: StateDict, prefix: str) -> bool:
    """A vector wide enough for the sizes, and no attention in the first level (unCLIP models of SD2 have)."""
    return (
        weights[prefix + "middle_block.1.proj_in.weight"].ndim == 2
        and weights[prefix + LABEL_KEY].shape[1] > REFINER_NUMBERS * SIZE_EMBEDDING
        and prefix + "input_blocks.1.1.proj_in.weight" not in weights
        and prefix + "input_blocks.1.0.emb_layers.1.weight" in weights
        and has_usual_inputs(weights, prefix)
    )


def config(weights: StateDict, prefix: str) -> SDXL | SDXLRefiner:
    """The refiner pools what its context is made of, so that its vector is as wide plus the numbers."""
    shape = ldm_unet.shape_of(weights, prefix)
    is_refiner = shape.adm_in_channels == shape.context_dim + REFINER_NUMBERS * SIZE_EMBEDDING
    return (SDXLRefiner if is_refiner else SDXL)(shape.as_unet_config())


FAMILY = Family(
    name="Stable Diffusion XL",
    prefixes=PREFIXES,
    keys=(*UNET_KEYS, LABEL_KEY),
    accepts=accepts,
    config=config,
    config_classes={"SDXLRefiner": SDXLRefiner, "SDXL": SDXL},
    text_encoders={"stable_diffusion": text_files},
)

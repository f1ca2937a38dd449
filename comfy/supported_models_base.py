# ruff: noqa: B006 - defaults like upstream's; they are only read
"""What a model family says about itself, under the names that packs read: the base of every config class."""

from __future__ import annotations

import torch

import comfy.latent_formats
import comfy.model_base
import comfy.utils
from comfy import lora_names


class ClipTarget:
    """Which tokenizer and which text encoder to build; `params` are passed to the encoder."""

    def __init__(self, tokenizer, clip, params=None):
        self.tokenizer = tokenizer
        self.clip = clip
        self.params = dict(params or {})


class BASE:
    """Subclassed by each family. `unet_config` of the class is the full size, of an instance the file's."""

    unet_config: dict = {}
    unet_extra_config: dict = {"num_heads": -1, "num_head_channels": 64}
    required_keys: dict = {}
    clip_prefix: list = []
    clip_vision_prefix = None
    noise_aug_config = None
    sampling_settings: dict = {}
    latent_format = comfy.latent_formats.LatentFormat
    vae_key_prefix = ["first_stage_model."]
    text_encoder_key_prefix = ["cond_stage_model."]
    supported_inference_dtypes = [torch.float16, torch.bfloat16, torch.float32]
    memory_usage_factor = 2.0
    manual_cast_dtype = None
    custom_operations = None
    quant_config = None
    optimizations: dict = {"fp8": False}

    def __init__(self, unet_config: dict):
        self.unet_config = {**unet_config, **self.unet_extra_config}
        self.sampling_settings = dict(self.sampling_settings)
        self.optimizations = dict(self.optimizations)
        self.latent_format = self.latent_format()

    @classmethod
    def matches(cls, unet_config: dict, state_dict=None) -> bool:
        """Does a `unet_config` have this family's numbers, and a state dict its required keys?"""
        same = all(key in unet_config and unet_config[key] == value for key, value in cls.unet_config.items())
        return same and (state_dict is None or all(key in state_dict for key in cls.required_keys))

    def model_type(self, state_dict, prefix=""):
        """What the network predicts."""
        return comfy.model_base.ModelType.EPS

    def inpaint_model(self) -> bool:
        return self.unet_config["in_channels"] > self.latent_format.latent_channels

    def get_model(self, state_dict, prefix="", device=None):
        """The BaseModel, without weights yet."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its model is built.")

    def make_vae(self, state_dict):
        """The VAE module for weights named without their prefix."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its VAE is built.")

    def clip_target(self, state_dict={}):
        """The text encoders of a checkpoint; None where it has none."""
        return

    def lora_names(self, network) -> lora_names.Names:
        """Which weight of `network` each layer of a LoRA file is; a network may have names of its own."""
        own = getattr(network, "lora_names", None)
        return lora_names.of_network(network.state_dict()) if own is None else own()

    def set_inference_dtype(self, dtype, manual_cast_dtype) -> None:
        self.unet_config["dtype"] = dtype
        self.manual_cast_dtype = manual_cast_dtype

    # --- from a file's names to the model's, and back for saving ---

    def process_unet_state_dict(self, state_dict):
        return state_dict

    def process_vae_state_dict(self, state_dict):
        return state_dict

    def process_clip_state_dict(self, state_dict):
        prefixes = dict.fromkeys(self.text_encoder_key_prefix, "")
        return comfy.utils.state_dict_prefix_replace(state_dict, prefixes, filter_keys=True)

    def _with_prefix(self, state_dict, prefix: str):
        return comfy.utils.state_dict_prefix_replace(state_dict, {"": prefix}, filter_keys=True)

    def process_unet_state_dict_for_saving(self, state_dict):
        return self._with_prefix(state_dict, "model.diffusion_model.")

    def process_vae_state_dict_for_saving(self, state_dict):
        return self._with_prefix(state_dict, self.vae_key_prefix[0])

    def process_clip_state_dict_for_saving(self, state_dict):
        return self._with_prefix(state_dict, self.text_encoder_key_prefix[0])

    def process_clip_vision_state_dict_for_saving(self, state_dict):
        return self._with_prefix(state_dict, self.clip_vision_prefix or "")

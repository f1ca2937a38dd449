# ruff: noqa: B006 - defaults like upstream's; they are only read
"""What families with a transformer of the zoo, a language model and Flux's autoencoder have in common."""

from __future__ import annotations

import comfy.latent_formats
import comfy.model_base
from comfy.families import ldm_vae
from comfy.families.base import StateDict
from comfy.families.zoo_model import ZooTransformer
from comfy.supported_models_base import BASE


class FlowConfig(BASE):
    """A rectified flow in latents of Flux's autoencoder; a family sets what is annotated, and its numbers."""

    network: type[ZooTransformer]
    context_width: str  # the entry of unet_config that is the width of a prompt
    text_encoder: str  # for errors: what to encode prompts with, and how it is loaded
    base_model: type[comfy.model_base.BaseModel] = comfy.model_base.PromptModel

    unet_extra_config: dict = {}
    latent_format = comfy.latent_formats.Flux
    vae_key_prefix = ["vae."]
    text_encoder_key_prefix = ["text_encoders."]

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.FLOW

    def get_model(self, state_dict, prefix="", device=None):
        kind = self.model_type(state_dict, prefix)
        return self.base_model(self, kind, device=device, unet_model=self.network.empty)

    def make_vae(self, state_dict: StateDict):
        return ldm_vae.LDMVAE.from_weights(state_dict)

    def process_vae_state_dict_for_saving(self, state_dict):
        return super().process_vae_state_dict_for_saving(ldm_vae.checkpoint_weights(state_dict))

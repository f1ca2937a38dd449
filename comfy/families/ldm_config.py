"""What the config classes of SD1, SD2 and SDXL share: the UNet, the VAE, and their names in a checkpoint."""

from __future__ import annotations

from comfy import model_base
from comfy.families import ldm_unet, ldm_vae
from comfy.families.base import StateDict
from comfy.supported_models_base import BASE

PREFIXES = ("model.diffusion_model.", "", "diffusion_model.")
UNET_KEYS = (
    "input_blocks.0.0.weight",
    "time_embed.0.weight",
    "middle_block.0.in_layers.0.weight",
    "middle_block.1.proj_in.weight",
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    "out.2.weight",
)
# Tensors beside the weights that say how the network is sampled.
MARKERS = ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min", "edm_mean", "edm_std")


def has_usual_inputs(weights: StateDict, prefix: str) -> bool:
    """4 channels of noise, for inpainting with a mask and 4 of the masked picture; others are variants."""
    return weights[prefix + "input_blocks.0.0.weight"].shape[1] in (4, 9)


class LDMConfig(BASE):
    """A UNet and a KL autoencoder in the original layout; `model_class` is the model that holds the UNet."""

    model_class = model_base.BaseModel

    def get_model(self, state_dict, prefix="", device=None):
        model = self.model_class(
            self,
            model_type=self.model_type(state_dict, prefix),
            device=device,
            unet_model=ldm_unet.LDMUNet.empty,
        )
        if self.inpaint_model():
            model.set_inpaint()
        return model

    def make_vae(self, state_dict: StateDict):
        return ldm_vae.LDMVAE.from_weights(state_dict)

    def process_unet_state_dict(self, state_dict):
        return {key: tensor for key, tensor in state_dict.items() if key not in MARKERS}

    def process_unet_state_dict_for_saving(self, state_dict):
        names = ldm_unet.checkpoint_names(state_dict, self.unet_config)
        return {f"model.diffusion_model.{names[key]}": tensor for key, tensor in state_dict.items()}

    def process_vae_state_dict_for_saving(self, state_dict):
        renamed = ldm_vae.checkpoint_weights(state_dict)
        return {f"first_stage_model.{key}": tensor for key, tensor in renamed.items()}

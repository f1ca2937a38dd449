"""Stable Diffusion 2.1 unCLIP: SD2 whose UNet also takes the CLIP vector of a picture.

The vision model stands in the same checkpoint, in OpenCLIP's layout below `embedder.model.visual.`: ViT-H
(vectors of 1024 numbers) or ViT-L (768). `noise_augmentor.data_mean` and `data_std` are used where they are.
"""

from __future__ import annotations

import comfy.model_base
from comfy.families import ldm_unet
from comfy.families.base import Family, StateDict
from comfy.families.ldm_config import PREFIXES, UNET_KEYS, has_usual_inputs
from comfy.families.sd2 import SD20

LABEL_KEY = "label_emb.0.0.weight"  # (4 * model_channels, 2 * width of the picture's vector)
MEAN, DEVIATION = "noise_augmentor.data_mean", "noise_augmentor.data_std"


class SD21UnclipH(SD20):
    """With the vectors of ViT-H; the defaults are those of the full size."""

    unet_config = {**SD20.unet_config, "adm_in_channels": 2048}
    clip_vision_prefix = "embedder.model.visual."

    def __init__(self, unet_config: dict):
        super().__init__(unet_config)
        schedule = {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
        width = self.unet_config["adm_in_channels"] // 2
        self.noise_aug_config = {"noise_schedule_config": schedule, "timestep_dim": width}
        self.statistics: dict = {}  # of the vectors, where the file has them

    def get_model(self, state_dict, prefix="", device=None):
        model = comfy.model_base.SD21UNCLIP(
            self,
            self.noise_aug_config,
            model_type=self.model_type(state_dict, prefix),
            device=device,
            unet_model=ldm_unet.LDMUNet.empty,
        )
        if MEAN in state_dict and DEVIATION in state_dict:
            self.statistics = {key: state_dict[key] for key in (MEAN, DEVIATION)}
            model.noise_augmentor.set_statistics(*self.statistics.values())
        return model

    def process_unet_state_dict_for_saving(self, state_dict):
        return {**super().process_unet_state_dict_for_saving(state_dict), **self.statistics}


class SD21UnclipL(SD21UnclipH):
    """With the vectors of ViT-L."""

    unet_config = {**SD20.unet_config, "adm_in_channels": 1536}


def accepts(weights: StateDict, prefix: str) -> bool:
    """Attention enters by a matrix, also in the first level (SDXL has none there), and there is a vector."""
    return (
        weights[prefix + "middle_block.1.proj_in.weight"].ndim == 2
        and weights[prefix + LABEL_KEY].shape[1] % 2 == 0
        and prefix + "input_blocks.1.1.proj_in.weight" in weights
        and prefix + "input_blocks.1.0.emb_layers.1.weight" in weights
        and has_usual_inputs(weights, prefix)
    )


def config(weights: StateDict, prefix: str) -> SD21UnclipH:
    shape = ldm_unet.shape_of(weights, prefix)
    kind = SD21UnclipL if shape.adm_in_channels == SD21UnclipL.unet_config["adm_in_channels"] else SD21UnclipH
    return kind(shape.as_unet_config())


FAMILY = Family(
    name="Stable Diffusion 2.1 unCLIP",
    prefixes=PREFIXES,
    keys=(*UNET_KEYS, LABEL_KEY),
    accepts=accepts,
    config=config,
    config_classes={"SD21UnclipL": SD21UnclipL, "SD21UnclipH": SD21UnclipH},
)

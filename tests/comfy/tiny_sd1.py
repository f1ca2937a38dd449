"""A tiny SD1.x checkpoint of random weights, in the layout that ComfyUI's users have."""

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from comfy.families import ldm_unet, ldm_vae
from comfy.families.clip_text import CLIP_L

UNET = {
    "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": (1, 2),
    "num_res_blocks": (1, 1),
    "transformer_depth": (1, 0), "transformer_depth_middle": 1, "context_dim": 64,
    "use_linear_in_transformer": False, "adm_in_channels": None,
}  # fmt: skip
VAE = ldm_vae.VAEShape(channels=(32, 32, 64), layers_per_block=1, latent_channels=4)
TEXT = {
    **CLIP_L,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 1,
}


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Weights that keep the size of what passes through, so that outputs are neither constant nor huge."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval().requires_grad_(False)


def tiny_unet(**changes) -> ldm_unet.LDMUNet:
    return randomise(ldm_unet.LDMUNet(**{**UNET, **changes}))


def tiny_vae() -> ldm_vae.LDMVAE:
    return randomise(ldm_vae.LDMVAE(VAE))


def tiny_text_encoder() -> CLIPTextModel:
    model = randomise(CLIPTextModel(CLIPTextConfig(**TEXT, bos_token_id=49406, eos_token_id=49407)))
    for parameter in model.parameters():  # text encoders are kept in half precision
        parameter.data = parameter.data.half().float()
    return model


def unet_weights(unet: ldm_unet.LDMUNet, config: dict = UNET) -> dict[str, torch.Tensor]:
    weights = unet.state_dict()
    names = ldm_unet.checkpoint_names(weights, config)
    return {f"model.diffusion_model.{names[key]}": tensor for key, tensor in weights.items()}


def vae_weights(vae: ldm_vae.LDMVAE) -> dict[str, torch.Tensor]:
    renamed = ldm_vae.checkpoint_weights(vae.state_dict())
    return {f"first_stage_model.{key}": tensor for key, tensor in renamed.items()}


def text_weights(text: CLIPTextModel) -> dict[str, torch.Tensor]:
    return {f"cond_stage_model.transformer.text_model.{key}": t for key, t in text.state_dict().items()}


def checkpoint(seed: int = 0, **unet_changes) -> dict[str, torch.Tensor]:
    """All weights of a checkpoint, by the names of the file."""
    torch.manual_seed(seed)
    unet, vae, text = tiny_unet(**unet_changes), tiny_vae(), tiny_text_encoder()
    weights = {**unet_weights(unet, {**UNET, **unet_changes}), **vae_weights(vae), **text_weights(text)}
    return {key: tensor.contiguous() for key, tensor in weights.items()}

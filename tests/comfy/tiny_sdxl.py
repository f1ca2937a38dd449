"""Tiny SD2 and SDXL checkpoints of random weights, with transformers' text encoders as their reference."""

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from comfy.families.clip_text import CLIP_G, CLIP_L
from tests.comfy import tiny_sd1

BASE = {
    **tiny_sd1.UNET, "model_channels": 64, "transformer_depth": (0, 2), "transformer_depth_middle": 2,
    "context_dim": 192, "use_linear_in_transformer": True, "adm_in_channels": 96 + 6 * 256,
}  # fmt: skip
REFINER = {
    **BASE, "channel_mult": (1, 2, 2), "num_res_blocks": (1, 1, 1), "transformer_depth": (0, 1, 0),
    "context_dim": 128, "adm_in_channels": 128 + 5 * 256,
}  # fmt: skip
SD2 = {
    **tiny_sd1.UNET, "model_channels": 64, "context_dim": 128, "use_linear_in_transformer": True,
}  # fmt: skip
HEADS = {"num_heads": -1, "num_head_channels": 64}
SIZE_L = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 1}
SIZE_G = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 2}


def text_encoder(projection_dim: int, *, layers: int | None = None, open_clip: bool = True):
    """transformers' model with weights that fit into half precision; OpenCLIP's sizes and GELU, or CLIP's."""
    sizes = {**CLIP_G, **SIZE_G} if open_clip else {**CLIP_L, **SIZE_L}
    sizes["num_hidden_layers"] = layers or sizes["num_hidden_layers"]
    config = CLIPTextConfig(**sizes, projection_dim=projection_dim, bos_token_id=49406, eos_token_id=49407)
    model = tiny_sd1.randomise(CLIPTextModelWithProjection(config))
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model


def in_open_clip(model: CLIPTextModelWithProjection) -> dict[str, torch.Tensor]:
    """The model's weights as OpenCLIP names and fuses them, written down apart from the converter."""
    text = model.text_model
    out = {
        "positional_embedding": text.embeddings.position_embedding.weight,
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "ln_final.weight": text.final_layer_norm.weight,
        "ln_final.bias": text.final_layer_norm.bias,
        "text_projection": model.text_projection.weight.T.contiguous(),
    }
    for number, layer in enumerate(text.encoder.layers):
        attention = layer.self_attn
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        own = {
            "attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "attn.in_proj_bias": torch.cat([part.bias for part in parts]),
        }
        named = {
            "ln_1": layer.layer_norm1, "ln_2": layer.layer_norm2, "attn.out_proj": attention.out_proj,
            "mlp.c_fc": layer.mlp.fc1, "mlp.c_proj": layer.mlp.fc2,
        }  # fmt: skip
        for name, part in named.items():
            own.update({f"{name}.weight": part.weight, f"{name}.bias": part.bias})
        out.update({f"transformer.resblocks.{number}.{name}": tensor for name, tensor in own.items()})
    return {key: tensor.detach() for key, tensor in out.items()}


def below(prefix: str, weights: dict) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in weights.items()}


def unet_weights(config: dict) -> dict[str, torch.Tensor]:
    """A random UNet of this size below `model.diffusion_model.`."""
    return tiny_sd1.unet_weights(tiny_sd1.tiny_unet(**{**config, **HEADS}), config)


def checkpoint(config: dict, text: dict[str, dict], seed: int = 0) -> dict[str, torch.Tensor]:
    """UNet, VAE, and the text encoders' weights by the prefix of each."""
    torch.manual_seed(seed)
    weights = {**unet_weights(config), **tiny_sd1.vae_weights(tiny_sd1.tiny_vae())}
    for prefix, own in text.items():
        weights.update(below(prefix, own))
    return {key: tensor.contiguous() for key, tensor in weights.items()}


def tokens_of(clip, name: str, text: str) -> torch.Tensor:
    """Token numbers (chunks, 77) that one text encoder gets."""
    return torch.tensor([[token for token, *_ in chunk] for chunk in clip.tokenize(text)[name]])

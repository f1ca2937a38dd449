"""Whole pictures are those of diffusers' pipelines for the same weights, prompts, noise and steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
from tests.comfy import tiny_sd1, tiny_sdxl

SIZE, CFG, SEED = 64, 4.0, 42
STEPS = 4  # 999 / 3 is whole: noise levels lie on whole timesteps, between which the programs interpolate
BOUND = 2 / 255


def zoos_unet(module, **sizes) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(layers_per_block=1, **sizes).eval()
    unet.load_state_dict(module.state_dict())
    return unet


def zoos_vae(module, **numbers) -> AutoencoderKL:
    shape = module.shape
    levels = len(shape.channels)
    vae = AutoencoderKL(
        block_out_channels=shape.channels, layers_per_block=1, latent_channels=shape.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        use_quant_conv=shape.has_quant_conv, use_post_quant_conv=shape.has_quant_conv, **numbers,
    ).eval()  # fmt: skip
    vae.load_state_dict(module.state_dict())
    return vae


def euler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )


def load(tmp_path: Path, weights: dict):
    path = tmp_path / "model.safetensors"
    comfy.utils.save_torch_file({key: tensor.contiguous() for key, tensor in weights.items()}, str(path))
    return comfy.sd.load_checkpoint_guess_config(str(path))[:3]


def ours(model, clip, vae):
    """(noise, the picture (H, W, 3)) of a KSampler."""
    empty = torch.zeros(1, 4, SIZE // 8, SIZE // 8)
    noise = comfy.sample.prepare_noise(empty, SEED)
    sides = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red cat", "rain")]
    latent = comfy.sample.sample(
        model, noise, STEPS, CFG, "euler", "normal", *sides, empty, disable_pbar=True, seed=SEED
    )
    picture = vae.decode(latent)[0].numpy()
    assert picture.std() > 0.05, "a picture that is no plain colour"
    return noise, picture


@torch.no_grad()
def test_stable_diffusion(tmp_path):
    torch.manual_seed(0)
    unet, vae, text = tiny_sd1.tiny_unet(), tiny_sd1.tiny_vae(), tiny_sd1.tiny_text_encoder()
    weights = {**tiny_sd1.unet_weights(unet), **tiny_sd1.vae_weights(vae), **tiny_sd1.text_weights(text)}
    model, clip, our_vae = load(tmp_path, weights)
    noise, picture = ours(model, clip, our_vae)
    pipeline = StableDiffusionPipeline(
        vae=zoos_vae(vae, scaling_factor=0.18215), text_encoder=None, tokenizer=None, scheduler=euler(),
        unet=zoos_unet(
            unet, block_out_channels=(32, 64), cross_attention_dim=64,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    positive, negative = (text(tiny_sdxl.tokens_of(clip, "l", words))[0] for words in ("a red cat", "rain"))
    sigma = float(model.model.model_sampling.sigma_max)
    result = pipeline(
        prompt_embeds=positive, negative_prompt_embeds=negative, num_inference_steps=STEPS,
        guidance_scale=CFG, height=SIZE, width=SIZE, output_type="np",
        latents=noise * (1 + sigma**2) ** 0.5 / sigma,
    )  # fmt: skip
    assert np.abs(result.images[0] - picture).max() <= BOUND


@pytest.mark.slow
@torch.no_grad()
def test_stable_diffusion_xl(tmp_path):
    torch.manual_seed(1)
    text_l, text_g = tiny_sdxl.text_encoder(64, open_clip=False), tiny_sdxl.text_encoder(96)
    unet, vae = tiny_sd1.tiny_unet(**{**tiny_sdxl.BASE, **tiny_sdxl.HEADS}), tiny_sd1.tiny_vae()
    weights = {
        **tiny_sd1.unet_weights(unet, tiny_sdxl.BASE), **tiny_sd1.vae_weights(vae),
        **tiny_sdxl.below("conditioner.embedders.1.model.", tiny_sdxl.in_open_clip(text_g)),
        **{f"conditioner.embedders.0.transformer.{key}": tensor for key, tensor in text_l.state_dict().items()
           if key.startswith("text_model.")},
    }  # fmt: skip
    model, clip, our_vae = load(tmp_path, weights)
    noise, picture = ours(model, clip, our_vae)
    pipeline = StableDiffusionXLPipeline(
        vae=zoos_vae(vae, scaling_factor=0.13025), text_encoder=None, text_encoder_2=text_g, tokenizer=None,
        tokenizer_2=None, scheduler=euler(), add_watermarker=False,
        unet=zoos_unet(
            unet, block_out_channels=(64, 128), cross_attention_dim=192, attention_head_dim=(1, 2),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=96 + 6 * 256,
        ),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    given = {}
    for words, name in (("a red cat", ""), ("rain", "negative_")):
        states = [text(tiny_sdxl.tokens_of(clip, key, words), output_hidden_states=True)
                  for text, key in ((text_l, "l"), (text_g, "g"))]  # fmt: skip
        given[f"{name}prompt_embeds"] = torch.cat([out.hidden_states[-2] for out in states], dim=-1)
        given[f"{name}pooled_prompt_embeds"] = states[1].text_embeds
    sigma = float(model.model.model_sampling.sigma_max)
    result = pipeline(
        **given, num_inference_steps=STEPS, guidance_scale=CFG, height=SIZE, width=SIZE, output_type="np",
        original_size=(SIZE, SIZE), target_size=(SIZE, SIZE),
        latents=noise * (1 + sigma**2) ** 0.5 / sigma,
    )  # fmt: skip
    assert np.abs(result.images[0] - picture).max() <= BOUND

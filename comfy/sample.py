"""Sampling for nodes: seeded noise, the shape of empty latents, and one call per picture."""

import logging

import numpy as np  # noqa: F401 - packs take it from here
import torch

import comfy.model_management
import comfy.samplers
import comfy.utils
from comfy.sampler_helpers import prepare_mask  # noqa: F401 - where packs of earlier days look for it


def prepare_noise_inner(latent_image, generator, noise_inds=None):
    """Normal noise in the latent's shape, drawn on the CPU.

    `noise_inds` names, for each sample, which picture of the seed it is: noise is drawn for every index up to
    the
    largest, and handed out by index, so that picture 3 of a batch can be made again alone.
    """
    shape = list(latent_image.shape)
    if noise_inds is None:
        return _draw(shape, latent_image, generator)
    drawn = [_draw([1, *shape[1:]], latent_image, generator) for _ in range(max(noise_inds) + 1)]
    return torch.cat([drawn[index] for index in noise_inds])


def _draw(shape, like, generator):
    noise = torch.randn(shape, dtype=torch.float32, layout=like.layout, generator=generator, device="cpu")
    return noise.to(like.dtype)


def prepare_noise(latent_image, seed, noise_inds=None):
    """The noise of a seed. Seeds torch's global generator, on which later draws of samplers depend."""
    return prepare_noise_inner(latent_image, torch.manual_seed(seed), noise_inds)


def prepare_empty_noise(latent_image):
    """No noise at all, where noise would be drawn."""
    return torch.zeros_like(latent_image, device="cpu")


def fix_empty_latent_channels(
    model, latent_image, downscale_ratio_spacial=None, downscale_ratio_temporal=None
):
    """An empty latent made for another model, in the shape of this model's latents; others are left alone."""
    latent_format = model.get_model_object("latent_format")
    empty = torch.count_nonzero(latent_image) == 0
    if empty:
        if latent_format.latent_channels != latent_image.shape[1]:
            latent_image = comfy.utils.repeat_to_batch_size(
                latent_image, latent_format.latent_channels, dim=1
            )
        spacial = getattr(latent_format, "spacial_downscale_ratio", 8)
        if downscale_ratio_spacial is not None and downscale_ratio_spacial != spacial:
            latent_image = _resized(latent_image, downscale_ratio_spacial / spacial)
    if latent_format.latent_dimensions == 3 and latent_image.ndim == 4:
        latent_image = latent_image.unsqueeze(2)
    temporal = getattr(latent_format, "temporal_downscale_ratio", 1)
    if empty and latent_image.ndim == 5 and downscale_ratio_temporal not in (None, temporal):
        frames = max(1, round(latent_image.shape[2] * downscale_ratio_temporal / temporal))
        latent_image = comfy.utils.repeat_to_batch_size(latent_image, frames, dim=2)
    return latent_image


def _resized(latent_image, ratio):
    height, width = (round(side * ratio) for side in latent_image.shape[-2:])
    return comfy.utils.common_upscale(latent_image, width, height, "nearest-exact", crop="disabled")


def sample(
    model,
    noise,
    steps,
    cfg,
    sampler_name,
    scheduler,
    positive,
    negative,
    latent_image,
    denoise=1.0,
    disable_noise=False,
    start_step=None,
    last_step=None,
    force_full_denoise=False,
    noise_mask=None,
    sigmas=None,
    callback=None,
    disable_pbar=False,
    seed=None,
):
    """Sample with a sampler and scheduler by name; the latent comes back on the intermediate device."""
    sampler = comfy.samplers.KSampler(
        model,
        steps=steps,
        device=model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        model_options=model.model_options,
    )
    samples = sampler.sample(
        noise,
        positive,
        negative,
        cfg=cfg,
        latent_image=latent_image,
        start_step=start_step,
        last_step=last_step,
        force_full_denoise=force_full_denoise,
        denoise_mask=noise_mask,
        sigmas=sigmas,
        callback=callback,
        disable_pbar=disable_pbar,
        seed=seed,
    )
    return samples.to(comfy.model_management.intermediate_device())


def sample_custom(
    model,
    noise,
    cfg,
    sampler,
    sigmas,
    positive,
    negative,
    latent_image,
    noise_mask=None,
    callback=None,
    disable_pbar=False,
    seed=None,
):
    """Sample with a sampler object and explicit noise levels."""
    samples = comfy.samplers.sample(
        model,
        noise,
        positive,
        negative,
        cfg,
        model.load_device,
        sampler,
        sigmas,
        model_options=model.model_options,
        latent_image=latent_image,
        denoise_mask=noise_mask,
        callback=callback,
        disable_pbar=disable_pbar,
        seed=seed,
    )
    return samples.to(comfy.model_management.intermediate_device())


def prepare_sampling(model, noise_shape, positive, negative, noise_mask):
    """Kept for node packs: nothing needs to be prepared any more."""
    logging.warning("comfy.sample.prepare_sampling does nothing; the call can be removed.")
    return model, positive, negative, noise_mask, []


def cleanup_additional_models(models):
    """Kept for node packs: nothing needs to be cleaned up any more."""
    logging.warning("comfy.sample.cleanup_additional_models does nothing; the call can be removed.")

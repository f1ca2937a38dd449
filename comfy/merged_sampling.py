"""Several requests as one batch: one model and schedule; noise, conditioning and guidance of each its own.

Only the network sees the latents of all requests at once. All else is done for each request alone, so that it
gets the latent that it would get by itself, up to the rounding of larger matrices.
"""

from typing import Any, NamedTuple

import torch

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
from comfy import sampler_names
from comfy.k_diffusion.walk import SeedsOfRequests

# dpm_adaptive chooses its steps by the error of the whole batch. Samplers of node packs may do anything.
SAMPLERS = frozenset(sampler_names.SAMPLER_NAMES) - {"dpm_adaptive"}
# What replaces the evaluation of a batch, or counts on the places of its rows.
UNKNOWN_TO_MERGING = (
    "context_handler", "sampler_calc_cond_batch_function", "model_function_wrapper", "denoise_mask_function",
)  # fmt: skip


class CannotMerge(Exception):
    """These requests cannot share a batch; the message says why."""


class Request(NamedTuple):
    """What one request brings: tensors (B, C, ...) with its own B."""

    noise: torch.Tensor
    latent_image: torch.Tensor
    positive: list
    negative: list
    cfg: float
    seed: int
    denoise_mask: torch.Tensor | None = None


def refuse_unknown_changes(model, sampler_name):
    """CannotMerge for a sampler or a change of the model that may look at the batch as a whole."""
    if sampler_name not in SAMPLERS:
        raise CannotMerge(f"the sampler {sampler_name} may look at a batch as a whole")
    options = model.model_options
    known = {**options.get("transformer_options", {}), **options}
    found = [name for name in UNKNOWN_TO_MERGING if name in known]
    found += [name for name in ("wrappers", "callbacks") if any(known.get(name, {}).values())]
    if found:
        raise CannotMerge(f"the model has changes that may look at a batch as a whole: {', '.join(found)}")


class MergedGuider(comfy.samplers.CFGGuider):
    """Guides the rows of each request by its own conditioning and scale."""

    def __init__(self, model_patcher, requests: list[Request]):
        super().__init__(model_patcher)
        self.requests = requests
        self.rows = [len(request.noise) for request in requests]
        self.sides: list[dict[str, Any]] = []
        for number, request in enumerate(requests):
            sides = {(number, "positive"): request.positive, (number, "negative"): request.negative}
            self.inner_set_conds(sides)

    def predict_noise(self, x, timestep, model_options=comfy.samplers.NO_OPTIONS, seed=None):
        """The guided denoised latents, in the order of the requests."""
        model, parts = self.inner_model, []
        for request, sides, part, level in zip(
            self.requests, self.sides, x.split(self.rows), timestep.split(self.rows)
        ):
            conds = comfy.samplers.sides_with_weight(
                sides["positive"], sides["negative"], request.cfg, model_options
            )
            parts.append((conds, part, level))
        outputs = comfy.samplers.calc_cond_batches(model, parts, model_options)
        return torch.cat([
            comfy.samplers.guide(model, output, *part, request.cfg, model_options)
            for request, output, part in zip(self.requests, outputs, parts)
        ])  # fmt: skip

    def inner_sample(
        self, noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed,
        latent_shapes=None,
    ):  # fmt: skip
        """As for one request, with latents and conditioning resolved for each."""
        masks = [None] * len(self.requests) if denoise_mask is None else denoise_mask.split(self.rows)
        latents = []
        for number, (request, own_noise, latent, mask) in enumerate(
            zip(self.requests, noise.split(self.rows), latent_image.split(self.rows), masks)
        ):
            if torch.count_nonzero(latent) > 0:
                latent = self.inner_model.process_latent_in(latent)
            latents.append(latent)
            conds = {name: self.conds[number, name] for name in ("positive", "negative")}
            self.sides.append(comfy.samplers.process_conds(
                self.inner_model, own_noise, conds, device, latent, mask, request.seed,
                latent_shapes=[latent.shape],
            ))  # fmt: skip
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        seeds = SeedsOfRequests([request.seed for request in self.requests], self.rows)
        samples = sampler.sample(
            self, sigmas, {"model_options": options, "seed": seeds}, callback, noise, torch.cat(latents),
            denoise_mask, disable_pbar,
        )  # fmt: skip
        return self.inner_model.process_latent_out(samples.to(torch.float32))


def sample(
    model, requests: list[Request], *, steps, sampler_name, scheduler, denoise=1.0, start_step=None,
    last_step=None, force_full_denoise=False, callback=None, disable_pbar=False,
):  # fmt: skip
    """A latent per request, on the intermediate device. Raises CannotMerge."""
    refuse_unknown_changes(model, sampler_name)
    if len({request.latent_image.shape[1:] for request in requests}) > 1:
        raise CannotMerge("the latents have different sizes")
    if len({request.denoise_mask is None for request in requests}) > 1:
        raise CannotMerge("some latents have a mask")
    schedule = comfy.samplers.KSampler(
        model, steps=steps, device=model.load_device, sampler=sampler_name, scheduler=scheduler,
        denoise=denoise, model_options=model.model_options,
    )  # fmt: skip
    sigmas = schedule.levels(start_step, last_step, force_full_denoise)
    if sigmas is None or not len(sigmas):
        return [request.latent_image for request in requests]
    samples = MergedGuider(model, requests).sample(
        torch.cat([request.noise for request in requests]),
        torch.cat([request.latent_image for request in requests]),
        comfy.samplers.sampler_object(schedule.sampler), sigmas, _masks(requests, model.load_device),
        _of_the_first(callback, len(requests[0].noise)), disable_pbar,
    )  # fmt: skip
    samples = samples.to(comfy.model_management.intermediate_device())
    return list(samples.split([len(request.noise) for request in requests]))


def _masks(requests, device):
    if requests[0].denoise_mask is None:
        return None
    masks = []
    for request in requests:
        batch, _, *sizes = request.latent_image.shape  # channels come later, in the guider
        mask = request.denoise_mask.float()
        masks.append(comfy.sampler_helpers.prepare_mask(mask, (batch, 1, *sizes), device))
    return torch.cat(masks)


def _of_the_first(callback, rows):
    """Who looks on sees the first request."""
    if callback is None:
        return None
    return lambda step, denoised, x, steps: callback(step, denoised[:rows], x[:rows], steps)

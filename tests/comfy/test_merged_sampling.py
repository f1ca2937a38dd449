"""Requests that share a batch get what each would get alone, and their own noise."""

import pytest
import torch

import comfy.merged_sampling
import comfy.sample
from comfy import sampler_names
from comfy.merged_sampling import CannotMerge, Request
from tests.comfy.toy_model import latents, prompt, toy_model

STEPS = {"steps": 4, "scheduler": "normal", "disable_pbar": True}


def request(seed, *, rows=1, cfg=5.0, latent=None, positive=None, mask=None):
    latent = torch.zeros(rows, 4, 16, 24) if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, seed)
    return Request(noise, latent, positive or prompt(seed), prompt(100 + seed), cfg, seed, mask)


def alone(model, one, *, sampler_name="euler", **options):
    return comfy.sample.sample(
        model, one.noise, cfg=one.cfg, sampler_name=sampler_name, positive=one.positive,
        negative=one.negative, latent_image=one.latent_image, seed=one.seed, noise_mask=one.denoise_mask,
        **{**STEPS, **options},
    )  # fmt: skip


def together(model, requests, *, sampler_name="euler", **options):
    return comfy.merged_sampling.sample(model, requests, sampler_name=sampler_name, **{**STEPS, **options})


def assert_each_as_alone(model, requests, **options):
    for one, merged in zip(requests, together(model, requests, **options), strict=True):
        assert torch.allclose(merged, alone(model, one, **options), atol=1e-4), options
        assert merged.shape == one.latent_image.shape


@pytest.mark.parametrize("sampler_name", sorted(comfy.merged_sampling.SAMPLERS))
def test_each_request_gets_its_own_picture_with_every_sampler(sampler_name):
    requests = [request(1), request(2, cfg=1.0), request(3, cfg=7.5)]
    assert_each_as_alone(toy_model(), requests, sampler_name=sampler_name)


def test_the_network_sees_all_requests_at_once():
    model = toy_model()
    together(model, [request(1), request(2), request(3)])
    assert {call["batch"] for call in model.model.diffusion_model.calls} == {6}


def test_a_sampler_that_looks_at_the_whole_batch_is_refused():
    assert set(sampler_names.SAMPLER_NAMES) - comfy.merged_sampling.SAMPLERS == {"dpm_adaptive"}
    for name in ("dpm_adaptive", "of_a_pack"):
        with pytest.raises(CannotMerge, match=f"the sampler {name}"):
            together(toy_model(), [request(1), request(2)], sampler_name=name)


@pytest.mark.parametrize("options", [
    {}, {"denoise": 0.5}, {"start_step": 1, "last_step": 3}, {"last_step": 2, "force_full_denoise": True},
    {"sampler_name": "ddim", "denoise": 0.6}, {"sampler_name": "euler_ancestral", "start_step": 2},
    {"start_step": 9}, {"denoise": 0.0},
])  # fmt: skip
def test_pictures_masks_and_ranges_of_steps(options):
    masks = [torch.zeros(1, 1, 16, 24), torch.ones(1, 1, 32, 48)]
    masks[0][..., :8] = 1
    requests = [request(seed, latent=latents(seed + 10)[:1], mask=mask) for seed, mask in zip((1, 2), masks)]
    assert_each_as_alone(toy_model(), requests, **options)
    assert_each_as_alone(toy_model(), [one._replace(denoise_mask=None) for one in requests], **options)


def test_an_empty_latent_stays_empty_beside_one_that_is_not():
    model = toy_model()
    model.model.latent_format.shift_factor = 0.5
    model.model.process_latent_in = lambda latent: (latent - 0.5) * 2
    assert_each_as_alone(model, [request(1), request(2, latent=latents(9)[:1])], denoise=0.7)


def test_batches_regions_weights_and_texts_of_unlike_lengths():
    area = [[prompt(5)[0][0], {**prompt(5)[0][1], "area": (8, 8, 0, 4), "strength": 0.6}]]
    late = [[prompt(6, 14)[0][0], {**prompt(6)[0][1], "start_percent": 0.4, "end_percent": 1.0}]]
    mask = torch.zeros(1, 16, 24)
    mask[:, 4:] = 1
    masked = [[prompt(7)[0][0], {**prompt(7)[0][1], "mask": mask, "mask_strength": 0.8}]]
    requests = [
        request(1, rows=2), request(2, positive=prompt(2) + area), request(3, positive=prompt(3, 21) + late),
        request(4, rows=2, positive=prompt(4) + masked),
    ]  # fmt: skip
    assert_each_as_alone(toy_model(), requests)


def test_functions_of_a_pack_see_one_request_at_a_time():
    model, seen = toy_model(), []

    def guided(args):
        seen.append(args["input"].shape[0])
        return args["input"] - (args["uncond_denoised"] + args["cond_scale"] * args["cond_denoised"])

    model.model_options["sampler_cfg_function"] = guided
    model.model_options["sampler_post_cfg_function"] = [lambda args: args["denoised"] * 0.9]
    model.model_options["sampler_pre_cfg_function"] = [lambda args: args["conds_out"]]
    assert_each_as_alone(model, [request(1), request(2, rows=2, cfg=2.0)])
    assert set(seen) == {1, 2}


@pytest.mark.parametrize("change", [
    {"model_function_wrapper": lambda *_: None}, {"context_handler": object()},
    {"transformer_options": {"wrappers": {"diffusion_model": {None: [lambda *_: None]}}}},
])  # fmt: skip
def test_changes_of_the_model_that_may_look_at_the_batch_are_refused(change):
    model = toy_model()
    model.model_options.update(change)
    with pytest.raises(CannotMerge, match=next(iter(change)) if "transformer" not in str(change) else "wrap"):
        together(model, [request(1), request(2)])


def test_unlike_sizes_and_masks_are_refused():
    wide = request(2, latent=torch.zeros(1, 4, 16, 32))
    with pytest.raises(CannotMerge, match="sizes"):
        together(toy_model(), [request(1), wide])
    with pytest.raises(CannotMerge, match="mask"):
        together(toy_model(), [request(1), request(2, mask=torch.ones(1, 1, 16, 24))])


def test_who_looks_on_sees_the_first_request():
    seen = []
    requests = [request(1, rows=2), request(2)]
    together(toy_model(), requests, callback=lambda step, denoised, x, steps: seen.append(denoised.shape[0]))
    assert seen == [2] * 4

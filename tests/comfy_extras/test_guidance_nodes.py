"""Guidance nodes on a real sampler step, beside diffusers' guiders or arithmetic written out."""

import pytest
import torch
from diffusers.guiders import adaptive_projected_guidance, classifier_free_zero_star_guidance
from diffusers.guiders import tangential_classifier_free_guidance as tangential

import comfy.guidance
import comfy.samplers
import comfy.sd
from comfy_extras import (
    nodes_advanced_samplers,
    nodes_apg,
    nodes_cfg,
    nodes_eps,
    nodes_fresca,
    nodes_lumina2,
    nodes_mahiro,
    nodes_sag,
    nodes_sd3,
    nodes_slg,
    nodes_tcfg,
)
from tests.comfy import tiny_flux, tiny_sd1
from tests.comfy.toy_model import latents, prompt, toy_model

SIGMA = 1.3


def evaluate(model, cfg=5.0, positive=None, negative=None, x=None, sigma=SIGMA):
    """(guided, positive side, negative side, x) of one call of the model that samplers see."""
    model.pre_run()
    x = latents(5) if x is None else x
    conds = {"positive": positive or prompt(1), "negative": negative or prompt(2)}
    conds = {name: comfy.sampler_helpers.convert_cond(cond) for name, cond in conds.items()}
    conds = comfy.samplers.process_conds(model.model, x, conds, x.device)
    sides, options = (conds["negative"], conds["positive"]), model.model_options
    sigmas = torch.full((len(x),), sigma)
    plain = {"transformer_options": options["transformer_options"]}
    cond, uncond = comfy.samplers.calc_cond_batch(model.model, [sides[1], sides[0]], x, sigmas, plain)
    return comfy.samplers.sampling_function(model.model, x, sigmas, *sides, cfg, options), cond, uncond, x


def patched(node, model, *args, **values):
    return getattr(node(), node.FUNCTION)(model, *args, **values)[0]


@pytest.mark.parametrize(("eta", "longest"), [(1.0, 0.0), (0.0, 0.0), (0.3, 4.0), (-2.0, 1.0)])
def test_projected_guidance_is_that_of_diffusers(eta, longest):
    found, cond, uncond, _ = evaluate(patched(nodes_apg.APG, toy_model(), eta, longest, 0.0))
    expected = adaptive_projected_guidance.normalized_guidance(
        cond, uncond, 5.0, eta=eta, norm_threshold=longest, use_original_formulation=True
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_projected_guidance_has_a_momentum_that_ends_with_the_run():
    model = patched(nodes_apg.APG, toy_model(), 0.5, 0.0, -0.4)
    momentum = adaptive_projected_guidance.MomentumBuffer(-0.4)
    first = evaluate(model, sigma=2.0)[0]
    momentum.update(evaluate(toy_model(), sigma=2.0)[1] - evaluate(toy_model(), sigma=2.0)[2])
    found, cond, uncond, _ = evaluate(model, sigma=1.0)
    expected = adaptive_projected_guidance.normalized_guidance(
        cond, uncond, 5.0, momentum, eta=0.5, use_original_formulation=True
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(evaluate(model, sigma=2.0)[0], first)


def test_zero_star_scales_the_negative_side_as_diffusers_does():
    found, cond, uncond, x = evaluate(patched(nodes_cfg.CFGZeroStar, toy_model()))
    flat = ((x - cond).flatten(1), (x - uncond).flatten(1))
    alpha = classifier_free_zero_star_guidance.cfg_zero_star_scale(*flat).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found, alpha * uncond + 5.0 * (cond - alpha * uncond), atol=1e-4, rtol=1e-4)


def test_the_norm_of_the_positive_side_is_a_limit_at_each_place():
    found, cond, uncond, _ = evaluate(patched(nodes_cfg.CFGNorm, toy_model(), 0.9))
    plain = uncond + 5.0 * (cond - uncond)
    assert torch.allclose(
        found.norm(dim=1), 0.9 * torch.minimum(plain.norm(dim=1), cond.norm(dim=1)), atol=1e-4
    )
    assert torch.allclose(torch.nn.functional.cosine_similarity(found, plain), torch.ones(()), atol=1e-4)


def test_tangential_damping_is_that_of_diffusers():
    found, cond, uncond, x = evaluate(patched(nodes_tcfg.TCFG, toy_model()))
    damped = tangential.normalized_guidance(x - cond, x - uncond, 0.0)
    assert not torch.allclose(damped, x - uncond, atol=1e-2)
    expected = x - damped + 5.0 * (cond - (x - damped))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    alone, cond, *_ = evaluate(patched(nodes_tcfg.TCFG, toy_model()), cfg=1.0)
    assert torch.equal(alone, cond), "one side alone is left as it is"


def test_mahiro_is_the_positive_side_alone_where_the_negative_one_is_its_opposite():
    found, cond, uncond, _ = evaluate(patched(nodes_mahiro.Mahiro, toy_model()))
    plain, leap = uncond + 5.0 * (cond - uncond), 5.0 * cond

    def root(x):
        return torch.sign(x) * torch.sqrt(torch.abs(x))

    a, b = root(5.0 * uncond), root((leap + plain) / 2)
    cosine = ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
    share = (1 + cosine) / 2  # of plain guidance
    torch.testing.assert_close(found, share * plain + (1 - share) * leap, atol=1e-4, rtol=1e-4)
    side = torch.ones(1, 4, 2, 2)
    assert torch.allclose(comfy.guidance.towards_positive(side, side, -side, 3.0), 3.0 * side)
    assert torch.allclose(comfy.guidance.towards_positive(side, side, side, 3.0), side)


@pytest.mark.parametrize(("from_sigma", "longest"), [(100, 0.0), (100, 1.0), (100, 0.5), (1.0, 1.0)])
def test_renormalised_guidance_is_no_longer_than_allowed_sample_by_sample(from_sigma, longest):
    found, cond, uncond, _ = evaluate(patched(nodes_lumina2.RenormCFG, toy_model(), from_sigma, longest))
    if from_sigma < SIGMA:
        torch.testing.assert_close(found, cond, atol=1e-5, rtol=1e-5)
        return
    expected = uncond + 5.0 * (cond - uncond)
    for number, side in enumerate(cond):
        length = expected[number].norm()
        if longest and length > longest * side.norm():
            expected[number] *= longest * side.norm() / length
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_predicted_noise_is_divided():
    found, cond, uncond, x = evaluate(patched(nodes_eps.EpsilonScaling, toy_model(), 1.25))
    noise = (x - (uncond + 5.0 * (cond - uncond))) / SIGMA
    torch.testing.assert_close(found, x - SIGMA * noise / 1.25, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("k", [0.8, 1.0, 1.2])
def test_the_score_is_rescaled_as_in_the_paper(k):
    found, cond, uncond, x = evaluate(patched(nodes_eps.TemporalScoreRescaling, toy_model(), k, 0.7))
    noise = (x - (uncond + 5.0 * (cond - uncond))) / SIGMA
    snr = SIGMA**-2  # of a latent that is the picture plus sigma times noise
    ratio = (snr * 0.7**2 + 1) / (snr * 0.7**2 / k + 1)
    torch.testing.assert_close(found, x - SIGMA * ratio * noise, atol=1e-4, rtol=1e-4)


def test_the_score_of_a_flow_is_rescaled_and_without_noise_left_alone():
    x, clean, sigma = latents(1), latents(2), torch.tensor([0.75, 0.0])
    half_log_snr = -torch.logit(sigma)
    found = comfy.guidance.rescale_score(clean, x, sigma, half_log_snr, 0.9, 0.5)
    noise = (x[0] - 0.25 * clean[0]) / 0.75
    snr = (0.25 / 0.75) ** 2
    ratio = (snr * 0.25 + 1) / (snr * 0.25 / 0.9 + 1)
    torch.testing.assert_close(found[0], (x[0] - ratio * 0.75 * noise) / 0.25, atol=1e-4, rtol=1e-4)
    assert torch.equal(found[1], clean[1])


def test_coarse_and_fine_guidance_are_scaled_apart():
    found, cond, uncond, _ = evaluate(patched(nodes_fresca.FreSca, toy_model(), 1.0, 1.0, 3))
    torch.testing.assert_close(found, uncond + 5.0 * (cond - uncond), atol=1e-4, rtol=1e-4)
    found, cond, uncond, _ = evaluate(patched(nodes_fresca.FreSca, toy_model(), 0.5, 2.0, 3))
    rows, columns = (torch.fft.fftfreq(side, 1 / side) for side in cond.shape[-2:])
    coarse = ((rows >= -3) & (rows < 3))[:, None] & ((columns >= -3) & (columns < 3))
    factors = torch.where(coarse, 0.5, 2.0)
    scaled = torch.fft.ifft2(torch.fft.fft2(cond - uncond) * factors).real
    torch.testing.assert_close(found, uncond + 5.0 * scaled, atol=1e-4, rtol=1e-4)
    whole = comfy.guidance.scale_frequencies(cond, 1000, 0.5, 2.0)  # everything is coarse
    torch.testing.assert_close(whole, 0.5 * cond, atol=1e-4, rtol=1e-4)


# --- with a UNet's attention ---


@pytest.fixture(scope="module")
def tiny_model():
    without = {"output_vae": False, "output_clip": False}
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), **without)[0]


def words(seed, width=64):
    return [[torch.randn(1, 77, width, generator=torch.Generator().manual_seed(seed)), {}]]


def test_self_attention_guidance_blurs_where_the_negative_side_looks(tiny_model):
    x = latents(5, rows=12, columns=8)
    arguments = {"positive": words(1), "negative": words(2), "x": x}
    model = patched(nodes_sag.SelfAttentionGuidance, tiny_model, 0.5, 2.0)
    found, cond, uncond, _ = evaluate(model, **arguments)
    seen = []

    def attend(q, k, v, extra):
        heads = extra["n_heads"]
        q_, k_, v_ = (t.unflatten(-1, (heads, -1)).transpose(1, 2).double() for t in (q, k, v))
        weights = torch.softmax(q_ @ k_.mT / q_.shape[-1] ** 0.5, dim=-1)
        seen.append(weights)
        return (weights @ v_).transpose(1, 2).flatten(2).to(q)

    looking = tiny_model.clone()
    looking.set_model_attn1_replace(attend, "middle", 0, 0)
    evaluate(looking, **{**arguments, "positive": words(2)})  # both sides are the negative one
    attended = seen[0][:2].mean(1).sum(1) > 1.0  # (2 samples, 6 * 4 tokens)
    mask = attended.reshape(2, 1, 6, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    at = torch.arange(-4, 5)
    line = torch.exp(-(at**2) / 8.0)
    line = line / line.sum()
    padded = torch.nn.functional.pad(uncond, (4, 4, 4, 4), mode="reflect")
    blurred = padded.unfold(2, 9, 1) @ line
    blurred = blurred.unfold(3, 9, 1) @ line
    degraded = torch.where(mask, blurred, uncond)
    assert 0 < mask.float().mean() < 1
    again = evaluate(tiny_model, **{**arguments, "x": degraded + x - uncond})[2]
    expected = uncond + 5.0 * (cond - uncond) + 0.5 * (degraded - again)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_self_attention_guidance_works_without_guidance_and_leaves_tiny_latents(tiny_model):
    model = patched(nodes_sag.SelfAttentionGuidance, tiny_model, 0.5, 2.0)
    sides = {"positive": words(1), "negative": words(2)}
    found, cond, *_ = evaluate(model, cfg=1.0, x=latents(5, rows=8, columns=8), **sides)
    assert not torch.allclose(found, cond, atol=1e-3)
    found, cond, uncond, _ = evaluate(model, x=latents(5, rows=4, columns=8), **sides)
    torch.testing.assert_close(found, uncond + 5.0 * (cond - uncond), atol=1e-4, rtol=1e-4)


def test_self_attention_guidance_needs_a_negative_side(tiny_model):
    model = patched(nodes_sag.SelfAttentionGuidance, tiny_model, 0.5, 2.0)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": words(1)})  # as BasicGuider does it
    sigmas, noise = torch.tensor([1.0, 0.0]), latents(5, rows=8, columns=8)
    euler, empty = comfy.samplers.sampler_object("euler"), torch.zeros(2, 4, 8, 8)
    found = guider.sample(noise, empty, euler, sigmas, disable_pbar=True)
    guider.model_patcher, guider.model_options = tiny_model, tiny_model.model_options
    plain = guider.sample(noise, empty, euler, sigmas, disable_pbar=True)
    torch.testing.assert_close(found, plain, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "size", "rows"), [(24, (12, 8), 6), (35, (10, 14), 5), (7, (8, 8), 1)])
def test_a_level_of_tokens_is_given_rows_like_the_picture(tokens, size, rows):
    assert comfy.guidance._rows_of(tokens, *size) == rows


# --- with a transformer's layers ---


@pytest.fixture(scope="module")
def flux():
    without = {"output_vae": False, "output_clip": False}
    return comfy.sd.load_state_dict_guess_config(tiny_flux.transformer(), **without)[0]


def of_flux():
    entries = [words(seed, tiny_flux.CONTEXT) for seed in (1, 2)]
    for ((_, extras),) in entries:
        extras["pooled_output"] = torch.randn(1, tiny_flux.POOLED, generator=torch.Generator().manual_seed(3))
    x = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(4))
    return {"positive": entries[0], "negative": entries[1], "x": x, "sigma": 0.9}


def without_layers(model, *blocks):
    """Blocks replaced by hand, one kind at a time."""
    clone = model.clone()
    for kind, number in blocks:

        def nothing(told, _extra, kind=kind):
            return {name: told[name] for name in (("img", "txt") if kind == "double_block" else ("img",))}

        clone.set_model_patch_replace(nothing, "dit", kind, number)
    return clone


@pytest.mark.parametrize("rescaling", [0.0, 0.6])
def test_guidance_leads_away_from_skipped_layers(flux, rescaling):
    settings = {"double_layers": "1", "single_layers": "0, 9", "rescaling_scale": rescaling}
    model = patched(nodes_slg.SkipLayerGuidanceDiT, flux, 3.0, 0.0, 1.0, **settings)
    found, cond, uncond, _ = evaluate(model, **of_flux())
    skipped = evaluate(without_layers(flux, ("double_block", 1), ("single_block", 0)), **of_flux())[1]
    assert not torch.allclose(skipped, cond, atol=1e-3)
    expected = uncond + 5.0 * (cond - uncond) + 3.0 * (cond - skipped)
    if rescaling:
        expected *= rescaling * cond.std() / expected.std() + 1 - rescaling
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_layers_are_skipped_between_two_noise_levels_alone(flux):
    for start, end in ((0.5, 1.0), (0.0, 0.0)):  # sigma 0.9 is near the start of a run
        model = patched(nodes_slg.SkipLayerGuidanceDiT, flux, 3.0, start, end, double_layers="1")
        found, cond, uncond, _ = evaluate(model, **of_flux())
        torch.testing.assert_close(found, uncond + 5.0 * (cond - uncond), atol=1e-4, rtol=1e-4)
    assert patched(nodes_slg.SkipLayerGuidanceDiT, flux, 3.0, 0.0, 1.0, double_layers="none") is flux
    assert patched(nodes_slg.SkipLayerGuidanceDiTSimple, flux, 0.0, 1.0) is flux


def test_the_simple_form_skips_on_the_negative_side(flux):
    model = patched(nodes_slg.SkipLayerGuidanceDiTSimple, flux, 0.0, 1.0, "1", "")
    found, cond, *_ = evaluate(model, **of_flux())
    skipped = evaluate(without_layers(flux, ("double_block", 1)), **of_flux())[2]
    torch.testing.assert_close(found, skipped + 5.0 * (cond - skipped), atol=1e-4, rtol=1e-4)
    alone, cond, *_ = evaluate(model, cfg=1.0, **of_flux())
    torch.testing.assert_close(alone, cond, atol=1e-5, rtol=1e-5)


def test_sd3s_form_skips_double_layers(flux):
    found = evaluate(patched(nodes_sd3.SkipLayerGuidanceSD3, flux, "0", 2.0, 0.0, 1.0), **of_flux())[0]
    general = patched(nodes_slg.SkipLayerGuidanceDiT, flux, 2.0, 0.0, 1.0, double_layers="0")
    assert torch.equal(found, evaluate(general, **of_flux())[0])


# --- samplers ---


def sampled(version_or_sampler, model=None, cfg=3.0):
    model = model or toy_model()
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(prompt(1), prompt(2))
    guider.set_cfg(cfg)
    sigmas = torch.tensor([2.0, 1.0, 0.5, 0.0])
    noise = torch.randn(2, 4, 16, 24, generator=torch.manual_seed(3))
    empty = torch.zeros_like(noise)
    return guider.sample(noise, empty, version_or_sampler, sigmas, disable_pbar=True, seed=3), noise


def test_euler_with_another_cfg_plus_plus_adds_the_negative_side():
    (sampler,) = nodes_advanced_samplers.SamplerEulerCFGpp().get_sampler("alternative")
    model = toy_model()
    found, noise = sampled(sampler, model)
    x = model.get_model_object("model_sampling").noise_scaling(torch.tensor(2.0), noise, torch.zeros(()))
    for sigma, after in ((2.0, 1.0), (1.0, 0.5), (0.5, 0.0)):
        denoised, _, uncond, _ = evaluate(model, cfg=3.0, x=x, sigma=sigma)
        x = x + (x - 2 * denoised + uncond) / sigma * (after - sigma)
    torch.testing.assert_close(found, model.model.process_latent_out(x), atol=1e-3, rtol=1e-3)
    (regular,) = nodes_advanced_samplers.SamplerEulerCFGpp().get_sampler("regular")
    by_name = sampled(comfy.samplers.ksampler("euler_cfg_pp"))[0]
    assert torch.equal(sampled(regular)[0], by_name) and not torch.allclose(by_name, found, atol=1e-2)


@pytest.mark.parametrize(("steps", "sides"), [(-1, [(24, 36), (32, 48)]), (1, [(32, 48), (32, 48)])])
def test_latents_of_a_consistency_model_grow_in_the_first_steps(steps, sides):
    (sampler,) = nodes_advanced_samplers.SamplerLCMUpscale().get_sampler(2.0, steps, "bilinear")
    model = toy_model()
    found, noise = sampled(sampler, model)
    generator = torch.Generator().manual_seed(3)  # whose first numbers are the start noise
    torch.randn(noise.shape, generator=generator)
    x = model.get_model_object("model_sampling").noise_scaling(torch.tensor(2.0), noise, torch.zeros(()))
    for sigma, after, size in zip((2.0, 1.0, 0.5), (1.0, 0.5, 0.0), (*sides, None)):
        x = evaluate(model, cfg=3.0, x=x, sigma=sigma)[0]
        if size is not None:
            x = torch.nn.functional.interpolate(x, size, mode="bilinear")
        if after:
            x = x + after * torch.randn(x.shape, generator=generator)
    torch.testing.assert_close(found, model.model.process_latent_out(x), atol=1e-3, rtol=1e-3)

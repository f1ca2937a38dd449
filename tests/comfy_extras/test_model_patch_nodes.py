"""Nodes that change how a model samples, on real samplers with a small network."""

import pytest
import torch

import comfy.guidance
import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.sd
from comfy_extras import (
    nodes_differential_diffusion,
    nodes_freelunch,
    nodes_model_advanced,
    nodes_pag,
    nodes_perpneg,
)
from tests.comfy import tiny_sd1
from tests.comfy.toy_model import latents, prompt, toy_model


def sampling_of(node, model, *args, **values):
    return getattr(node(), node.FUNCTION)(model, *args, **values)[0].get_model_object("model_sampling")


def levels(model):
    """The noise levels of four steps."""
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)


def sample(model, guider=None, mask=None, steps=4):
    """So many of four Euler steps."""
    latent = latents(5)
    noise = comfy.sample.prepare_noise(latent, 42)
    sigmas = levels(model)[: steps + 1]
    if guider is None:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(prompt(1), prompt(2))
        guider.set_cfg(5.0)
    euler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, latent, euler, sigmas, denoise_mask=mask, disable_pbar=True)


@pytest.mark.parametrize(
    ("name", "values", "schedule", "prediction"),
    [
        ("ModelSamplingDiscrete", ("v_prediction", False), "ModelSamplingDiscrete", "V_PREDICTION"),
        ("ModelSamplingDiscrete", ("lcm", False), "ModelSamplingDiscreteDistilled", "LCM"),
        ("ModelSamplingDiscrete", ("x0", False), "ModelSamplingDiscrete", "X0"),
        ("ModelSamplingContinuousEDM", ("edm", 80.0, 0.01), "ModelSamplingContinuousEDM", "EDM"),
        ("ModelSamplingContinuousEDM", ("cosmos_rflow", 80.0, 0.01), "ModelSamplingCosmosRFlow",
         "COSMOS_RFLOW"),
        ("ModelSamplingContinuousV", ("v_prediction", 80.0, 0.01), "ModelSamplingContinuousV",
         "V_PREDICTION"),
        ("ModelSamplingStableCascade", (2.0,), "StableCascadeSampling", "EPS"),
        ("ModelSamplingSD3", (3.0,), "ModelSamplingDiscreteFlow", "CONST"),
        ("ModelSamplingAuraFlow", (1.73,), "ModelSamplingDiscreteFlow", "CONST"),
        ("ModelSamplingFlux", (1.15, 0.5, 1024, 1024), "ModelSamplingFlux", "CONST"),
    ],
)
def test_a_clone_samples_as_the_node_says_and_the_model_as_before(name, values, schedule, prediction):
    model = toy_model()
    before = sample(model)
    sampling = sampling_of(nodes_model_advanced.NODE_CLASS_MAPPINGS[name], model, *values)
    for wanted in (schedule, prediction):
        assert isinstance(sampling, getattr(comfy.model_sampling, wanted))
    assert type(model.get_model_object("model_sampling")) is not type(sampling)
    assert torch.equal(sample(model), before)


def test_noise_levels_follow_the_nodes_numbers():
    model, nodes = toy_model(), nodes_model_advanced.NODE_CLASS_MAPPINGS
    zero_snr = sampling_of(nodes["ModelSamplingDiscrete"], model, "v_prediction", True)
    assert float(zero_snr.sigma_max) > 4000
    edm = sampling_of(nodes["ModelSamplingContinuousEDM"], model, "edm", 80.0, 0.01)
    assert edm.sigma_data == 0.5
    assert (float(edm.sigma_min), float(edm.sigma_max)) == pytest.approx((0.01, 80.0), rel=1e-4)
    sd3 = sampling_of(nodes["ModelSamplingSD3"], model, 3.0)
    assert float(sd3.sigma(torch.tensor(500.0))) == pytest.approx(3 * 0.5 / 2)
    aura = sampling_of(nodes["ModelSamplingAuraFlow"], model, 3.0)
    assert float(aura.sigma(torch.tensor(0.5))) == pytest.approx(3 * 0.5 / 2)
    for side, shift in ((256, 0.5), (1024, 1.15)):
        flux = sampling_of(nodes["ModelSamplingFlux"], model, 1.15, 0.5, side, side)
        assert flux.shift == pytest.approx(shift)


def test_playground_latents_are_normalised_by_channel():
    model = toy_model()
    node = nodes_model_advanced.ModelSamplingContinuousEDM()
    (clone,) = node.patch(model, "edm_playground_v2.5", 80.0, 0.002)
    latent_format = clone.get_model_object("latent_format")
    latent = latents(1)
    inside = latent_format.process_in(latent)
    assert torch.allclose(latent_format.process_out(inside), latent, atol=1e-5)
    assert torch.allclose(inside[:, 1], (latent[:, 1] - 1.886) * 0.5 / 5.9022)


def test_rescaled_guidance_without_weight_is_the_plain_one():
    model = toy_model()
    plain = sample(model)
    same, other = (nodes_model_advanced.RescaleCFG().patch(model, share)[0] for share in (0.0, 0.7))
    assert torch.allclose(sample(same), plain, atol=1e-4)
    assert not torch.allclose(sample(other), plain, atol=1e-2)


def test_the_dtype_to_compute_in_is_the_clones_own():
    model = toy_model()
    (half,) = nodes_model_advanced.ModelComputeDtype().patch(model, "bf16")
    assert half.get_model_object("manual_cast_dtype") is torch.bfloat16
    assert model.get_model_object("manual_cast_dtype") is None


def test_a_clone_computes_in_its_dtype_also_with_control_in_another_and_the_model_in_its_own():
    model = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())[0]
    (half,) = nodes_model_advanced.ModelComputeDtype().patch(model, "bf16")
    found = []
    for patcher in (model, half, model):
        comfy.model_management.load_models_gpu([patcher])
        torch.manual_seed(0)
        given = {"x": torch.randn(1, 4, 8, 8), "t": torch.tensor([3.0]), "c_crossattn": torch.randn(1, 7, 64)}
        control = {"input": [], "middle": [torch.randn(1, 64, 4, 4)], "output": []}
        with torch.inference_mode():
            found.append(model.model.apply_model(**given, control=control))
    plain, in_half, again = found
    assert torch.equal(again, plain) and not torch.equal(in_half, plain)
    torch.testing.assert_close(in_half, plain, atol=0.1, rtol=0.1)


def test_packs_find_the_names_that_they_import():
    assert nodes_model_advanced.LCM is comfy.model_sampling.LCM
    assert nodes_perpneg.Guider_PerpNeg.__module__ == "comfy.guiders"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = nodes_model_advanced.Nothing
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = nodes_perpneg.Nothing


def guided_by_perp_neg(model, negative, neg_scale, cfg=5.0):
    sides = (prompt(1), negative, prompt(3))
    (guider,) = nodes_perpneg.PerpNegGuider().get_guider(model, *sides, cfg, neg_scale)
    return sample(model, guider)


def test_perp_neg_as_a_guider_and_as_a_patch_are_the_same():
    model = toy_model()
    by_guider = guided_by_perp_neg(model, prompt(2), 0.7)
    (patched,) = nodes_perpneg.PerpNeg().patch(model, prompt(3), 0.7)
    assert torch.allclose(by_guider, sample(patched), atol=1e-5)
    assert not torch.allclose(by_guider, guided_by_perp_neg(model, prompt(2), 0.0), atol=1e-2)
    towards = comfy.samplers.CFGGuider(model)
    towards.set_conds(prompt(1), prompt(3))
    towards.set_cfg(5.0)
    assert torch.allclose(guided_by_perp_neg(model, prompt(3), 1.0), sample(model, towards), atol=1e-4)


def test_perp_neg_lets_functions_of_packs_change_the_sides_and_the_result():
    model = toy_model()
    plain, seen = guided_by_perp_neg(model, prompt(2), 1.0), []

    def look(args):
        seen.append(len(args["conds_out"]))
        return args["conds_out"]

    model.set_model_sampler_pre_cfg_function(look)
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.5)
    assert not torch.allclose(guided_by_perp_neg(model, prompt(2), 1.0), plain, atol=1e-2) and seen == [3] * 4


def test_differential_diffusion_keeps_dark_places_longer():
    model = toy_model()
    mask = torch.linspace(0, 1, 24).expand(1, 1, 16, 24)
    (patched,) = nodes_differential_diffusion.DifferentialDiffusion().apply(model)
    out, plain = sample(patched, mask=mask, steps=3), sample(model, mask=mask, steps=3)
    noise = comfy.sample.prepare_noise(latents(5), 42) * levels(model)[3]
    closed = latents(5) + noise / model.model.latent_format.scale_factor
    assert torch.allclose(out[..., 0], closed[..., 0], atol=1e-2), "black: the latent and its noise"
    assert torch.allclose(out[..., -1], plain[..., -1], atol=1e-4), "white: free from the start"
    assert not torch.allclose(out[..., 12], plain[..., 12], atol=1e-2)
    assert not torch.allclose(out[..., 12], closed[..., 12], atol=1e-2)


@pytest.fixture(scope="module")
def tiny_model():
    import comfy.sd

    without = {"output_vae": False, "output_clip": False}
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), **without)[0]


def words(seed):
    return [[torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(seed)), {}]]


def predicted(model, cfg=5.0):
    """One guided prediction and its positive side."""
    model.pre_run()
    x, sigma = latents(5, rows=8, columns=8), torch.full((2,), 1.0)
    conds = {"positive": words(1), "negative": words(2)}
    conds = {name: comfy.sampler_helpers.convert_cond(cond) for name, cond in conds.items()}
    conds = comfy.samplers.process_conds(model.model, x, conds, x.device)
    sides = (conds["negative"], conds["positive"])
    options = model.model_options
    (positive,) = comfy.samplers.calc_cond_batch(model.model, [sides[1]], x, sigma, options)
    return comfy.samplers.sampling_function(model.model, x, sigma, *sides, cfg, options), positive


def test_perturbed_attention_moves_away_from_values_alone(tiny_model):
    plain, positive = predicted(tiny_model)
    values = tiny_model.clone()
    values.set_model_attn1_replace(lambda q, k, v, extra: v, "middle", 0)
    _, perturbed = predicted(values)
    (patched,) = nodes_pag.PerturbedAttentionGuidance().patch(tiny_model, 3.0)
    assert torch.allclose(predicted(patched)[0], plain + 3.0 * (positive - perturbed), atol=1e-5)
    assert not torch.allclose(positive, perturbed, atol=1e-4)
    (idle,) = nodes_pag.PerturbedAttentionGuidance().patch(tiny_model, 0.0)
    assert torch.equal(predicted(idle)[0], plain)


@pytest.mark.parametrize("node", [nodes_freelunch.FreeU, nodes_freelunch.FreeU_V2])
def test_freeu_works_in_the_deepest_levels_and_does_nothing_at_one(tiny_model, node):
    plain, _ = predicted(tiny_model)
    (idle,) = node().patch(tiny_model, b1=1.0, b2=1.0, s1=1.0, s2=1.0)
    assert torch.allclose(predicted(idle)[0], plain, atol=1e-4)
    (shallow,) = node().patch(tiny_model, b1=2.0, b2=1.0, s1=0.1, s2=1.0)
    assert torch.allclose(predicted(shallow)[0], plain, atol=1e-4), "this UNet has no level of four widths"
    for change in ({"b2": 1.5}, {"s2": 0.2}):
        (patched,) = node().patch(tiny_model, **{"b1": 1.0, "b2": 1.0, "s1": 1.0, "s2": 1.0, **change})
        assert not torch.allclose(predicted(patched)[0], plain, atol=1e-4)
    assert torch.equal(predicted(tiny_model)[0], plain)

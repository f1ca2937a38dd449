"""Scales for a part of the schedule, a second model for the negative side, and noise that fades in LCM."""

import torch

import comfy.sample
import comfy.samplers
from comfy_extras.core_guiders import CFGOverride, DualModelGuider
from comfy_extras.nodes_advanced_samplers import SamplerLCM
from comfy_extras.nodes_custom_sampler import CFGGuider
from tests.comfy.toy_model import latents, prompt, toy_model


def scales_seen(model, cfg=7.0, steps=10):
    """(noise level, scale) of each step."""
    seen = []

    def look(args):
        seen.append((float(args["sigma"][0]), args["cond_scale"]))
        return args["denoised"]

    model = model.clone()
    model.set_model_sampler_post_cfg_function(look)
    x = latents(1)
    comfy.sample.sample(model, x, steps, cfg, "euler", "normal", prompt(1), prompt(2), torch.zeros_like(x))
    return seen


def test_a_scale_is_overridden_in_its_range_and_the_last_node_counts():
    model = toy_model()
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    first = CFGOverride.execute(model, 2.0, 0.0, 1.0).args[0]
    second = CFGOverride.execute(first, 3.0, 0.3, 0.6).args[0]
    seen = scales_seen(second)
    for sigma, scale in seen:
        assert scale == (3.0 if to_sigma(0.6) <= sigma <= to_sigma(0.3) else 2.0)
    assert {scale for _, scale in seen} == {2.0, 3.0}
    assert {scale for _, scale in scales_seen(model)} == {7.0}


def run(guider):
    x = latents(2)
    sigmas = torch.tensor([10.0, 3.0, 0.0])
    return guider.sample(x, torch.zeros_like(x), comfy.samplers.sampler_object("euler"), sigmas, seed=1)


def other_model():
    model = toy_model()
    model.model.diffusion_model.mix.data.mul_(-0.5)
    return model


def test_two_models_guide_as_their_predictions_say():
    """One step from the first level to 0 gives the guided prediction itself."""
    first, second = toy_model(), other_model()
    x, sigma = latents(2), torch.tensor([10.0, 0.0])
    euler = comfy.samplers.sampler_object("euler")

    def sample(guider):
        return guider.sample(x, torch.zeros_like(x), euler, sigma, seed=1)

    cond = sample(CFGGuider().get_guider(first, prompt(1), prompt(2), 1.0)[0])
    uncond = sample(CFGGuider().get_guider(second, prompt(2), prompt(1), 1.0)[0])
    both = sample(DualModelGuider.execute(first, prompt(1), 4.0, second, prompt(2)).args[0])
    torch.testing.assert_close(both, uncond + 4.0 * (cond - uncond), rtol=1e-4, atol=1e-4)


def test_with_one_model_it_is_the_usual_guider_and_at_scale_one_the_second_is_not_run():
    first, second = toy_model(), other_model()
    usual = run(CFGGuider().get_guider(first, prompt(1), prompt(2), 4.0)[0])
    assert torch.equal(run(DualModelGuider.execute(first, prompt(1), 4.0, None, prompt(2)).args[0]), usual)
    run(DualModelGuider.execute(first, prompt(1), 1.0, second, prompt(2)).args[0])
    assert second.model.diffusion_model.calls == []


def test_lcm_noise_changes_its_strength_over_the_run_and_is_clipped():
    """The toy model predicts x0 from x alone, so what is added between two steps can be read off."""
    seen = []

    def model(x, sigma, **_):
        seen.append(x.clone())
        return torch.zeros_like(x)

    class Inner:
        model_patcher = toy_model()

    model.inner_model = Inner()
    sampler = SamplerLCM.execute(s_noise=2.0, s_noise_end=0.5, noise_clip_std=1.5).args[0]
    torch.manual_seed(0)
    noise = torch.randn(1, 4, 32, 32)
    given = iter([noise, noise])
    sigmas = torch.tensor([8.0, 4.0, 2.0, 0.0])
    sampler.sampler_function(
        model, noise, sigmas, extra_args={}, disable=True, noise_sampler=lambda *_: next(given),
        **sampler.extra_options,
    )  # fmt: skip
    clipped = noise.clamp(-1.5 * noise.std(), 1.5 * noise.std())
    torch.testing.assert_close(seen[1], clipped * 4.0 * 2.0)
    torch.testing.assert_close(seen[2], clipped * 2.0 * 1.25)  # halfway between 2 and 0.5

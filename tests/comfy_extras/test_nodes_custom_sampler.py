"""Sampling taken apart: each part, and that together they are the whole."""

import math
import subprocess
import sys

import pytest
import torch

import nodes
from comfy_extras import nodes_custom_sampler as custom
from tests.comfy.toy_model import latents, prompt, toy_model

EMPTY = {"samples": torch.zeros(2, 4, 8, 8)}


def node(name, method=None):
    """The bound method of a node, by the node's name."""
    made = custom.NODE_CLASS_MAPPINGS[name]()
    return getattr(made, method or made.FUNCTION)


def levels(count=4):
    return torch.linspace(count, 0, count + 1)


def test_the_nodes_are_listed_without_torch():
    code = (
        "import sys; from comfy_extras import nodes_custom_sampler as n; "
        "[c.INPUT_TYPES() for c in n.NODE_CLASS_MAPPINGS.values()]; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(custom.NODE_CLASS_MAPPINGS))
def test_a_node_declares_what_the_ui_needs(name):
    declared = custom.NODE_CLASS_MAPPINGS[name]
    assert callable(getattr(declared, declared.FUNCTION))
    assert declared.__name__ == name
    assert declared.DESCRIPTION.endswith(".")
    assert "required" in declared.INPUT_TYPES()


def test_the_parts_together_sample_as_the_whole_node_does():
    model = toy_model()
    (whole,) = nodes.common_ksampler(
        model, 7, 4, 5.0, "euler_ancestral", "karras", prompt(1), prompt(2), EMPTY
    )
    (sigmas,) = node("BasicScheduler")(model, "karras", 4, 1.0)
    (sampler,) = node("KSamplerSelect")("euler_ancestral")
    (noise,) = node("RandomNoise")(7)
    (guider,) = node("CFGGuider")(model, prompt(1), prompt(2), 5.0)
    advanced, denoised = node("SamplerCustomAdvanced")(noise, guider, sampler, sigmas, EMPTY)
    plain, _ = node("SamplerCustom")(model, True, 7, 5.0, prompt(1), prompt(2), sampler, sigmas, EMPTY)
    assert torch.equal(advanced["samples"], whole["samples"])
    assert torch.equal(plain["samples"], whole["samples"])
    assert torch.allclose(denoised["samples"], whole["samples"], atol=1e-4)


def test_without_levels_the_latents_come_back():
    model = toy_model()
    latent = {"samples": latents(3)}
    (sampler,) = node("KSamplerSelect")("euler")
    none = torch.FloatTensor([])
    out, denoised = node("SamplerCustom")(model, False, 0, 1.0, prompt(1), prompt(2), sampler, none, latent)
    assert torch.equal(out["samples"], latent["samples"])
    assert denoised is out


def test_a_mask_and_the_place_in_the_batch_are_kept():
    model = toy_model()
    latent = {"samples": latents(3), "noise_mask": torch.zeros(1, 1, 16, 24), "batch_index": [5, 6]}
    (sampler,) = node("KSamplerSelect")("euler")
    out, _ = node("SamplerCustom")(model, True, 1, 2.0, prompt(1), prompt(2), sampler, levels(), latent)
    assert torch.allclose(out["samples"], latent["samples"], atol=1e-4)
    assert out["batch_index"] == [5, 6]


def test_one_side_is_the_guidance_of_scale_one():
    model = toy_model()
    (sampler,) = node("KSamplerSelect")("euler")
    (noise,) = node("RandomNoise")(3)
    guiders = [
        node("BasicGuider")(model, prompt(1))[0],
        node("CFGGuider")(model, prompt(1), prompt(2), 1.0)[0],
    ]
    runs = [node("SamplerCustomAdvanced")(noise, guider, sampler, levels(), EMPTY)[0] for guider in guiders]
    assert torch.equal(runs[0]["samples"], runs[1]["samples"])


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_two_scales_of_one_follow_the_first_conditioning(style):
    model = toy_model()
    (sampler,) = node("KSamplerSelect")("euler")
    (noise,) = node("RandomNoise")(3)
    (dual,) = node("DualCFGGuider")(model, prompt(1), prompt(2), prompt(3), 1.0, 1.0, style)
    (basic,) = node("BasicGuider")(model, prompt(1))
    runs = [node("SamplerCustomAdvanced")(noise, g, sampler, levels(), EMPTY)[0] for g in (dual, basic)]
    assert torch.allclose(runs[0]["samples"], runs[1]["samples"], atol=1e-5)


@pytest.mark.parametrize("style", ["regular", "nested"])
def test_two_scales_add_up_as_their_style_says(style):
    model = toy_model()
    (guider,) = node("DualCFGGuider")(model, prompt(1), prompt(2), prompt(3), 3.0, 2.0, style)
    x, sigma = latents(4), torch.ones(2)
    seen = []

    def predict(executor, x, timestep, model_options, seed):
        out = executor(x, timestep, model_options, seed)
        one = {
            name: custom.Guider_Basic.__mro__[1].predict_noise(
                _only(guider, name), x, timestep, model_options
            )
            for name in ("positive", "middle", "negative")
        }
        seen.append((out, one))
        return out

    model.add_wrapper_with_key("predict_noise", "test", predict)
    (noise,) = node("DisableNoise")()
    node("SamplerCustomAdvanced")(
        noise, guider, node("KSamplerSelect")("euler")[0], levels(1), {"samples": x}
    )
    out, one = seen[0]
    first, second, third = one["positive"], one["middle"], one["negative"]
    if style == "nested":
        expected = third + 2.0 * (second + 3.0 * (first - second) - third)
    else:
        expected = third + 2.0 * (second - third) + 3.0 * (first - second)
    assert torch.allclose(out, expected, atol=1e-4)
    assert sigma.shape == (2,)


def _only(guider, name):
    """The running guider as if it had one side and scale one."""

    class OneSide:
        inner_model = guider.inner_model
        conds = {"positive": guider.conds[name]}
        cfg = 1.0

    return OneSide()


def test_schedules_by_formula_have_their_bounds():
    for name, extra in (("Karras", {"rho": 7.0}), ("Exponential", {}), ("Polyexponential", {"rho": 1.0})):
        (sigmas,) = node(f"{name}Scheduler")(5, sigma_max=10.0, sigma_min=0.1, **extra)
        assert sigmas[[0, -2, -1]].tolist() == pytest.approx([10.0, 0.1, 0.0], rel=1e-4)
    (laplace,) = node("LaplaceScheduler")(5, sigma_max=10.0, sigma_min=0.1, mu=0.0, beta=0.5)
    assert laplace[[0, 2, -1]].tolist() == pytest.approx([10.0, 1.0, 0.1], rel=1e-3)
    (vp,) = node("VPScheduler")(5, beta_d=19.9, beta_min=0.1, eps_s=0.001)
    assert vp[-1] == 0
    assert (vp.diff() < 0).all()


def test_schedules_of_a_model_read_its_table():
    model = toy_model()
    (turbo,) = node("SDTurboScheduler")(model, 2, 1.0)
    table = model.model.model_sampling.sigmas
    assert turbo.tolist() == pytest.approx([float(table[999]), float(table[899]), 0.0])
    assert len(node("BetaSamplingScheduler")(model, 6, 0.6, 0.6)[0]) == 7
    assert len(node("BasicScheduler")(model, "normal", 6, 0.5)[0]) == 7
    assert len(node("BasicScheduler")(model, "normal", 6, 0.0)[0]) == 0


def test_levels_are_cut_turned_and_set():
    sigmas = levels(4)
    high, low = node("SplitSigmas")(sigmas, 1)
    assert (high.tolist(), low.tolist()) == ([4, 3], [3, 2, 1, 0])
    high, low = node("SplitSigmasDenoise")(sigmas, 0.5)
    assert (high.tolist(), low.tolist()) == ([4, 3, 2], [2, 1, 0])
    assert node("FlipSigmas")(sigmas)[0].tolist() == pytest.approx([0.0001, 1, 2, 3, 4])
    assert len(node("FlipSigmas")(torch.FloatTensor([]))[0]) == 0
    assert node("SetFirstSigma")(sigmas, 9.0)[0].tolist() == [9, 3, 2, 1, 0]
    assert sigmas[0] == 4
    assert node("ManualSigmas")("1, .5; 0.25 and 0")[0].tolist() == [1.0, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    "name", [n for n in custom.NODE_CLASS_MAPPINGS if n.startswith("Sampler") and "Custom" not in n]
)
def test_a_sampler_with_knobs_runs_with_their_defaults(name):
    declared = custom.NODE_CLASS_MAPPINGS[name].INPUT_TYPES()["required"]
    model = toy_model()

    def default(kind, options=None):
        if kind == "MODEL":
            return model
        return kind[0] if isinstance(kind, list) else options.get("default", False)

    (sampler,) = node(name)(**{key: default(*declaration) for key, declaration in declared.items()})
    (noise,) = node("RandomNoise")(3)
    (guider,) = node("CFGGuider")(model, prompt(1), prompt(2), 2.0)
    sigmas = torch.tensor([5.0, 2.0, 0.5, 0.0])
    out, _ = node("SamplerCustomAdvanced")(
        noise, guider, sampler, sigmas, {"samples": torch.zeros(1, 4, 4, 4)}
    )
    assert torch.isfinite(out["samples"]).all()


def test_the_kinds_of_er_sde_differ_in_their_noise():
    """eta counts for the reverse-time SDE alone, and without it there is no noise."""
    make = node("SamplerER_SDE")
    made = [
        make(kind, 2, eta, 0.5)[0].extra_options
        for kind, eta in (("ER-SDE", 2.0), ("Reverse-time SDE", 2.0), ("Reverse-time SDE", 0.0), ("ODE", 2.0))
    ]
    assert [options["s_noise"] for options in made] == [0.5, 0.5, 0.0, 0.0]
    assert made[0]["noise_scaler"] is None
    assert [options["noise_scaler"](3.0) for options in made[1:]] == [27.0, 3.0, 3.0]
    assert {options["max_stage"] for options in made} == {2}


def test_the_stochastic_adams_solver_has_noise_between_two_shares_of_the_schedule():
    model = toy_model()
    (sampler,) = node("SamplerSASolver")(
        model=model, eta=0.7, sde_start_percent=0.2, sde_end_percent=0.8, s_noise=0.9, predictor_order=2,
        corrector_order=1, use_pece=True, simple_order_2=False,
    )  # fmt: skip
    options = dict(sampler.extra_options)
    tau, to_sigma = options.pop("tau_func"), model.get_model_object("model_sampling").percent_to_sigma
    assert [tau(to_sigma(percent)) for percent in (0.1, 0.2, 0.5, 0.8, 0.9)] == [0.0, 0.7, 0.7, 0.7, 0.0]
    assert options == {
        "s_noise": 0.9, "predictor_order": 2, "corrector_order": 1, "use_pece": True, "simple_order_2": False,
    }  # fmt: skip


def test_an_unknown_name_of_the_module_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = custom.Nothing


@pytest.mark.parametrize(
    ("spacing", "middle"),
    [("linear", 0.5), ("cosine", math.sin(math.pi / 4)), ("sine", 1 - math.cos(math.pi / 4))],
)
def test_levels_between_two_bounds_become_more(spacing, middle):
    sigmas = torch.tensor([8.0, 4.0, 2.0, 0.0])
    (found,) = node("ExtendIntermediateSigmas")(sigmas, 2, 4.0, 2.0, spacing)
    expected = [8.0, 4.0, 4.0 - 2.0 * middle, 2.0, 2.0 - 2.0 * middle, 0.0]
    assert found.tolist() == pytest.approx(expected)
    (whole,) = node("ExtendIntermediateSigmas")(sigmas, 4, -1.0, 0.0, "linear")
    assert whole.tolist() == pytest.approx([8, 7, 6, 5, 4, 3.5, 3, 2.5, 2, 1.5, 1, 0.5, 0])


def test_a_share_of_the_steps_is_a_level_of_the_model():
    model, tell = toy_model(), node("SamplingPercentToSigma")
    sampling = model.get_model_object("model_sampling")
    assert tell(model, 0.0, True) == (float(sampling.sigma_max),)
    assert tell(model, 1.0, True) == (float(sampling.sigma_min),)
    assert tell(model, 0.0, False)[0] > 1e6 and tell(model, 1.0, False) == (0.0,)
    assert tell(model, 0.5, True) == tell(model, 0.5, False)
    assert tell(model, 0.5, True)[0] == pytest.approx(float(sampling.sigma(torch.tensor(499.5))), rel=1e-3)


def test_noise_is_added_between_the_first_level_and_the_last():
    model, noise = toy_model(), custom.Noise_RandomNoise(3)
    scale = model.model.latent_format.scale_factor
    drawn = noise.generate_noise(EMPTY)
    picture = {"samples": latents(1, 2, 8, 8), "noise_mask": "kept"}
    (found,) = node("AddNoise")(model, noise, torch.tensor([3.0, 1.0]), picture)
    torch.testing.assert_close(found["samples"], picture["samples"] + 2.0 * drawn / scale)
    assert found["noise_mask"] == "kept"
    (alone,) = node("AddNoise")(model, noise, torch.tensor([0.5]), EMPTY)
    torch.testing.assert_close(alone["samples"], 0.5 * drawn / scale)
    assert node("AddNoise")(model, noise, torch.tensor([]), picture) == (picture,)

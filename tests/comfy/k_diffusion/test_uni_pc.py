"""UniPC beside the scheduler of diffusers and a flow that is known."""

import math

import diffusers
import pytest
import torch

from comfy import samplers
from comfy.extra_samplers import uni_pc
from comfy.k_diffusion import sampling
from tests.comfy.k_diffusion.normal_flow import NormalData, measured_order

KINDS = pytest.mark.parametrize("is_flow", [False, True])
VARIANTS = pytest.mark.parametrize("variant", ["bh1", "bh2"])


def eps(x, sigma):
    return torch.tanh(0.3 * x) * sigma / (sigma + 1) + 0.1 * torch.sin(x)


@VARIANTS
@pytest.mark.parametrize("steps", [2, 3, 4, 9])
def test_the_steps_are_those_of_diffusers(variant, steps):
    scheduler = diffusers.UniPCMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", use_karras_sigmas=True,
        solver_order=min(3, steps - 1), solver_type=variant, final_sigmas_type="sigma_min",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    # With "sigma_min" the last level would come twice.
    scheduler.sigmas[-1] = 0.02
    sigmas = scheduler.sigmas.double()
    start = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)).double() * sigmas[0]
    ours = uni_pc.sample_unipc(
        lambda x, sigma: x - sigma[0] * eps(x, sigma[0]), start, sigmas, disable=True, variant=variant
    )
    signal = (1 + sigmas**2).rsqrt()
    x = start * signal[0]
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(eps(x / signal[i], sigmas[i]), t, x).prev_sample
    assert torch.allclose(ours, x / signal[-1], rtol=1e-4, atol=1e-4)


@KINDS
@VARIANTS
def test_the_error_falls_with_the_third_order(is_flow, variant):
    """Up to the last two steps, which are of lower order."""
    data = NormalData(is_flow)

    def error(steps):
        sigmas, seen = data.levels(steps), []
        x = data.start(sigmas[0])
        uni_pc.sample_unipc(data, x, sigmas, callback=seen.append, disable=True, variant=variant)
        step = seen[-2]
        return (step["x"] - data.end(x, sigmas[0], step["sigma"])).abs().max().item()

    assert measured_order(error, 40) > 2.7


@KINDS
def test_few_steps_come_closer_than_those_of_heun(is_flow):
    data = NormalData(is_flow)
    x = data.start(data.levels(1)[0])

    def error(sampler, steps):
        sigmas = data.levels(steps)
        out = sampler(data, x, sigmas, disable=True)
        return (out - data.end(x, sigmas[0], sigmas[-1])).abs().max().item()

    assert error(uni_pc.sample_unipc_bh2, 10) < error(sampling.sample_heun, 5)


@VARIANTS
def test_the_weights_are_exact_for_polynomials_in_the_log_snr(variant):
    """The mean of e^-(h-u) u^n over the step, for n up to the number of points."""
    ratios, h = [-0.7, -1.9, 1.0], 0.8
    weights = uni_pc.residual_weights(ratios, h, variant)
    grid = torch.linspace(0, h, 20001, dtype=torch.float64)
    for n in (1, 2, 3):
        integral = torch.trapezoid((grid - h).exp() * grid**n, grid).item()
        estimate = -sum(w * (r * h) ** n for w, r in zip(weights, ratios))
        assert estimate == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_every_step_asks_once_and_reports(steps):
    data, seen = NormalData(), []
    sigmas = sampling.get_sigmas_karras(steps, 0.5, 10.0)
    before, x = sigmas.clone(), data.start(10.0).float()
    start = x.clone()
    out = uni_pc.sample_unipc(data, x, sigmas, callback=seen.append, disable=True)
    assert data.asked == [float(step["sigma"]) for step in seen] == sigmas[:-1].tolist()
    assert [step["i"] for step in seen] == list(range(steps))
    assert set(seen[0]) >= {"x", "i", "sigma", "sigma_hat", "denoised"}
    assert torch.allclose(out, seen[-1]["denoised"], atol=0.05)
    # The schedule may be a node's cached output.
    assert torch.equal(sigmas, before)
    assert torch.equal(x, start)
    assert torch.equal(out, uni_pc.sample_unipc(data, x, sigmas, disable=True))


@KINDS
@pytest.mark.parametrize("last", [0.1, 0.0])
def test_one_step_is_an_euler_step(is_flow, last):
    data = NormalData(is_flow)
    sigmas = torch.tensor([0.8, last], dtype=torch.float64)
    x = data.start(0.8)
    out = uni_pc.sample_unipc(data, x, sigmas, disable=True)
    reached = last or uni_pc.LAST_SIGMA
    expected = sampling.sample_euler(data, x, torch.tensor([0.8, reached], dtype=torch.float64), disable=True)
    scale = 1 - reached if is_flow and not last else 1
    assert torch.allclose(out, expected / scale)


def test_a_flow_that_ends_before_zero_has_the_scale_of_the_end():
    data, picture = NormalData(is_flow=True), 3.0
    data.__class__ = type("Knowing", (NormalData,), {"__call__": lambda self, x, sigma: picture + 0 * x})
    out = uni_pc.sample_unipc(data, torch.zeros(1, 4, 4, 4), torch.linspace(1, 0, 5), disable=True)
    assert torch.allclose(out, torch.full_like(out, picture))


def test_no_step_leaves_the_latent():
    x = torch.ones(1, 4, 4, 4)
    assert uni_pc.sample_unipc(NormalData(), x, torch.tensor([1.0]), disable=True) is x


def test_a_level_that_comes_twice_does_no_harm():
    data = NormalData()
    sigmas = data.levels(20)
    x = data.start(sigmas[0])
    twice = torch.cat([sigmas[:5], sigmas[4:]])
    outs = [uni_pc.sample_unipc(data, x, levels, disable=True) for levels in (sigmas, twice)]
    assert torch.allclose(*outs, atol=1e-4)


def test_levels_below_the_last_one_of_the_method_still_descend():
    data = NormalData()
    sigmas = torch.tensor([1.0, 0.01, 0.0005, 0.0], dtype=torch.float64)
    x = data.start(1.0)
    out = uni_pc.sample_unipc(data, x, sigmas, disable=True)
    assert torch.isfinite(out).all()
    assert math.isclose(data.asked[-1], 0.0005)


def test_the_names_lead_to_both_variants_and_others_are_refused():
    data = NormalData()
    assert samplers.ksampler("uni_pc").sampler_function is uni_pc.sample_unipc
    assert samplers.sampler_object("uni_pc_bh2").sampler_function is uni_pc.sample_unipc_bh2
    sigmas, x = data.levels(6), data.start(10.0)
    explicit = uni_pc.sample_unipc(data, x, sigmas, disable=True, variant="bh2")
    assert torch.equal(uni_pc.sample_unipc_bh2(data, x, sigmas, disable=True), explicit)
    with pytest.raises(ValueError, match="variant is 'vary_coeff'; uni_pc knows 'bh1', 'bh2'"):
        uni_pc.sample_unipc(data, x, sigmas, variant="vary_coeff")

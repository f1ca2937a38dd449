"""Exponential second-order steps beside exact solutions and DPM-Solver++(2S)."""

import math

import pytest
import torch

from comfy.k_diffusion import sampling
from tests.comfy.k_diffusion.normal_flow import MEAN, SPREAD, NormalData, measured_order

KINDS = pytest.mark.parametrize("is_flow", [False, True])


def general(data, x, sigmas, *, r, solver_type, eta=0.0, noise_sampler=None):
    return sampling.sample_seeds_2(
        data, x, sigmas, disable=True, eta=eta, noise_sampler=noise_sampler, r=r, solver_type=solver_type
    )


@KINDS
@pytest.mark.parametrize("solver_type", ["phi_1", "phi_2"])
@pytest.mark.parametrize("r", [1.0, 0.5, 0.3])
def test_the_error_falls_with_the_second_order(is_flow, solver_type, r):
    data = NormalData(is_flow)

    def error(steps):
        sigmas = data.levels(steps)
        x = data.start(sigmas[0])
        out = general(data, x, sigmas, r=r, solver_type=solver_type)
        return (out - data.end(x, sigmas[0], sigmas[-1])).abs().max().item()

    assert measured_order(error, 80) > 1.7


def test_a_denoised_latent_that_is_a_line_in_log_snr_is_solved_exactly():
    """With D = a + b u, u the log SNR since the start: x' = e^-h x + (1 - e^-h) a + (h - 1 + e^-h) b."""
    start, h, a, b = 5.0, 1.3, 0.4, -0.8
    sigmas = torch.tensor([start, start * math.exp(-h)], dtype=torch.float64)
    x = NormalData().start(start)

    def line(x, sigma):
        return (a - b * (sigma / start).log()).reshape(-1, 1, 1, 1).expand_as(x)

    left = math.exp(-h)
    expected = left * x + (1 - left) * a + (h - 1 + left) * b
    assert torch.allclose(sampling.sample_exp_heun_2_x0(line, x, sigmas, disable=True), expected)


@KINDS
def test_phi_1_at_the_middle_is_dpm_solver_2s(is_flow):
    data = NormalData(is_flow)
    sigmas = data.levels(6)
    x = data.start(sigmas[0])
    reference = sampling.sample_dpmpp_2s_ancestral(data, x, sigmas, eta=0.0, disable=True)
    assert torch.allclose(general(data, x, sigmas, r=0.5, solver_type="phi_1"), reference)


@pytest.mark.parametrize("knob", ["eta", "s_noise"])
def test_without_noise_the_sde_sampler_draws_none(knob):
    data = NormalData()
    sigmas, x = data.levels(4), data.start(10.0)

    def refuse(*_):
        raise AssertionError("noise was drawn")

    out = sampling.sample_exp_heun_2_x0_sde(
        data, x, sigmas, noise_sampler=refuse, disable=True, **{knob: 0.0}
    )
    if knob == "eta":
        assert torch.equal(out, sampling.sample_exp_heun_2_x0(data, x, sigmas, disable=True))


@KINDS
@pytest.mark.parametrize("r", [1.0, 0.4])
def test_with_noise_the_distribution_of_the_data_is_kept(is_flow, r):
    data = NormalData(is_flow)
    sigmas = torch.linspace(1, 0, 41) if is_flow else sampling.get_sigmas_karras(40, 0.02, 10.0)
    x = data.start(sigmas[0], (1, 4, 64, 64)).float()
    noise = sampling.default_noise_sampler(x, seed=5)
    out = general(data, x, sigmas, r=r, solver_type="phi_2", eta=1.0, noise_sampler=noise)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert out.std().item() == pytest.approx(SPREAD, rel=0.06)


def test_a_seed_gives_the_same_latent_and_two_draws_a_step():
    """The second draw has no weight at r = 1; made all the same, it keeps a seed's noise where it was."""
    data, draws = NormalData(), []
    sigmas = sampling.get_sigmas_karras(4, 0.1, 10.0)
    x = data.start(10.0).float()

    def run(seed):
        return sampling.sample_exp_heun_2_x0_sde(data, x, sigmas, extra_args={"seed": seed}, disable=True)

    assert torch.equal(run(7), run(7))
    assert not torch.equal(run(7), run(8))
    source = sampling.default_noise_sampler(x, seed=7)
    counting = lambda *levels: draws.append(levels) or source(*levels)  # noqa: E731
    out = sampling.sample_exp_heun_2_x0_sde(data, x, sigmas, noise_sampler=counting, disable=True)
    assert torch.equal(out, run(7))
    assert len(draws) == 2 * 3


@KINDS
def test_a_last_step_to_zero_is_the_denoised_latent(is_flow):
    data, seen = NormalData(is_flow), []
    sigmas = torch.tensor([0.8, 0.0], dtype=torch.float64)
    x = data.start(0.8)
    out = sampling.sample_exp_heun_2_x0(data, x, sigmas, callback=seen.append, disable=True)
    assert torch.equal(out, data(x, sigmas[:1]))
    assert [step["i"] for step in seen] == [0]
    assert torch.equal(seen[0]["denoised"], out)


def test_a_flow_that_starts_at_one_starts_a_little_later():
    data = NormalData(is_flow=True)
    sigmas = torch.linspace(1, 0, 5)
    out = sampling.sample_exp_heun_2_x0(data, data.start(1.0).float(), sigmas, disable=True)
    assert torch.isfinite(out).all()
    assert 0.99 < data.asked[0] < 1.0
    assert sigmas[0] == 1.0


def test_an_unknown_solver_is_refused():
    data = NormalData()
    with pytest.raises(ValueError, match="'phi_1' and 'phi_2'"):
        sampling.sample_exp_heun_2_x0(data, data.start(1.0), data.levels(2), solver_type="heun", disable=True)

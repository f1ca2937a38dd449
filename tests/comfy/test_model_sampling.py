"""Noise schedules of models, against their formulas."""

import math
from types import SimpleNamespace

import pytest
import torch

from comfy import model_sampling as ms


def test_the_discrete_schedule_is_the_one_of_stable_diffusion():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0)
    schedule = ms.ModelSamplingDiscrete()
    assert torch.equal(schedule.sigmas, ((1 - alpha_bar) / alpha_bar).sqrt().float())
    assert float(schedule.sigma_min) == pytest.approx(0.0291672, rel=1e-5)
    assert float(schedule.sigma_max) == pytest.approx(14.614642, rel=1e-5)


def test_a_timestep_and_its_sigma_are_inverse():
    schedule = ms.ModelSamplingDiscrete()
    steps = torch.arange(0, 1000, 37)
    assert torch.equal(schedule.timestep(schedule.sigma(steps)), steps)
    between = schedule.sigma(torch.tensor(500.5))
    assert schedule.sigmas[500] < between < schedule.sigmas[501]
    assert float(between) == pytest.approx(math.sqrt(schedule.sigmas[500] * schedule.sigmas[501]), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "before"),
    [
        (ms.ModelSamplingDiscrete, ms.SIGMA_BEFORE_START),
        (ms.ModelSamplingContinuousEDM, ms.SIGMA_BEFORE_START),
        (ms.StableCascadeSampling, ms.SIGMA_BEFORE_START),
        (ms.ModelSamplingDiscreteFlow, 1.0),
        (ms.ModelSamplingFlux, 1.0),
    ],
)
def test_percentages_run_from_before_the_start_down_to_zero(make, before):
    schedule = make()
    levels = [float(schedule.percent_to_sigma(p)) for p in (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)]
    assert levels == sorted(levels, reverse=True)
    assert (levels[0], levels[-1]) == (before, 0.0)


def test_zero_terminal_snr_leaves_no_signal_and_keeps_the_first_step():
    plain, zero = ms.ModelSamplingDiscrete(), ms.ModelSamplingDiscrete(zsnr=True)
    assert float(zero.sigma_max) > 4000
    assert float(zero.sigma_min) == pytest.approx(float(plain.sigma_min), rel=1e-5)


def test_the_settings_of_a_model_are_used():
    config = SimpleNamespace(sampling_settings={"shift": 3.0, "multiplier": 1.0})
    flow = ms.ModelSamplingDiscreteFlow(config)
    assert float(flow.sigma(torch.tensor(0.5))) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))
    assert float(flow.timestep(torch.tensor(0.5))) == 0.5


def test_the_shift_of_flux_is_the_exponential_one():
    schedule = ms.ModelSamplingFlux()
    assert float(schedule.sigma(torch.tensor(0.5))) == pytest.approx(math.exp(1.15) / (math.exp(1.15) + 1))


@pytest.mark.parametrize("name", ["linear", "sqrt_linear", "sqrt", "cosine"])
def test_betas_stay_between_zero_and_one(name):
    betas = ms.make_beta_schedule(name, 100)
    assert betas.dtype == torch.float64
    assert ((betas > 0) & (betas < 1)).all()


def test_an_unknown_beta_schedule_is_named():
    with pytest.raises(ValueError, match="Unknown beta schedule 'wavy'. Known are linear"):
        ms.make_beta_schedule("wavy", 10)


@pytest.mark.parametrize(
    "kind", [ms.EPS, ms.V_PREDICTION, ms.V_PREDICTION_DDPM, ms.EDM, ms.CONST, ms.COSMOS_RFLOW]
)
def test_a_perfect_network_denoises_perfectly(kind):
    """The network's answer is written down from its definition; the denoised latent must be the data."""
    prediction = kind()
    prediction.sigma_data = 1.0
    x0, noise = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.8, 0.6])
    s = sigma.reshape(3, 1, 1, 1)
    flow_time = s / (s + 1)
    norm = (1 + s**2).sqrt()
    x = (1 - s) * x0 + s * noise if kind is ms.CONST else x0 + s * noise
    answers = {
        ms.EPS: noise,
        ms.V_PREDICTION: (noise - s * x0) / norm,
        ms.V_PREDICTION_DDPM: None,
        ms.EDM: (s * x0 - noise) / norm,
        ms.CONST: noise - x0,
        ms.COSMOS_RFLOW: noise - x0,
    }
    if kind is ms.V_PREDICTION_DDPM:
        # Here the latent is variance preserving already.
        x, answer = x / norm, (noise - s * x0) / norm
    else:
        answer = answers[kind]
    assert flow_time.max() < 1
    assert torch.allclose(prediction.calculate_denoised(sigma, answer, x), x0, atol=1e-5)


def test_noise_is_scaled_to_the_variance_of_training_at_full_denoise():
    prediction = ms.EPS()
    noise, latent, sigma = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.tensor([3.0])
    full = prediction.noise_scaling(sigma, noise, latent, max_denoise=True)
    assert float(full.max()) == pytest.approx(10**0.5)
    assert float(prediction.noise_scaling(sigma, noise, latent).max()) == 3.0


def test_a_flow_latent_left_in_the_middle_comes_back_to_scale():
    prediction, sigma = ms.CONST(), torch.tensor([0.25])
    latent = torch.full((1, 4, 2, 2), 2.0)
    mixed = prediction.noise_scaling(sigma, torch.zeros_like(latent), latent)
    assert torch.allclose(prediction.inverse_noise_scaling(sigma, mixed), latent)

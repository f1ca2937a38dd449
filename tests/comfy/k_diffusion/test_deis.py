"""DEIS beside quadrature, other multistep samplers and the scheduler of diffusers."""

import diffusers
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch

from comfy.k_diffusion import deis, sampling
from comfy.k_diffusion.multistep import adams_bashforth
from tests.comfy.k_diffusion.normal_flow import NormalData, measured_order

KINDS = pytest.mark.parametrize("is_flow", [False, True])


def vp_time(sigma):
    """The time of the linear schedule, from the two levels that define it, by a search."""
    ends = [(0.001, 0.002), (1.0, 80.0)]
    powers = np.array([[t**2 / 2, t] for t, _ in ends])
    beta_d, beta_min = np.linalg.solve(powers, [np.log1p(level**2) for _, level in ends])
    return scipy.optimize.brentq(lambda t: beta_d * t**2 / 2 + beta_min * t - np.log1p(sigma**2), 1e-3, 2.0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_weights_integrate_polynomials_in_the_time_of_the_schedule(order):
    sigmas, sigma_next = [2.0, 3.1, 5.0, 9.0][:order], 1.4
    weights = deis.slope_weights(sigmas, sigma_next, deis._TIMES["tab"])
    for power in range(order):
        integral, _ = scipy.integrate.quad(lambda s, power=power: vp_time(s) ** power, sigmas[0], sigma_next)
        estimate = sum(w * vp_time(s) ** power for w, s in zip(weights, sigmas))
        assert estimate == pytest.approx(integral / (sigma_next - sigmas[0]), rel=1e-8)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_polynomial_in_sigma_makes_the_linear_multistep_method(order):
    data = NormalData()
    sigmas = torch.cat([data.levels(7), torch.zeros(1, dtype=torch.float64)])
    x = data.start(sigmas[0])
    ours = sampling.sample_deis(data, x, sigmas, disable=True, max_order=order, deis_mode="rhoab")
    assert torch.allclose(ours, sampling.sample_lms(data, x, sigmas, disable=True, order=order), atol=1e-12)


def eps(x, sigma):
    return torch.tanh(0.3 * x) * sigma / (sigma + 1) + 0.1 * torch.sin(x)


def test_a_polynomial_in_log_sigma_makes_the_method_of_diffusers():
    scheduler = diffusers.DEISMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=3,
        use_karras_sigmas=True, lower_order_final=False,
    )  # fmt: skip
    scheduler.set_timesteps(8)
    sigmas = scheduler.sigmas.double()
    exploding = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)).double() * sigmas[0]

    def denoiser(x, sigma):
        return x - sigma[0] * eps(x, sigma[0])

    def weights_of(i, order):
        return deis.slope_weights(sigmas.numpy()[i - order + 1 : i + 1][::-1], float(sigmas[i + 1]), np.log)

    ours = adams_bashforth(denoiser, exploding, sigmas, None, None, True, 3, weights_of)
    signal = (1 + sigmas**2).rsqrt()
    x = exploding * signal[0]
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(eps(x / signal[i], sigmas[i]), t, x).prev_sample
    assert torch.allclose(ours, x / signal[-1], rtol=1e-4, atol=1e-4)


@KINDS
@pytest.mark.parametrize("mode", ["tab", "rhoab"])
@pytest.mark.parametrize(("max_order", "order"), [(1, 1), (2, 2), (3, 2)])
def test_the_error_falls_with_the_order(is_flow, mode, max_order, order):
    """The first step has one slope, which bounds the order by two."""
    data = NormalData(is_flow)

    def error(steps):
        sigmas = data.levels(steps)
        x = data.start(sigmas[0])
        out = sampling.sample_deis(data, x, sigmas, disable=True, max_order=max_order, deis_mode=mode)
        return (out - data.end(x, sigmas[0], sigmas[-1])).abs().max().item()

    assert measured_order(error, 80) > order - 0.3


@KINDS
def test_a_schedule_of_one_step_is_an_euler_step(is_flow):
    data = NormalData(is_flow)
    sigmas = data.levels(1)
    x = data.start(sigmas[0])
    euler = sampling.sample_euler(data, x, sigmas, disable=True)
    assert torch.allclose(sampling.sample_deis(data, x, sigmas, disable=True), euler)
    sigmas[-1] = 0
    denoised = data(x, sigmas[:1])
    assert torch.equal(sampling.sample_deis(data, x, sigmas, disable=True), denoised)


def test_every_step_asks_once_reports_and_repeats():
    data, seen = NormalData(), []
    sigmas = sampling.get_sigmas_karras(5, 0.1, 10.0)
    x = data.start(10.0).float()
    out = sampling.sample_deis(data, x, sigmas, callback=seen.append, disable=True)
    assert data.asked == [float(step["sigma"]) for step in seen] == sigmas[:-1].tolist()
    assert torch.equal(seen[-1]["denoised"], out)
    assert torch.equal(out, sampling.sample_deis(data, x, sigmas, disable=True))


def test_an_unknown_mode_is_refused():
    data = NormalData()
    with pytest.raises(ValueError, match="deis_mode is 'logrho'; deis knows 'tab', 'rhoab'"):
        sampling.sample_deis(data, data.start(1.0), data.levels(2), deis_mode="logrho", disable=True)

"""Exponential Runge-Kutta steps of second order in log SNR, with or without noise.

The linear part of the flow is solved exactly; the denoised latent is taken for a line through two
evaluations, at the start and at a share `r` of the step (Hochbruck & Ostermann 2005). With noise this is
SEEDS-2 (Gonzalez et al. 2023, arXiv 2305.14267). At r = 1 it is the exponential form of Heun's method.
"""

from typing import NamedTuple

import torch

from comfy.k_diffusion.walk import (
    Run,
    half_log_snr_to_sigma,
    noise_scale,
    offset_first_sigma_for_snr,
    sigma_to_half_log_snr,
)


def phi_1(z):
    """z phi_1(z) = e^z - 1."""
    return torch.expm1(z)


def phi_2(z):
    """z phi_2(z) = (e^z - 1) / z - 1."""
    return torch.expm1(z) / z - 1


def two_point_weights(z, r, solver_type):
    """The weights of the denoised latents at the start and at the share r of a step.

    "phi_2" integrates the line through both exactly; "phi_1" takes the line at the middle of the step.
    """
    if solver_type == "phi_2":
        second = phi_2(z) / r
    else:
        second = phi_1(z) / (2 * r)
    return phi_1(z) - second, second


class Interval(NamedTuple):
    """From a level with half log SNR `start`, `h` further: `eta` says how much of the noise is fresh."""

    sigma: torch.Tensor
    start: torch.Tensor
    h: torch.Tensor
    eta: float
    model_sampling: object

    @classmethod
    def between(cls, sigma, sigma_next, eta, model_sampling):
        """The whole step."""
        start = sigma_to_half_log_snr(sigma, model_sampling)
        h = sigma_to_half_log_snr(sigma_next, model_sampling) - start
        return cls(sigma, start, h, eta, model_sampling)

    def level(self, share):
        """The noise level at a share of the interval."""
        return half_log_snr_to_sigma(self.start + share * self.h, self.model_sampling)

    def exponent(self, share):
        """The z of the phi functions: minus the length, with the decay that makes room for fresh noise."""
        return -share * self.h * (1 + self.eta)

    def go(self, x, sigma, share, evaluated):
        """x at the share, which is at level `sigma`: `evaluated` is a sum of weight times denoised."""
        alpha = sigma * (self.start + share * self.h).exp()
        return sigma / self.sigma * (-share * self.h * self.eta).exp() * x - alpha * evaluated

    def fresh(self, share):
        """The deviation of the fresh noise gathered over a share, for noise level one."""
        return (-2 * share * self.h * self.eta).expm1().neg().sqrt()


def sample_two_points(
    model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, r, solver_type
):
    """Steps of second order with a middle evaluation at the share `r`, and fresh noise where `eta` > 0."""
    if solver_type not in ("phi_1", "phi_2"):
        raise ValueError(f"solver_type is '{solver_type}'; this solver knows 'phi_1' and 'phi_2'.")
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    is_noisy = eta > 0 and s_noise > 0
    s_noise = s_noise * noise_scale(schedule)
    run.sigmas = offset_first_sigma_for_snr(sigmas, schedule)
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        if sigma_next == 0:
            x = denoised
            continue
        step = Interval.between(sigma, sigma_next, eta, schedule)
        middle = step.level(r)
        x_middle = step.go(x, middle, r, phi_1(step.exponent(r)) * denoised)
        if is_noisy:
            fresh = step.fresh(r) * noise(sigma, middle)
            x_middle = x_middle + fresh * middle * s_noise
        denoised_middle = run.denoise(x_middle, middle)
        first, second = two_point_weights(step.exponent(1.0), r, solver_type)
        x = step.go(x, sigma_next, 1.0, first * denoised + second * denoised_middle)
        if is_noisy:
            # The noise up to the middle decays on the way; at r = 1 the second draw has no room, yet is made,
            # so that a seed gives the same noise for every r.
            later = noise(middle, sigma_next)
            if r < 1:
                fresh = fresh * (-(1 - r) * step.h * eta).exp() + step.fresh(1 - r) * later
            x = x + fresh * sigma_next * s_noise
    return x


@torch.no_grad()
def sample_exp_heun_2_x0(model, x, sigmas, extra_args=None, callback=None, disable=None, solver_type="phi_2"):
    """Exponential Heun: a step to the next level, and again with the denoised latents of both ends."""
    return sample_two_points(
        model, x, sigmas, extra_args, callback, disable, 0.0, 0.0, None, 1.0, solver_type
    )


@torch.no_grad()
def sample_exp_heun_2_x0_sde(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    eta=1.0,
    s_noise=1.0,
    noise_sampler=None,
    solver_type="phi_2",
):
    """`sample_exp_heun_2_x0` for the SDE: SEEDS-2 (Gonzalez et al. 2023) with its middle at the end."""
    return sample_two_points(
        model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, 1.0, solver_type
    )

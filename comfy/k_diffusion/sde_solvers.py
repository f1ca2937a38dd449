"""Solvers for the reverse SDE in two families: extended reverse-time SDE and SEEDS.

They think in variance-exploding terms: x / alpha with the noise rho = sigma / alpha, and lambda = -log(rho)
is half the log of the signal-to-noise ratio. alpha is 1 for a variance-exploding model, 1 - sigma for a flow.
"""

import math

import torch

from comfy.k_diffusion.walk import (
    Run,
    half_log_snr_to_sigma,
    noise_scale,
    offset_first_sigma_for_snr,
    sigma_to_half_log_snr,
)

# --- extended reverse-time SDE (Cui et al. 2023, arXiv 2309.06169) ------------------------------------

# The integrals over 1 / phi are sums over so many equal parts. The number is a part of the picture.
_PARTS = 200


def er_sde_noise_scaler(rho):
    """phi(rho), by which the paper names an SDE; this one is its choice for few steps."""
    return rho * ((rho**0.3).exp() + 10.0)


def reverse_time_noise_scaler(eta):
    """phi(rho) of the reverse-time SDE with noise of strength `eta`: 0 is the flow without noise, 1 the
    usual SDE.
    """
    return lambda rho: rho ** (eta + 1)


@torch.no_grad()
def sample_er_sde(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    s_noise=1.0,
    noise_sampler=None,
    noise_scaler=None,
    max_stage=3,
):
    """ER-SDE-Solver of up to `max_stage` (1 to 3) orders (Cui et al. 2023, algorithms 1 to 3).

    A step takes the prediction as a Taylor series in rho, whose derivatives are differences of past
    predictions.
    """
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise, phi = s_noise * noise_scale(schedule), noise_scaler or er_sde_noise_scaler
    run.sigmas = offset_first_sigma_for_snr(sigmas, schedule)
    rhos = sigma_to_half_log_snr(run.sigmas, schedule).neg().exp()
    series = []  # the prediction and its derivatives by rho, as of the last step
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        if sigma_next == 0:
            x = denoised
            continue
        rho, rho_next = rhos[i], rhos[i + 1]
        series = _derivatives(denoised, series, rhos[: i + 1], min(max_stage, 3))
        kept = phi(rho_next) / phi(rho)
        exploding = kept * (x / (sigma / rho)) + (1 - kept) * denoised
        for weight, derivative in zip(_taylor_weights(phi, rho, rho_next, len(series) - 1), series[1:]):
            exploding = exploding + weight * derivative
        if s_noise > 0:
            missing = (rho_next**2 - (rho * kept) ** 2).clamp(min=0.0).sqrt()
            exploding = exploding + noise(sigma, sigma_next) * s_noise * missing
        x = exploding * (sigma_next / rho_next)
    return x


def _derivatives(denoised, before, rhos, count):
    """`denoised` at rhos[-1] and its derivatives by rho, `count` terms or as many as the history allows."""
    series = [denoised]
    for k, earlier in enumerate(before[: count - 1], start=1):
        series.append((series[-1] - earlier) / ((rhos[-1] - rhos[-1 - k]) / k))
    return series


def _taylor_weights(phi, rho, rho_next, count):
    """What the first, second, ... derivative of the prediction adds to a step from `rho` to `rho_next`."""
    h = rho_next - rho
    part = -h / _PARTS
    places = rho_next + part * torch.arange(_PARTS, dtype=torch.float32, device=h.device)
    density = 1 / phi(places)
    weights = []
    for k in range(1, count + 1):
        integral = ((places - rho) ** (k - 1) * density).sum() * part / math.factorial(k - 1)
        weights.append(h**k / math.factorial(k) + phi(rho_next) * integral)
    return weights


# --- SEEDS (Gonzalez et al. 2023, arXiv 2305.14267) -----------------------------------------------------


class _NoisePath:
    """The noise that a step has gathered, in units of the level where it stands.

    From place to place what is there fades and fresh noise takes its share, so that the stages of a step
    see one and the same path.
    """

    def __init__(self, noise, eta, s_noise):
        self.noise, self.eta, self.s_noise = noise, eta, s_noise
        self.gathered = 0.0

    def go(self, length, sigma, sigma_next):
        """The noise after `length` more of lambda, from one level to another."""
        if self.eta <= 0 or self.s_noise <= 0:
            return 0.0
        fade = -self.eta * length
        fresh = self.noise(sigma, sigma_next) * (2 * fade).expm1().neg().sqrt()
        self.gathered = self.gathered * fade.exp() + fresh
        return self.gathered * self.s_noise


class _Step:
    """One step of SEEDS: states and levels at fractions c of its length in lambda."""

    def __init__(self, x, sigma, sigma_next, schedule, path):
        self.x, self.sigma, self.sigma_next = x, sigma, sigma_next
        self.schedule, self.path = schedule, path
        self.start = sigma_to_half_log_snr(sigma, schedule)
        self.end = sigma_to_half_log_snr(sigma_next, schedule)
        self.reached = 0.0, sigma

    def place(self, c):
        """(sigma, lambda) at a fraction."""
        if c is None:
            return self.sigma_next, self.end
        between = torch.lerp(self.start, self.end, c)
        return half_log_snr_to_sigma(between, self.schedule), between

    def arrive(self, denoised, change=None, c=None):
        """(x, sigma) at fraction `c`, or without it at the end.

        `change`, a pair of a fraction and the difference of the prediction there to `denoised`, makes the
        prediction a line instead of a constant.
        """
        sigma, lambda_ = self.place(c)
        c = 1.0 if c is None else c
        h, eta = self.end - self.start, self.path.eta
        decay = (-c * h * (eta + 1)).expm1()  # minus h phi_1(-h) of the paper's exponential functions
        signal = -decay * denoised
        if change is not None:
            at, difference = change
            signal = signal + (1 + decay / (c * h * (eta + 1))) * (c / at) * difference
        x = sigma / self.sigma * (-c * h * eta).exp() * self.x + sigma * lambda_.exp() * signal
        reached, sigma_reached = self.reached
        x = x + self.path.go((c - reached) * h, sigma_reached, sigma) * sigma
        self.reached = c, sigma
        return x, sigma


def _sample_seeds(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, stages):
    """The walk of SEEDS; `stages(step, denoised, denoise)` gives the state at the end of a step."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise = s_noise * noise_scale(schedule)
    run.sigmas = offset_first_sigma_for_snr(sigmas, schedule)
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        if sigma_next == 0:
            x = denoised
            continue
        step = _Step(x, sigma, sigma_next, schedule, _NoisePath(noise, eta, s_noise))
        x, _ = stages(step, denoised, run.denoise)
    return x


@torch.no_grad()
def sample_seeds_2(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    eta=1.0,
    s_noise=1.0,
    noise_sampler=None,
    r=0.5,
    solver_type="phi_1",
):
    """SEEDS-2 for predictions of the data (Gonzalez et al. 2023), with its middle evaluation at fraction `r`.

    `phi_1` averages the two predictions, as DPM-Solver++(2S) does; `phi_2` integrates the line through them.
    """
    if solver_type not in ("phi_1", "phi_2"):
        raise ValueError(f"solver_type is '{solver_type}'; seeds_2 knows 'phi_1' and 'phi_2'.")

    def stages(step, denoised, denoise):
        denoised_mid = denoise(*step.arrive(denoised, c=r))
        if solver_type == "phi_1":
            return step.arrive(torch.lerp(denoised, denoised_mid, 1 / (2 * r)))
        return step.arrive(denoised, (r, denoised_mid - denoised))

    return _sample_seeds(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, stages)


@torch.no_grad()
def sample_seeds_3(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    eta=1.0,
    s_noise=1.0,
    noise_sampler=None,
    r_1=1 / 3,
    r_2=2 / 3,
):
    """SEEDS-3 for predictions of the data (Gonzalez et al. 2023): evaluated at 0, `r_1` and `r_2`."""

    def stages(step, denoised, denoise):
        denoised_1 = denoise(*step.arrive(denoised, c=r_1))
        denoised_2 = denoise(*step.arrive(denoised, (r_1, denoised_1 - denoised), c=r_2))
        return step.arrive(denoised, (r_2, denoised_2 - denoised))

    return _sample_seeds(model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, stages)


# --- exponential Heun: SEEDS-2 with its second evaluation at the end of the step ------------------------


@torch.no_grad()
def sample_exp_heun_2_x0(model, x, sigmas, extra_args=None, callback=None, disable=None, solver_type="phi_2"):
    """Heun's method in exponential form: a step, and again with the predictions of both ends; no noise."""
    return sample_seeds_2(
        model, x, sigmas, extra_args, callback, disable, eta=0.0, r=1.0, solver_type=solver_type
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
    """`sample_exp_heun_2_x0` for the SDE. The second draw of a step has no room, yet is made: so a seed's
    noise is the same for every place of the second evaluation.
    """
    return sample_seeds_2(
        model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, 1.0, solver_type
    )

"""SA-Solver, stochastic Adams methods (Xue et al. 2023, arXiv 2309.05019).

Time is lambda, half the log of the signal-to-noise ratio. An SDE with noise of strength tau decays in it with
the rate 1 + tau^2, and a step weighs the predictions of several levels so that polynomials in lambda are
integrated exactly.
"""

import math
from typing import NamedTuple

import torch

from comfy.k_diffusion.walk import Run, noise_scale, offset_first_sigma_for_snr, sigma_to_half_log_snr


def get_tau_interval_func(start_sigma, end_sigma, eta=1.0):
    """tau(sigma): `eta` from `start_sigma` down to `end_sigma`, without noise elsewhere."""

    def tau_func(sigma):
        return float(eta) if eta > 0 and end_sigma <= float(sigma) <= start_sigma else 0.0

    return tau_func


def _default_tau(schedule):
    # A bare denoiser has no schedule of which this could be a part.
    if schedule is None:
        return get_tau_interval_func(math.inf, 0.0)
    return get_tau_interval_func(schedule.percent_to_sigma(0.2), schedule.percent_to_sigma(0.8))


def _moment(p, z):
    """The integral of z exp(z v) v^p over [-1, 0]."""
    if z < 1.0:  # the recursion below would lose its digits
        series = [(-z) ** n / (math.factorial(n) * (n + p + 1)) for n in range(20)]
        return (-1) ** p * z * math.fsum(series)
    value = -math.expm1(-z)
    for q in range(1, p + 1):
        value = -((-1) ** q) * math.exp(-z) - q / z * value
    return value


def adams_weights(times, start, end, rate):
    """Weights of the values at `times` for the integral of rate exp(rate (t - end)) over [start, end]
    (equations 15 and 18 without alpha).
    """
    h, order = end - start, len(times)
    nodes = torch.tensor([(time - end) / h for time in times], dtype=torch.float64)
    moments = torch.tensor([_moment(p, rate * h) for p in range(order)], dtype=torch.float64)
    return torch.linalg.solve(torch.vander(nodes, order, increasing=True).T, moments).tolist()


def simple_weights(times, start, end, rate):
    """`adams_weights` of second order as the paper's appendix D abbreviates them."""
    h, oldest = end - start, times[0]
    # A corrector has the end among its two times; a predictor ends at the start.
    newer = rate * h / 2 if times[-1] == end else rate * h**2 / 2 / (start - oldest) - math.expm1(-rate * h)
    return [-math.expm1(-rate * h) - newer, newer]


class _Leap(NamedTuple):
    """A step of the SDE from time `start` to time `end`."""

    start: float
    end: float
    rate: float  # 1 + tau^2
    decay: float  # what is left of the state
    alpha: float  # scale of the signal at the end
    noise: torch.Tensor | float

    def arrive(self, x, times, predictions, simple):
        """The state at the end; `times` are those of the last `predictions`."""
        weights_of = simple_weights if simple and len(times) == 2 else adams_weights
        weights = weights_of(times, self.start, self.end, self.rate)
        signal = sum(w * prediction for w, prediction in zip(weights, predictions[-len(times) :]))
        return self.decay * x + self.alpha * signal + self.noise


@torch.no_grad()
def sample_sa_solver(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=False,
    tau_func=None,
    s_noise=1.0,
    noise_sampler=None,
    predictor_order=3,
    corrector_order=4,
    use_pece=False,
    simple_order_2=False,
):
    """SA-Solver (Xue et al. 2023, algorithm 1): an Adams predictor, and a corrector with the same noise.

    `tau_func(sigma)` is the noise at a level; by default 1 in the middle of the schedule and 0 at its ends.
    `use_pece` evaluates the corrected state too. Near a last level of 0 the orders fall, for stability.
    """
    if len(sigmas) <= 1:
        return x
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise, tau_func = s_noise * noise_scale(schedule), tau_func or _default_tau(schedule)
    run.sigmas = offset_first_sigma_for_snr(sigmas, schedule)
    levels = run.sigmas.detach().cpu().double()
    times, levels = sigma_to_half_log_snr(levels, schedule).tolist(), levels.tolist()

    def leap(i, sigma, sigma_next):
        tau, h = float(tau_func(sigma_next)), times[i + 1] - times[i]
        fresh = 0.0
        if tau > 0 and s_noise > 0:
            spread = math.sqrt(-math.expm1(-2 * tau**2 * h))
            fresh = noise(sigma, sigma_next) * (levels[i + 1] * spread * s_noise)
        decay = levels[i + 1] / levels[i] * math.exp(-(tau**2) * h)
        alpha = levels[i + 1] * math.exp(times[i + 1])
        return _Leap(times[i], times[i + 1], 1 + tau**2, decay, alpha, fresh)

    predictions, last_leap, x_ahead = [], None, x
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x_ahead)
        predictions = [*predictions, denoised][-max(predictor_order, corrector_order) :]
        steps_left = len(sigmas) - 1 - i if levels[-1] == 0 else len(sigmas)
        order = min(corrector_order, len(predictions), steps_left)
        if last_leap is None or order == 0 or (levels[i + 1] == 0 and not use_pece):
            x = x_ahead
        else:
            x = last_leap.arrive(x, times[i - order + 1 : i + 1], predictions, simple_order_2)
            if use_pece:
                denoised = predictions[-1] = run.denoise(x, sigma)
        if levels[i + 1] == 0:
            x_ahead = denoised
            continue
        last_leap = leap(i, sigma, sigma_next)
        order = min(predictor_order, len(predictions), steps_left - 1)
        x_ahead = last_leap.arrive(x, times[i - order + 1 : i + 1], predictions, simple_order_2)
    return x_ahead


@torch.no_grad()
def sample_sa_solver_pece(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=False,
    tau_func=None,
    s_noise=1.0,
    noise_sampler=None,
    predictor_order=3,
    corrector_order=4,
    simple_order_2=False,
):
    """`sample_sa_solver` that evaluates the corrected state too: predict, evaluate, correct, evaluate."""
    return sample_sa_solver(
        model,
        x,
        sigmas,
        extra_args,
        callback,
        disable,
        tau_func,
        s_noise,
        noise_sampler,
        predictor_order,
        corrector_order,
        use_pece=True,
        simple_order_2=simple_order_2,
    )

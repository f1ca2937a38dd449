"""Noise schedules and samplers: one pure function per sampler.

Every sampler is `sample_x(model, x, sigmas, extra_args=None, callback=None, disable=None, ...)`:

- `model(x, sigma, **extra_args)` returns the denoised latent; `sigma` has one value per sample;
- `x` is the noisy latent (B, C, ...) at level `sigmas[0]`; `sigmas` descends and usually ends in 0;
- `callback` gets a dict with x, i, sigma, sigma_hat, denoised once a step; `disable` hides the console bar;
- own knobs come last; `noise_sampler(sigma, sigma_next)` is the noise source of the stochastic ones.

In *variance exploding* terms a latent is x0 + sigma noise, and "go from sigma to tau along the line through
the denoised latent" is `move`. A flow model's latent is (1 - sigma) x0 + sigma noise; divided by
alpha = 1 - sigma it is variance exploding at sigma / alpha, so samplers that need that work on x / alpha and
scale back.
"""

import warnings
from typing import NamedTuple

import torch
import torchsde
from tqdm.auto import tqdm

from comfy.k_diffusion.deis import sample_deis
from comfy.k_diffusion.dpm_solver import DPMSolver, PIDStepSizeController, log_times
from comfy.k_diffusion.multistep import (
    linear_multistep_coeff,
    sample_gradient_estimation,
    sample_gradient_estimation_cfg_pp,
    sample_ipndm,
    sample_ipndm_v,
    sample_lms,
    sample_res_multistep,
    sample_res_multistep_ancestral,
    sample_res_multistep_ancestral_cfg_pp,
    sample_res_multistep_cfg_pp,
)
from comfy.k_diffusion.sa_solver import sample_sa_solver, sample_sa_solver_pece
from comfy.k_diffusion.schedules import (
    append_zero,
    get_sigmas_exponential,
    get_sigmas_karras,
    get_sigmas_laplace,
    get_sigmas_polyexponential,
    get_sigmas_vp,
)
from comfy.k_diffusion.sde_solvers import (
    sample_er_sde,
    sample_exp_heun_2_x0,
    sample_exp_heun_2_x0_sde,
    sample_seeds_2,
    sample_seeds_3,
)
from comfy.k_diffusion.walk import (
    Churn,
    Run,
    SeedsOfRequests,
    ancestral,
    get_ancestral_step,
    half_log_snr_to_sigma,
    is_flow,
    move,
    noise_scale,
    offset_first_sigma_for_snr,
    sigma_to_half_log_snr,
    to_d,
)

# What node packs import from here although it lives in a neighbour.
REEXPORTED = (
    sample_deis,
    sample_exp_heun_2_x0,
    sample_exp_heun_2_x0_sde,
    append_zero,
    get_sigmas_exponential,
    get_sigmas_karras,
    get_sigmas_laplace,
    get_sigmas_polyexponential,
    get_sigmas_vp,
    linear_multistep_coeff,
    sample_ipndm,
    sample_ipndm_v,
    sample_lms,
    sample_gradient_estimation,
    sample_gradient_estimation_cfg_pp,
    sample_res_multistep,
    sample_res_multistep_ancestral,
    sample_res_multistep_ancestral_cfg_pp,
    sample_res_multistep_cfg_pp,
    sample_er_sde,
    sample_seeds_2,
    sample_seeds_3,
    sample_sa_solver,
    sample_sa_solver_pece,
    PIDStepSizeController,
)

# --- noise
# -----------------------------------------------------------------------------------------------------------


def default_noise_sampler(x, seed=None):
    """Independent normal noise like `x`. On the CPU the seed is raised by one, as the seed itself made the
    start.
    """
    if isinstance(seed, SeedsOfRequests):
        return seed.noise_sampler(default_noise_sampler, x)
    generator = None
    if seed is not None:
        generator = torch.Generator(device=x.device)
        generator.manual_seed(seed + 1 if x.device.type == "cpu" else seed)

    def draw(sigma, sigma_next):
        return torch.randn(x.size(), dtype=x.dtype, layout=x.layout, device=x.device, generator=generator)

    return draw


class BatchedBrownianTree:
    """Brownian paths over [t0, t1] that can be asked for any interval; one seed for the batch, or one per
    sample.
    """

    def __init__(self, x, t0, t1, seed=None, **kwargs):
        self.cpu_tree = kwargs.pop("cpu", True)
        t0, t1, self.sign = self.sort(t0, t1)
        start = kwargs.pop("w0", None)
        start = torch.zeros_like(x) if start is None else start
        self.batched = isinstance(seed, (tuple, list))
        if self.batched:
            if len(seed) != x.shape[0]:
                raise ValueError(
                    f"{len(seed)} seeds for a batch of {x.shape[0]}: give one seed, or one per sample."
                )
            start = start[0]
        elif seed is None:
            seed = [torch.randint(0, 2**63 - 1, ()).item()]
        else:
            seed = [seed]
        if self.cpu_tree:
            t0, start, t1 = (value.detach().cpu() for value in (t0, start, t1))
        self.trees = [torchsde.BrownianTree(t0, start, t1, entropy=entropy, **kwargs) for entropy in seed]

    @staticmethod
    def sort(a, b):
        """The two times in ascending order, and the sign of the interval."""
        return (a, b, 1) if a < b else (b, a, -1)

    def __call__(self, t0, t1):
        t0, t1, sign = self.sort(t0, t1)
        device, dtype = t0.device, t0.dtype
        if self.cpu_tree:
            t0, t1 = t0.detach().cpu().float(), t1.detach().cpu().float()
        with warnings.catch_warnings():
            # The library rounds its bounds, then warns about our exact ones and clamps.
            warnings.filterwarnings("ignore", message="Should have t[ab]")
            increments = torch.stack([tree(t0, t1) for tree in self.trees]).to(device=device, dtype=dtype)
        increments = increments * (self.sign * sign)
        return increments if self.batched else increments[0]


class BrownianTreeNoiseSampler:
    """Unit noise from a Brownian path between two levels, so that the picture keeps its shape when steps
    change.
    """

    def __init__(self, x, sigma_min, sigma_max, seed=None, transform=lambda x: x, cpu=False):
        self.transform = transform
        self.tree = BatchedBrownianTree(x, self._time(sigma_min), self._time(sigma_max), seed, cpu=cpu)

    def _time(self, sigma):
        return self.transform(torch.as_tensor(sigma))

    def __call__(self, sigma, sigma_next):
        t0, t1 = self._time(sigma), self._time(sigma_next)
        return self.tree(t0, t1) / (t1 - t0).abs().sqrt()


# --- Karras et al.: Euler, Heun and their kin
# ------------------------------------------------------------------------


@torch.no_grad()
def sample_euler(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=float("inf"),
    s_noise=1.0,
):
    """Euler steps (Karras et al. 2022, algorithm 2 without the correction)."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i, sigma, sigma_next in run.steps():
        x, sigma_hat = churn.raised(x, sigma, len(sigmas) - 1)
        x = move(x, run.first(i, x, sigma_hat), sigma_next / sigma_hat)
    return x


@torch.no_grad()
def sample_euler_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Euler steps below the target level, then fresh noise up to it."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise = s_noise * noise_scale(schedule)
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        target = ancestral(schedule, sigma, sigma_next, eta)
        if target.sigma == 0:
            x = denoised
            continue
        x = move(x, denoised, target.sigma / sigma) * target.scale
        x = x + noise(sigma, sigma_next) * s_noise * target.amount
    return x


@torch.no_grad()
def sample_euler_ancestral_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Ancestral Euler where the noise direction comes from the unconditional prediction (CFG++, Chung et al.
    2024).
    """
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise = s_noise * noise_scale(schedule)
    run.keep_uncond()
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        if sigma_next == 0:
            x = denoised
            continue
        alpha = sigma * sigma_to_half_log_snr(sigma, schedule).exp()
        alpha_next = sigma_next * sigma_to_half_log_snr(sigma_next, schedule).exp()
        d = to_d(x, sigma, alpha * run.uncond_denoised)
        down, up = get_ancestral_step(sigma / alpha, sigma_next / alpha_next, eta)
        x = alpha_next * (denoised + down * d)
        if eta > 0 and s_noise > 0:
            x = x + alpha_next * up * s_noise * noise(sigma, sigma_next)
    return x


@torch.no_grad()
def sample_euler_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler steps with CFG++ (Chung et al. 2024)."""
    return sample_euler_ancestral_cfg_pp(
        model, x, sigmas, extra_args, callback, disable, eta=0.0, s_noise=0.0
    )


@torch.no_grad()
def sample_heun(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=float("inf"),
    s_noise=1.0,
):
    """Heun's second-order steps (Karras et al. 2022, algorithm 2)."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i, sigma, sigma_next in run.steps():
        x, sigma_hat = churn.raised(x, sigma, len(sigmas) - 1)
        denoised = run.first(i, x, sigma_hat)
        dt = sigma_next - sigma_hat
        d = to_d(x, sigma_hat, denoised)
        if sigma_next > 0:
            ahead = x + d * dt
            d = (d + to_d(ahead, sigma_next, run.denoise(ahead, sigma_next))) / 2
        x = x + d * dt
    return x


@torch.no_grad()
def sample_heunpp2(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=float("inf"),
    s_noise=1.0,
):
    """Heun++: slopes from up to two steps ahead, weighted by their noise level over the first one."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i, sigma, sigma_next in run.steps():
        x, sigma_hat = churn.raised(x, sigma, len(sigmas) - 1)
        d = to_d(x, sigma_hat, run.first(i, x, sigma_hat))
        slopes, weights, ahead, level = [d], [], x, sigma_hat
        # The last level is only arrived at, never evaluated: the slope there would divide by zero.
        for later in sigmas[i + 1 : i + 3]:
            if later == sigmas[-1]:
                break
            ahead = ahead + slopes[-1] * (later - level)
            level = later
            slopes.append(to_d(ahead, level, run.denoise(ahead, level)))
            weights.append(level)
        shares = [w / (sigmas[0] * len(slopes)) for w in weights]
        d = d * (1 - sum(shares)) + sum(w * slope for w, slope in zip(shares, slopes[1:]))
        x = x + d * (sigma_next - sigma_hat)
    return x


@torch.no_grad()
def sample_dpm_2(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=float("inf"),
    s_noise=1.0,
):
    """Midpoint steps, the middle taken in log sigma (DPM-Solver-2, Lu et al. 2022)."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    churn = Churn(s_churn, s_tmin, s_tmax, s_noise)
    for i, sigma, sigma_next in run.steps():
        x, sigma_hat = churn.raised(x, sigma, len(sigmas) - 1)
        x = _midpoint_step(run, x, sigma_hat, sigma_next, run.first(i, x, sigma_hat))
    return x


def _midpoint_step(run, x, sigma, target, denoised):
    if target == 0:
        return denoised
    middle = (sigma.log() + target.log()).mul(0.5).exp()
    halfway = move(x, denoised, middle / sigma)
    return x + to_d(halfway, middle, run.denoise(halfway, middle)) * (target - sigma)


@torch.no_grad()
def sample_dpm_2_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Midpoint steps below the target level, then fresh noise up to it."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise = s_noise * noise_scale(schedule)
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        target = ancestral(schedule, sigma, sigma_next, eta)
        x = _midpoint_step(run, x, sigma, target.sigma, denoised)
        if target.sigma > 0:
            x = x * target.scale + noise(sigma, sigma_next) * s_noise * target.amount
    return x


# --- DPM-Solver (Lu et al. 2022)
# -------------------------------------------------------------------------------------


@torch.no_grad()
def sample_dpm_fast(
    model,
    x,
    sigma_min,
    sigma_max,
    n,
    extra_args=None,
    callback=None,
    disable=None,
    eta=0.0,
    s_noise=1.0,
    noise_sampler=None,
):
    """DPM-Solver-fast: exactly n model calls in steps of order 3, the rest in lower order."""
    t_start, t_end = log_times(sigma_min, sigma_max)
    count = n // 3 + 1
    times = torch.linspace(float(t_start), float(t_end), count + 1, device=x.device)
    orders = [3] * (count - 2) + [2, 1] if n % 3 == 0 else [3] * (count - 1) + [n % 3]
    with tqdm(total=n, disable=disable) as bar:
        solver = DPMSolver(model, x, extra_args, bar.update)
        noise = noise_sampler or default_noise_sampler(x, seed=solver.extra_args.get("seed"))
        for i, order in enumerate(orders):
            t, t_next = times[i], times[i + 1]
            target, up = solver.ancestral_target(t, t_next, t_end, eta)
            eps, sigma = solver.eps(x, t), solver.sigma(t)
            if callback is not None:
                callback(
                    {
                        "x": x,
                        "i": i,
                        "t": t,
                        "t_up": t,
                        "sigma": sigma,
                        "sigma_hat": sigma,
                        "denoised": x - sigma * eps,
                    }
                )
            x = solver.step(x, t, target, eps, order)
            if eta:
                x = x + up * s_noise * noise(sigma, solver.sigma(t_next))
    return x


@torch.no_grad()
def sample_dpm_adaptive(
    model,
    x,
    sigma_min,
    sigma_max,
    extra_args=None,
    callback=None,
    disable=None,
    order=3,
    rtol=0.05,
    atol=0.0078,
    h_init=0.05,
    pcoeff=0.0,
    icoeff=1.0,
    dcoeff=0.0,
    accept_safety=0.81,
    eta=0.0,
    s_noise=1.0,
    noise_sampler=None,
    return_info=False,
):
    """DPM-Solver-12 and -23: the step size follows the difference between two orders."""
    if order not in (2, 3):
        raise ValueError(f"order is {order}; dpm_adaptive knows 2 and 3.")
    s, t_end = log_times(sigma_min, sigma_max)
    pid = PIDStepSizeController(abs(h_init), pcoeff, icoeff, dcoeff, 1.5 if eta else order, accept_safety)
    info = {"steps": 0, "nfe": 0, "n_accept": 0, "n_reject": 0}
    x_prev = x
    with tqdm(disable=disable) as bar:
        solver = DPMSolver(model, x, extra_args, bar.update)
        noise = noise_sampler or default_noise_sampler(x, seed=solver.extra_args.get("seed"))
        while s < t_end - 1e-5:
            t = torch.minimum(t_end, s + pid.h)
            target, up = solver.ancestral_target(s, t, t_end, eta)
            eps, sigma = solver.eps(x, s), solver.sigma(s)
            denoised = x - sigma * eps
            low, high = solver.pair(x, s, target, eps, order)
            allowed = (rtol * torch.maximum(low.abs(), x_prev.abs())).clamp(min=atol)
            error = torch.linalg.norm((low - high) / allowed) / x.numel() ** 0.5
            accept = pid.propose_step(error)
            if accept:
                x_prev, x = low, high
                if eta:
                    x = x + up * s_noise * noise(sigma, solver.sigma(t))
                s = t
            info["n_accept" if accept else "n_reject"] += 1
            info["nfe"] += order
            info["steps"] += 1
            if callback is not None:
                callback(
                    {
                        "x": x,
                        "i": info["steps"] - 1,
                        "t": s,
                        "t_up": s,
                        "denoised": denoised,
                        "error": error,
                        "h": pid.h,
                        "sigma": solver.sigma(s),
                        "sigma_hat": solver.sigma(s),
                        **info,
                    }
                )
    return (x, info) if return_info else x


# --- DPM-Solver++ (Lu et al. 2023)
# -----------------------------------------------------------------------------------


@torch.no_grad()
def sample_dpmpp_2s_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """DPM-Solver++(2S) below the target level, then fresh noise up to it."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise = s_noise * noise_scale(schedule)
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        target = ancestral(schedule, sigma, sigma_next, eta)
        if target.sigma > 0:
            middle = _middle_of_snr(sigma, target.sigma, schedule)
            denoised = run.denoise(move(x, denoised, middle / sigma), middle)
        x = move(x, denoised, target.sigma / sigma)
        if sigma_next > 0 and eta > 0:
            x = x * target.scale + noise(sigma, sigma_next) * s_noise * target.amount
    return x


def _middle_of_snr(sigma, target, schedule):
    if is_flow(schedule) and sigma == 1.0:
        return sigma * 0.9999  # no signal yet, so the log SNR has no middle
    ends = sigma_to_half_log_snr(sigma, schedule) + sigma_to_half_log_snr(target, schedule)
    return half_log_snr_to_sigma(ends / 2, schedule)


@torch.no_grad()
def sample_dpmpp_2s_ancestral_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """Ancestral DPM-Solver++(2S) whose noise direction is the unconditional one (CFG++)."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise = run.noise_source(x, noise_sampler)
    run.keep_uncond()
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        down, up = get_ancestral_step(sigma, sigma_next, eta)
        target = denoised
        if down > 0:
            middle = _middle_of_snr(sigma, down, None)
            halfway = move(x + (denoised - run.uncond_denoised), denoised, middle / sigma)
            target = run.denoise(halfway, middle)
        # After the second call the unconditional prediction is the one of the middle.
        x = move(x + (denoised - run.uncond_denoised), target, down / sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * s_noise * up
    return x


@torch.no_grad()
def sample_dpmpp_sde(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    eta=1.0,
    s_noise=1.0,
    noise_sampler=None,
    r=1 / 2,
):
    """DPM-Solver++ for the SDE, singlestep second order, noise from a Brownian path."""
    if len(sigmas) <= 1:
        return x
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.brownian_source(x, noise_sampler), run.model_sampling()
    s_noise = s_noise * noise_scale(schedule)
    run.sigmas = offset_first_sigma_for_snr(sigmas, schedule)
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        if sigma_next == 0:
            x = denoised
            continue
        start, end = sigma_to_half_log_snr(sigma, schedule), sigma_to_half_log_snr(sigma_next, schedule)
        between = start + r * (end - start)
        sigma_mid = half_log_snr_to_sigma(between, schedule)
        exploding = x / (sigma * start.exp())

        def go(denoised, log_snr, level, *, origin=exploding, start=start, sigma=sigma):
            """Down and up again to a level, in variance-exploding terms, and back to the model's scale."""
            down, up = get_ancestral_step(start.neg().exp(), log_snr.neg().exp(), eta)
            arrived = move(origin, denoised, down * start.exp())
            if eta > 0 and s_noise > 0:
                arrived = arrived + noise(sigma, level) * s_noise * up
            return arrived * (level * log_snr.exp())

        denoised_mid = run.denoise(go(denoised, between, sigma_mid), sigma_mid)
        weight = 1 / (2 * r)
        x = go((1 - weight) * denoised + weight * denoised_mid, end, sigma_next)
    return x


@torch.no_grad()
def sample_dpmpp_2m(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """DPM-Solver++(2M): the denoised latent extrapolated from the last two steps."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    before, h_before = None, None
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        h = sigma.log() - sigma_next.log()
        ahead = denoised
        if before is not None and sigma_next > 0:
            ahead = denoised + (denoised - before) * (h / (2 * h_before))
        x = move(x, ahead, sigma_next / sigma)
        before, h_before = denoised, h
    return x


@torch.no_grad()
def sample_dpmpp_2m_cfg_pp(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """DPM-Solver++(2M) whose noise direction is the unconditional one (CFG++)."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    run.keep_uncond()
    uncond_before, h_before = None, None
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        h, ratio = sigma.log() - sigma_next.log(), sigma_next / sigma
        x = denoised + (x - run.uncond_denoised) * ratio
        if uncond_before is not None and sigma_next > 0:
            x = x + (denoised - uncond_before) * (1 - ratio) * (h / (2 * h_before))
        uncond_before, h_before = run.uncond_denoised, h
    return x


class _SdeStep(NamedTuple):
    """The constants of one multistep SDE step in half log SNR."""

    h: torch.Tensor  # length of the step
    h_eta: torch.Tensor  # length with the extra decay of the noise
    alpha: torch.Tensor  # scale of the signal at its end


def _sde_step(sigma, sigma_next, schedule, eta):
    end = sigma_to_half_log_snr(sigma_next, schedule)
    h = end - sigma_to_half_log_snr(sigma, schedule)
    return _SdeStep(h, h * (eta + 1), sigma_next * end.exp())


@torch.no_grad()
def sample_dpmpp_2m_sde(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    eta=1.0,
    s_noise=1.0,
    noise_sampler=None,
    solver_type="midpoint",
):
    """DPM-Solver++(2M) for the SDE, noise from a Brownian path."""
    if solver_type not in ("heun", "midpoint"):
        raise ValueError(f"solver_type is '{solver_type}'; dpmpp_2m_sde knows 'heun' and 'midpoint'.")

    def correction(step, history):
        if not history:
            return 0.0
        earlier, h_before = history[0]
        slope = earlier * (step.h / h_before)
        decay = -step.h_eta.neg().expm1()
        return slope * (0.5 * decay if solver_type == "midpoint" else 1 - decay / step.h_eta)

    return _sample_sde_multistep(
        model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, correction
    )


@torch.no_grad()
def sample_dpmpp_2m_sde_heun(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    eta=1.0,
    s_noise=1.0,
    noise_sampler=None,
    solver_type="heun",
):
    """`sample_dpmpp_2m_sde` with Heun's correction."""
    return sample_dpmpp_2m_sde(
        model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, solver_type
    )


@torch.no_grad()
def sample_dpmpp_3m_sde(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """DPM-Solver++(3M) for the SDE, noise from a Brownian path."""

    def correction(step, history):
        if not history:
            return 0.0
        phi_2 = step.h_eta.neg().expm1() / step.h_eta + 1
        rates = [difference * (step.h / h) for difference, h in history]
        if len(rates) == 1:
            return phi_2 * rates[0]
        r0, r1 = (h / step.h for _, h in history)
        second = (rates[0] - rates[1]) / (r0 + r1)
        phi_3 = phi_2 / step.h_eta - 0.5
        return phi_2 * (rates[0] + second * r0) - phi_3 * second

    return _sample_sde_multistep(
        model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, correction
    )


def _sample_sde_multistep(
    model, x, sigmas, extra_args, callback, disable, eta, s_noise, noise_sampler, correction
):
    """Steps of first order plus `correction(step, history)`; history: (change of denoised, step length),
    newest first.
    """
    if len(sigmas) <= 1:
        return x
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.brownian_source(x, noise_sampler), run.model_sampling()
    s_noise = s_noise * noise_scale(schedule)
    run.sigmas = offset_first_sigma_for_snr(sigmas, schedule)
    history, before, h_before = [], None, None
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        if sigma_next == 0:
            x = denoised
            continue
        step = _sde_step(sigma, sigma_next, schedule, eta)
        if before is not None:
            history = [(denoised - before, h_before), *history[:1]]
        x = sigma_next / sigma * (-step.h * eta).exp() * x - step.alpha * step.h_eta.neg().expm1() * denoised
        x = x + step.alpha * correction(step, history)
        if eta > 0 and s_noise > 0:
            spread = (-2 * step.h * eta).expm1().neg().sqrt()
            x = x + noise(sigma, sigma_next) * sigma_next * spread * s_noise
        before, h_before = denoised, step.h
    return x


def _with_device_noise(sampler):
    """The sampler with its Brownian path on the latent's own device: faster on a GPU, another picture per
    device.
    """

    @torch.no_grad()
    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None, **options):
        if len(sigmas) > 1:
            run = Run(model, x, sigmas, extra_args, callback, disable)
            noise_sampler = run.brownian_source(x, noise_sampler, cpu=False)
        return sampler(
            model, x, sigmas, extra_args, callback, disable, noise_sampler=noise_sampler, **options
        )

    sample.__name__ = sampler.__name__ + "_gpu"
    return sample


sample_dpmpp_sde_gpu = _with_device_noise(sample_dpmpp_sde)
sample_dpmpp_2m_sde_gpu = _with_device_noise(sample_dpmpp_2m_sde)
sample_dpmpp_2m_sde_heun_gpu = _with_device_noise(sample_dpmpp_2m_sde_heun)
sample_dpmpp_3m_sde_gpu = _with_device_noise(sample_dpmpp_3m_sde)


# --- DDPM, LCM
# -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def sample_ddpm(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    """The DDPM posterior (Ho et al. 2020, equation 7).

    In variance-exploding terms it is short: go down to sigma_next^2 / sigma, then add what is missing to
    sigma_next.
    """
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise = run.noise_source(x, noise_sampler)
    for i, sigma, sigma_next in run.steps():
        ratio = sigma_next / sigma
        x = move(x, run.first(i, x), ratio**2)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_next * (1 - ratio**2) ** 0.5
    return x


@torch.no_grad()
def sample_lcm(
    model,
    x,
    sigmas,
    extra_args=None,
    callback=None,
    disable=None,
    noise_sampler=None,
    s_noise=1.0,
    s_noise_end=None,
    noise_clip_std=0.0,
):
    """Latent consistency (Luo et al. 2023): denoise fully, then noise again to the next level.

    The noise may be scaled from `s_noise` to `s_noise_end` over the run, and clipped to `noise_clip_std`
    deviations.
    """
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise, schedule = run.noise_source(x, noise_sampler), run.model_sampling()
    s_noise_end = s_noise if s_noise_end is None else s_noise_end
    for i, sigma, sigma_next in run.steps():
        x = run.first(i, x)
        if sigma_next == 0:
            continue
        fresh = noise(sigma, sigma_next)
        if noise_clip_std > 0:
            bound = noise_clip_std * fresh.std()
            fresh = fresh.clamp(min=-bound, max=bound)
        fresh = fresh * (s_noise + (s_noise_end - s_noise) * i / max(1, len(sigmas) - 2))
        x = x + fresh * sigma_next if schedule is None else schedule.noise_scaling(sigma_next, fresh, x)
    return x

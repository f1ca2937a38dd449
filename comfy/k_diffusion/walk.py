"""What every sampler needs: the walk along the schedule, Euler and ancestral steps, signal-to-noise time."""

import sys
from typing import NamedTuple

import torch
from tqdm.auto import trange

import comfy.model_sampling
from comfy.k_diffusion import utils


def is_flow(model_sampling):
    return isinstance(model_sampling, comfy.model_sampling.CONST)


def sigma_to_half_log_snr(sigma, model_sampling):
    """log(alpha / sigma): the natural time of the DPM solvers."""
    return -sigma.logit() if is_flow(model_sampling) else -sigma.log()


def half_log_snr_to_sigma(half_log_snr, model_sampling):
    """The inverse of `sigma_to_half_log_snr`."""
    return half_log_snr.neg().sigmoid() if is_flow(model_sampling) else half_log_snr.neg().exp()


def offset_first_sigma_for_snr(sigmas, model_sampling, percent_offset=1e-4):
    """A flow model starts at sigma 1, where there is no signal and the log SNR is infinite: start a little
    later.
    """
    if len(sigmas) <= 1 or not is_flow(model_sampling) or sigmas[0] < 1:
        return sigmas
    sigmas = sigmas.clone()
    sigmas[0] = model_sampling.percent_to_sigma(percent_offset)
    return sigmas


def to_d(x, sigma, denoised):
    """The derivative dx/dsigma of the probability flow (Karras et al. 2022, equation 3)."""
    return (x - denoised) / utils.append_dims(sigma, x.ndim)


def get_ancestral_step(sigma_from, sigma_to, eta=1.0):
    """(level to step down to, noise to add), so that both together arrive at `sigma_to` (Song et al. 2021,
    eq. 16).
    """
    if not eta:
        return sigma_to, 0.0
    sigma_up = min(sigma_to, eta * (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5)
    return (sigma_to**2 - sigma_up**2) ** 0.5, sigma_up


class SeedsOfRequests:
    """In the place of a run's seed: a seed for each of the requests that share a batch.

    `rows` says how many samples each has. Each draws its noise as if it were alone.
    """

    def __init__(self, seeds, rows):
        self.seeds = tuple(seeds)
        self.rows = tuple(rows)

    def noise_sampler(self, make, x):
        """The noise source of all of them from `make(x of one, seed=...)`."""
        sources = [make(part, seed=seed) for part, seed in zip(x.split(self.rows), self.seeds)]
        return lambda sigma, sigma_next: torch.cat([source(sigma, sigma_next) for source in sources])


class Renoise(NamedTuple):
    """An ancestral step: go down to `sigma`, multiply by `scale`, add noise times `amount`."""

    sigma: torch.Tensor
    scale: torch.Tensor | float
    amount: torch.Tensor | float


def ancestral(model_sampling, sigma, sigma_next, eta):
    if not is_flow(model_sampling):
        down, up = get_ancestral_step(sigma, sigma_next, eta)
        return Renoise(down, 1.0, up)
    down = sigma_next * (1 + (sigma_next / sigma - 1) * eta)
    scale = (1 - sigma_next) / (1 - down)
    return Renoise(down, scale, (sigma_next**2 - down**2 * scale**2) ** 0.5)


def move(x, denoised, ratio):
    """One Euler step in sigma: the noise that is left in x shrinks to `ratio` of it."""
    return denoised + (x - denoised) * ratio


def _public(name):
    # Looked up late, on the module where node packs replace the noise sources.
    return getattr(sys.modules["comfy.k_diffusion.sampling"], name)


class Run:
    """One run of a sampler: the model bound to its arguments, the callback, the walk along the schedule."""

    def __init__(self, model, x, sigmas, extra_args, callback, disable):
        self.model = model
        self.sigmas = sigmas
        self.extra_args = {} if extra_args is None else extra_args
        self.callback = callback
        self.disable = disable
        self._uncond_parts = []
        self._per_sample = x.new_ones([x.shape[0]])

    def steps(self):
        """(index, sigma, next sigma) of each step, with the console bar."""
        for i in trange(len(self.sigmas) - 1, disable=self.disable):
            yield i, self.sigmas[i], self.sigmas[i + 1]

    def denoise(self, x, sigma):
        """The model at one level for the whole batch."""
        self._uncond_parts.clear()
        return self.model(x, sigma * self._per_sample, **self.extra_args)

    def first(self, i, x, sigma_hat=None):
        """The first evaluation of step i, which is reported."""
        sigma = self.sigmas[i]
        sigma_hat = sigma if sigma_hat is None else sigma_hat
        denoised = self.denoise(x, sigma_hat)
        if self.callback is not None:
            self.callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised})
        return denoised

    def noise_source(self, x, noise_sampler):
        """The given noise sampler, or independent noise from the run's seed."""
        return noise_sampler or _public("default_noise_sampler")(x, seed=self.extra_args.get("seed"))

    def brownian_source(self, x, noise_sampler, cpu=True):
        """The given noise sampler, or a Brownian path from the run's seed."""
        if noise_sampler is not None:
            return noise_sampler
        low, high = self.sigmas[self.sigmas > 0].min(), self.sigmas.max()
        seed = self.extra_args.get("seed")

        def make(x, seed):
            return _public("BrownianTreeNoiseSampler")(x, low, high, seed=seed, cpu=cpu)

        return seed.noise_sampler(make, x) if isinstance(seed, SeedsOfRequests) else make(x, seed)

    @property
    def uncond_denoised(self):
        """The unconditional prediction of the latest call; requests that share a batch are guided one by one.
        """
        return torch.cat(self._uncond_parts)

    def keep_uncond(self):
        """From now on `uncond_denoised` can be asked for (CFG++)."""
        options = dict(self.extra_args.get("model_options", {}))

        def remember(args):
            self._uncond_parts.append(args["uncond_denoised"])
            return args["denoised"]

        options["sampler_post_cfg_function"] = [*options.get("sampler_post_cfg_function", []), remember]
        options["disable_cfg1_optimization"] = True
        self.extra_args["model_options"] = options

    def model_sampling(self):
        """The schedule behind the model, or None for a bare denoiser (which is then variance exploding)."""
        guider = getattr(self.model, "inner_model", None)
        patcher = getattr(guider, "model_patcher", None)
        if patcher is not None:
            return patcher.get_model_object("model_sampling")
        return getattr(getattr(guider, "inner_model", None), "model_sampling", None)


def noise_scale(model_sampling):
    # Flow models may be trained with noise of another standard deviation than one.
    return getattr(model_sampling, "noise_scale", 1.0)


class Churn(NamedTuple):
    """The temporary rise of noise of Karras et al. (2022), algorithm 2."""

    amount: float
    tmin: float
    tmax: float
    noise: float

    def raised(self, x, sigma, steps):
        """(x, sigma_hat) after the rise."""
        if self.amount <= 0 or not self.tmin <= sigma <= self.tmax:
            return x, sigma
        sigma_hat = sigma * (min(self.amount / steps, 2**0.5 - 1) + 1)
        return x + torch.randn_like(x) * self.noise * (sigma_hat**2 - sigma**2) ** 0.5, sigma_hat

"""Nodes that make and change noise levels."""

from __future__ import annotations

import math
import re

from comfy import sampler_names
from comfy_extras.core_inputs import float_input, int_input


def _steps_input():
    return int_input(20, 1, 10000)


def _sigma_input(default):
    return float_input(default, 0.0, 5000.0, round=False)


class _Sigmas:
    """A node that makes noise levels."""

    RETURN_TYPES = ("SIGMAS",)
    FUNCTION = "get_sigmas"
    CATEGORY = "sampling/custom_sampling/schedulers"


class BasicScheduler(_Sigmas):
    DESCRIPTION = "The noise levels of a scheduler; less denoise gives the end of a longer schedule."

    @classmethod
    def INPUT_TYPES(cls):
        schedule = {"scheduler": (sampler_names.schedulers(),), "steps": _steps_input()}
        return {"required": {"model": ("MODEL",), **schedule, "denoise": float_input(1.0, 0.0, 1.0)}}

    def get_sigmas(self, model, scheduler, steps, denoise):
        import torch

        import comfy.samplers

        if denoise <= 0.0:
            return (torch.FloatTensor([]),)
        total = steps if denoise >= 1.0 else int(steps / denoise)
        model_sampling = model.get_model_object("model_sampling")
        return (comfy.samplers.calculate_sigmas(model_sampling, scheduler, total).cpu()[-(steps + 1) :],)


class _NamedSchedule(_Sigmas):
    """A schedule of k-diffusion between two levels, with knobs of its own."""

    schedule = ""
    knobs: dict = {}

    @classmethod
    def INPUT_TYPES(cls):
        bounds = {"sigma_max": _sigma_input(14.614642), "sigma_min": _sigma_input(0.0291675)}
        return {"required": {"steps": _steps_input(), **bounds, **cls.knobs}}

    def get_sigmas(self, steps, **options):
        from comfy.k_diffusion import sampling

        return (getattr(sampling, f"get_sigmas_{self.schedule}")(n=steps, **options),)


class KarrasScheduler(_NamedSchedule):
    DESCRIPTION = "Noise levels that are even in a root of sigma."
    schedule = "karras"
    knobs = {"rho": float_input(7.0, 0.0, 100.0, round=False)}


class ExponentialScheduler(_NamedSchedule):
    DESCRIPTION = "Noise levels that are even in the logarithm of sigma."
    schedule = "exponential"


class PolyexponentialScheduler(_NamedSchedule):
    DESCRIPTION = "Noise levels that follow a power in the logarithm of sigma."
    schedule = "polyexponential"
    knobs = {"rho": float_input(1.0, 0.0, 100.0, round=False)}


class LaplaceScheduler(_NamedSchedule):
    DESCRIPTION = "Noise levels after a Laplace distribution."
    schedule = "laplace"
    knobs = {
        "mu": float_input(0.0, -10.0, 10.0, 0.1, round=False),
        "beta": float_input(0.5, 0.0, 10.0, 0.1, round=False),
    }


class VPScheduler(_NamedSchedule):
    DESCRIPTION = "Noise levels of the variance-preserving process."
    schedule = "vp"

    @classmethod
    def INPUT_TYPES(cls):
        knobs = {"beta_d": _sigma_input(19.9), "beta_min": _sigma_input(0.1)}
        eps = float_input(0.001, 0.0, 1.0, 0.0001, round=False)
        return {"required": {"steps": _steps_input(), **knobs, "eps_s": eps}}


class BetaSamplingScheduler(_Sigmas):
    DESCRIPTION = "Noise levels at the quantiles of a beta distribution."

    @classmethod
    def INPUT_TYPES(cls):
        shape = {name: float_input(0.6, 0.0, 50.0, round=False) for name in ("alpha", "beta")}
        return {"required": {"model": ("MODEL",), "steps": _steps_input(), **shape}}

    def get_sigmas(self, model, steps, alpha, beta):
        import comfy.samplers

        model_sampling = model.get_model_object("model_sampling")
        return (comfy.samplers.beta_scheduler(model_sampling, steps, alpha=alpha, beta=beta),)


class SDTurboScheduler(_Sigmas):
    DESCRIPTION = "The noise levels that SD Turbo models are trained for."

    @classmethod
    def INPUT_TYPES(cls):
        length = {"steps": int_input(1, 1, 10), "denoise": float_input(1.0, 0, 1.0)}
        return {"required": {"model": ("MODEL",), **length}}

    def get_sigmas(self, model, steps, denoise):
        import torch

        first = 10 - int(10 * denoise)
        times = torch.arange(999, 0, -100)[first : first + steps]
        sigmas = model.get_model_object("model_sampling").sigma(times)
        return (torch.cat([sigmas, sigmas.new_zeros([1])]),)


class _SplitSigmas(_Sigmas):
    """A node that cuts a schedule in two, which share the level at the cut."""

    RETURN_TYPES = ("SIGMAS", "SIGMAS")
    RETURN_NAMES = ("high_sigmas", "low_sigmas")
    CATEGORY = "sampling/custom_sampling/sigmas"


class SplitSigmas(_SplitSigmas):
    DESCRIPTION = "Cuts noise levels in two at a step."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"sigmas": ("SIGMAS",), "step": int_input(0, 0, 10000)}}

    def get_sigmas(self, sigmas, step):
        return (sigmas[: step + 1], sigmas[step:])


class SplitSigmasDenoise(_SplitSigmas):
    DESCRIPTION = "Cuts noise levels in two, so that the second part has this share of the steps."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"sigmas": ("SIGMAS",), "denoise": float_input(1.0, 0.0, 1.0)}}

    def get_sigmas(self, sigmas, denoise):
        steps = max(sigmas.shape[-1] - 1, 0)
        step = steps - round(steps * denoise)
        return (sigmas[: step + 1], sigmas[step:])


class FlipSigmas(_Sigmas):
    DESCRIPTION = "Turns noise levels around, to go from a picture to noise."
    CATEGORY = "sampling/custom_sampling/sigmas"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"sigmas": ("SIGMAS",)}}

    def get_sigmas(self, sigmas):
        sigmas = sigmas.flip(0)
        if len(sigmas) > 0 and sigmas[0] == 0:
            sigmas[0] = 0.0001  # samplers divide by the first level
        return (sigmas,)


class SetFirstSigma(_Sigmas):
    DESCRIPTION = "Replaces the first noise level."
    CATEGORY = "sampling/custom_sampling/sigmas"
    FUNCTION = "set_first_sigma"

    @classmethod
    def INPUT_TYPES(cls):
        sigma = float_input(136.0, 0.0, 20000.0, 0.001, round=False)
        return {"required": {"sigmas": ("SIGMAS",), "sigma": sigma}}

    def set_first_sigma(self, sigmas, sigma):
        sigmas = sigmas.clone()
        sigmas[0] = sigma
        return (sigmas,)


class ManualSigmas(_Sigmas):
    DESCRIPTION = "Noise levels as they are written, separated by anything."
    CATEGORY = "_for_testing/custom_sampling"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"sigmas": ("STRING", {"default": "1, 0.5", "multiline": False})}}

    def get_sigmas(self, sigmas):
        import torch

        return (torch.FloatTensor([float(number) for number in re.findall(r"[-+]?\d*\.?\d+", sigmas)]),)


class ExtendIntermediateSigmas(_Sigmas):
    DESCRIPTION = "More steps between two noise levels: each of them becomes so many."
    CATEGORY = "sampling/custom_sampling/sigmas"
    FUNCTION = "extend"

    @classmethod
    def INPUT_TYPES(cls):
        start = float_input(
            -1.0, -1.0, 20000.0, tooltip="From this level down; -1: from the first.", round=False
        )
        return {
            "required": {
                "sigmas": ("SIGMAS",),
                "steps": int_input(2, 1, 100),
                "start_at_sigma": start,
                "end_at_sigma": float_input(12.0, 0.0, 20000.0, round=False),
                "spacing": (["linear", "cosine", "sine"],),
            }
        }

    def extend(self, sigmas, steps, start_at_sigma, end_at_sigma, spacing):
        import torch

        highest = math.inf if start_at_sigma < 0 else start_at_sigma
        even = torch.linspace(0, 1, steps + 1, device=sigmas.device)
        curves = {
            "linear": even,
            "cosine": (even * math.pi / 2).sin(),
            "sine": 1 - (even * math.pi / 2).cos(),
        }
        shares = curves[spacing][1:-1]
        parts = []
        for sigma, after in zip(sigmas[:-1], sigmas[1:]):
            parts.append(sigma.reshape(1))
            if end_at_sigma <= sigma <= highest:
                parts.append(sigma + shares * (after - sigma))
        return (torch.cat([*parts, sigmas[-1:]]).float().cpu(),)


class SamplingPercentToSigma:
    DESCRIPTION = "The noise level of a model after this share of the steps."
    RETURN_TYPES = ("FLOAT",)
    RETURN_NAMES = ("sigma_value",)
    FUNCTION = "get_sigma"
    CATEGORY = "sampling/custom_sampling/sigmas"

    @classmethod
    def INPUT_TYPES(cls):
        tooltip = "At 0 and 1 the first and the last level, rather than bounds that every level is within."
        return {
            "required": {
                "model": ("MODEL",),
                "sampling_percent": float_input(0.0, 0.0, 1.0, 0.0001),
                "return_actual_sigma": ("BOOLEAN", {"default": False, "tooltip": tooltip}),
            }
        }

    def get_sigma(self, model, sampling_percent, return_actual_sigma):
        sampling = model.get_model_object("model_sampling")
        ends = {0.0: sampling.sigma_max, 1.0: sampling.sigma_min}
        if return_actual_sigma and sampling_percent in ends:
            return (float(ends[sampling_percent]),)
        return (float(sampling.percent_to_sigma(sampling_percent)),)

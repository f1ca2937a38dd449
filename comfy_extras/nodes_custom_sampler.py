"""Sampling taken apart: schedules, samplers, guiders and noise as nodes of their own."""

from __future__ import annotations

import latent_preview
from comfy import sampler_names
from comfy_extras.core_guiders import CFGOverride, DualModelGuider
from comfy_extras.core_inputs import float_input, int_input
from comfy_extras.core_schedules import (
    BasicScheduler,
    BetaSamplingScheduler,
    ExponentialScheduler,
    ExtendIntermediateSigmas,
    FlipSigmas,
    KarrasScheduler,
    LaplaceScheduler,
    ManualSigmas,
    PolyexponentialScheduler,
    SamplingPercentToSigma,
    SDTurboScheduler,
    SetFirstSigma,
    SplitSigmas,
    SplitSigmasDenoise,
    VPScheduler,
)


def __getattr__(name):
    # Packs look for these here; their module loads torch, which a list of nodes must not.
    if name in ("Guider_Basic", "Guider_DualCFG", "Guider_DualModel"):
        import comfy.guiders

        return getattr(comfy.guiders, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def _seed_input():
    return int_input(0, 0, 0xFFFFFFFFFFFFFFFF, control_after_generate=True)


def _cfg_input():
    return float_input(8.0, 0.0, 100.0, 0.1, round=0.01)


class _SamplerNode:
    """A node that makes a sampler; its inputs are the knobs of the sampler function `sampler`."""

    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "get_sampler"
    CATEGORY = "sampling/custom_sampling/samplers"
    sampler = ""
    knobs: dict = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": dict(cls.knobs)}

    def get_sampler(self, noise_device="cpu", **options):
        import comfy.samplers

        name = self.sampler if noise_device == "cpu" else f"{self.sampler}_gpu"
        return (comfy.samplers.ksampler(name, options),)


class KSamplerSelect(_SamplerNode):
    DESCRIPTION = "A sampler by its name."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"sampler_name": (sampler_names.samplers(),)}}

    def get_sampler(self, sampler_name):
        import comfy.samplers

        return (comfy.samplers.sampler_object(sampler_name),)


def _noise_knobs(**more):
    knobs = {name: float_input(1.0, 0.0, 100.0, round=False) for name in ("eta", "s_noise")}
    return {**knobs, **more}


_NOISE_DEVICE = {"noise_device": (["gpu", "cpu"],)}


class SamplerEulerAncestral(_SamplerNode):
    DESCRIPTION = "Euler steps with fresh noise: eta is how much of it, s_noise its strength."
    sampler = "euler_ancestral"
    knobs = _noise_knobs()


class SamplerEulerAncestralCFGPP(_SamplerNode):
    DESCRIPTION = "Ancestral Euler steps with CFG++."
    sampler = "euler_ancestral_cfg_pp"
    knobs = {name: float_input(1.0, 0.0, top, round=False) for name, top in (("eta", 1.0), ("s_noise", 10.0))}


class SamplerDPMPP_2S_Ancestral(_SamplerNode):  # noqa: N801 - a name that workflows use
    DESCRIPTION = "DPM-Solver++(2S) with fresh noise."
    sampler = "dpmpp_2s_ancestral"
    knobs = _noise_knobs()


class SamplerDPMPP_SDE(_SamplerNode):  # noqa: N801
    DESCRIPTION = "DPM-Solver++ for the stochastic process; r is the place of the middle evaluation."
    sampler = "dpmpp_sde"
    knobs = _noise_knobs(r=float_input(0.5, 0.0, 100.0, round=False), **_NOISE_DEVICE)


class SamplerDPMPP_2M_SDE(_SamplerNode):  # noqa: N801
    DESCRIPTION = "DPM-Solver++(2M) for the stochastic process."
    sampler = "dpmpp_2m_sde"
    knobs = {"solver_type": (["midpoint", "heun"],), **_noise_knobs(**_NOISE_DEVICE)}


class SamplerDPMPP_3M_SDE(_SamplerNode):  # noqa: N801
    DESCRIPTION = "DPM-Solver++(3M) for the stochastic process."
    sampler = "dpmpp_3m_sde"
    knobs = _noise_knobs(**_NOISE_DEVICE)


class SamplerLMS(_SamplerNode):
    DESCRIPTION = "Linear multistep with up to `order` slopes."
    sampler = "lms"
    knobs = {"order": int_input(4, 1, 100)}


class SamplerDPMAdaptative(_SamplerNode):
    DESCRIPTION = "DPM-Solver whose step size follows its error, within the tolerances."
    sampler = "dpm_adaptive"
    knobs = {
        "order": int_input(3, 2, 3),
        **{
            name: float_input(default, 0.0, 100.0, round=False)
            for name, default in (
                ("rtol", 0.05), ("atol", 0.0078), ("h_init", 0.05), ("pcoeff", 0.0), ("icoeff", 1.0),
                ("dcoeff", 0.0), ("accept_safety", 0.81), ("eta", 0.0), ("s_noise", 1.0),
            )
        },
    }  # fmt: skip


class SamplerER_SDE(_SamplerNode):  # noqa: N801
    DESCRIPTION = (
        "Extended reverse-time SDE: up to max_stage orders; eta counts for the reverse-time SDE only."
    )
    sampler = "er_sde"
    knobs = {
        "solver_type": (["ER-SDE", "Reverse-time SDE", "ODE"],),
        "max_stage": int_input(3, 1, 3),
        "eta": float_input(
            1.0, 0.0, 100.0, round=False, tooltip="Noise of the reverse-time SDE, 0 for none."
        ),
        "s_noise": float_input(1.0, 0.0, 100.0, round=False),
    }

    def get_sampler(self, solver_type, max_stage, eta, s_noise):
        from comfy.k_diffusion.sde_solvers import reverse_time_noise_scaler

        if solver_type == "ODE" or (solver_type == "Reverse-time SDE" and eta == 0):
            eta = s_noise = 0.0
        scaler = None if solver_type == "ER-SDE" else reverse_time_noise_scaler(eta)
        return super().get_sampler(s_noise=s_noise, noise_scaler=scaler, max_stage=max_stage)


class SamplerSASolver(_SamplerNode):
    DESCRIPTION = "Stochastic Adams solver, with noise of strength eta between two shares of the schedule."
    sampler = "sa_solver"
    knobs = {
        "model": ("MODEL",),
        "eta": float_input(1.0, 0.0, 10.0, round=False),
        "sde_start_percent": float_input(0.2, 0.0, 1.0, 0.001),
        "sde_end_percent": float_input(0.8, 0.0, 1.0, 0.001),
        "s_noise": float_input(1.0, 0.0, 100.0, round=False),
        "predictor_order": int_input(3, 1, 6),
        "corrector_order": int_input(4, 0, 6),
        "use_pece": ("BOOLEAN", {}),
        "simple_order_2": ("BOOLEAN", {}),
    }

    def get_sampler(self, model, eta, sde_start_percent, sde_end_percent, **options):
        from comfy.k_diffusion.sa_solver import get_tau_interval_func

        to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        tau_func = get_tau_interval_func(to_sigma(sde_start_percent), to_sigma(sde_end_percent), eta=eta)
        return super().get_sampler(tau_func=tau_func, **options)


class SamplerSEEDS2(_SamplerNode):
    DESCRIPTION = (
        "SEEDS-2, a stochastic solver with a middle evaluation at the share r of each step. With phi_2 and "
        "r 1 it is exp_heun_2_x0 (eta 0) or exp_heun_2_x0_sde (eta 1)."
    )
    sampler = "seeds_2"
    knobs = {
        "solver_type": (["phi_1", "phi_2"],),
        **_noise_knobs(r=float_input(0.5, 0.01, 1.0, round=False)),
    }


class Noise_EmptyNoise:  # noqa: N801
    """A NOISE that is none."""

    def __init__(self):
        self.seed = 0

    def generate_noise(self, input_latent):
        """Zeros in the shape of the latents."""
        import comfy.sample

        return comfy.sample.prepare_empty_noise(input_latent["samples"])


class Noise_RandomNoise:  # noqa: N801
    """The NOISE of a seed."""

    def __init__(self, seed):
        self.seed = seed

    def generate_noise(self, input_latent):
        """Normal noise in the shape of the latents."""
        import comfy.sample

        return comfy.sample.prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))


class _NoiseNode:
    RETURN_TYPES = ("NOISE",)
    FUNCTION = "get_noise"
    CATEGORY = "sampling/custom_sampling/noise"


class DisableNoise(_NoiseNode):
    DESCRIPTION = "No noise: for latents that carry some already."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def get_noise(self):
        return (Noise_EmptyNoise(),)


class RandomNoise(_NoiseNode):
    DESCRIPTION = "The noise of a seed."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"noise_seed": _seed_input()}}

    def get_noise(self, noise_seed):
        return (Noise_RandomNoise(noise_seed),)


class _GuiderNode:
    RETURN_TYPES = ("GUIDER",)
    FUNCTION = "get_guider"
    CATEGORY = "sampling/custom_sampling/guiders"


class BasicGuider(_GuiderNode):
    DESCRIPTION = "Follows one conditioning, without guidance."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "conditioning": ("CONDITIONING",)}}

    def get_guider(self, model, conditioning):
        import comfy.guiders

        guider = comfy.guiders.Guider_Basic(model)
        guider.set_conds(conditioning)
        return (guider,)


class CFGGuider(_GuiderNode):
    DESCRIPTION = "Follows a positive conditioning, away from a negative one."

    @classmethod
    def INPUT_TYPES(cls):
        sides = {"positive": ("CONDITIONING",), "negative": ("CONDITIONING",)}
        return {"required": {"model": ("MODEL",), **sides, "cfg": _cfg_input()}}

    def get_guider(self, model, positive, negative, cfg):
        import comfy.samplers

        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return (guider,)


class DualCFGGuider(_GuiderNode):
    DESCRIPTION = "Follows two conditionings with a scale each."

    @classmethod
    def INPUT_TYPES(cls):
        sides = dict.fromkeys(("cond1", "cond2", "negative"), ("CONDITIONING",))
        scales = {"cfg_conds": _cfg_input(), "cfg_cond2_negative": _cfg_input()}
        return {"required": {"model": ("MODEL",), **sides, **scales, "style": (["regular", "nested"],)}}

    def get_guider(self, model, cond1, cond2, negative, cfg_conds, cfg_cond2_negative, style):
        import comfy.guiders

        guider = comfy.guiders.Guider_DualCFG(model)
        guider.set_conds(cond1, cond2, negative)
        guider.set_cfg(cfg_conds, cfg_cond2_negative, nested=style == "nested")
        return (guider,)


def sample_latent(patcher, latent, sigmas, run):
    """(LATENT, the same denoised at the last step) of `run(latent, callback, disable_pbar)`."""
    import comfy.sample
    import comfy.utils

    ratios = ("downscale_ratio_spacial", "downscale_ratio_temporal")
    samples = comfy.sample.fix_empty_latent_channels(
        patcher, latent["samples"], *(latent.get(name) for name in ratios)
    )
    latent = {name: value for name, value in latent.items() if name not in ratios}
    latent["samples"] = samples
    kept = {}
    callback = latent_preview.prepare_callback(patcher, sigmas.shape[-1] - 1, kept)
    out = {**latent, "samples": run(latent, callback, not comfy.utils.PROGRESS_BAR_ENABLED)}
    if "x0" not in kept:
        return (out, out)
    return (out, {**latent, "samples": patcher.model.process_latent_out(kept["x0"].cpu())})


class _CustomSampling:
    RETURN_TYPES = ("LATENT", "LATENT")
    RETURN_NAMES = ("output", "denoised_output")
    FUNCTION = "sample"
    CATEGORY = "sampling/custom_sampling"


class SamplerCustom(_CustomSampling):
    DESCRIPTION = "Samples with a sampler and noise levels of your own."

    @classmethod
    def INPUT_TYPES(cls):
        noise = {
            "add_noise": ("BOOLEAN", {"default": True}),
            "noise_seed": _seed_input(),
            "cfg": _cfg_input(),
        }
        sides = {"positive": ("CONDITIONING",), "negative": ("CONDITIONING",)}
        parts = {"sampler": ("SAMPLER",), "sigmas": ("SIGMAS",), "latent_image": ("LATENT",)}
        return {"required": {"model": ("MODEL",), **noise, **sides, **parts}}

    def sample(self, model, add_noise, noise_seed, cfg, positive, negative, sampler, sigmas, latent_image):
        import comfy.sample

        source = Noise_RandomNoise(noise_seed) if add_noise else Noise_EmptyNoise()

        def run(latent, callback, disable_pbar):
            return comfy.sample.sample_custom(
                model,
                source.generate_noise(latent),
                cfg,
                sampler,
                sigmas,
                positive,
                negative,
                latent["samples"],
                noise_mask=latent.get("noise_mask"),
                callback=callback,
                disable_pbar=disable_pbar,
                seed=noise_seed,
            )

        return sample_latent(model, latent_image, sigmas, run)


class SamplerCustomAdvanced(_CustomSampling):
    DESCRIPTION = "Samples with noise, guider, sampler and noise levels of your own."

    @classmethod
    def INPUT_TYPES(cls):
        parts = {"noise": ("NOISE",), "guider": ("GUIDER",), "sampler": ("SAMPLER",), "sigmas": ("SIGMAS",)}
        return {"required": {**parts, "latent_image": ("LATENT",)}}

    def sample(self, noise, guider, sampler, sigmas, latent_image):
        import comfy.model_management

        def run(latent, callback, disable_pbar):
            samples = guider.sample(
                noise.generate_noise(latent),
                latent["samples"],
                sampler,
                sigmas,
                denoise_mask=latent.get("noise_mask"),
                callback=callback,
                disable_pbar=disable_pbar,
                seed=noise.seed,
            )
            return samples.to(comfy.model_management.intermediate_device())

        return sample_latent(guider.model_patcher, latent_image, sigmas, run)


class AddNoise:
    DESCRIPTION = "Adds the noise of the first level, less the last one's, to latents."
    RETURN_TYPES = ("LATENT",)
    FUNCTION = "add_noise"
    CATEGORY = "_for_testing/custom_sampling/noise"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        parts = {"noise": ("NOISE",), "sigmas": ("SIGMAS",), "latent_image": ("LATENT",)}
        return {"required": {"model": ("MODEL",), **parts}}

    def add_noise(self, model, noise, sigmas, latent_image):
        import torch

        if len(sigmas) == 0:
            return (latent_image,)
        samples = latent_image["samples"]
        made = noise.generate_noise(latent_image).to(samples.device)
        scale = (sigmas[0] - sigmas[-1]).abs() if len(sigmas) > 1 else sigmas[0]
        if torch.count_nonzero(samples) > 0:  # an empty latent stays zero where a model shifts latents
            samples = model.get_model_object("process_latent_in")(samples)
        noisy = model.get_model_object("model_sampling").noise_scaling(scale, made, samples)
        noisy = model.get_model_object("process_latent_out")(noisy)
        return ({**latent_image, "samples": torch.nan_to_num(noisy, nan=0.0, posinf=0.0, neginf=0.0)},)


_NODES = [
    BasicScheduler, KarrasScheduler, ExponentialScheduler, PolyexponentialScheduler, LaplaceScheduler,
    VPScheduler, BetaSamplingScheduler, SDTurboScheduler, SplitSigmas, SplitSigmasDenoise, FlipSigmas,
    SetFirstSigma, ExtendIntermediateSigmas, SamplingPercentToSigma, ManualSigmas, KSamplerSelect,
    SamplerEulerAncestral, SamplerEulerAncestralCFGPP,
    SamplerDPMPP_2S_Ancestral, SamplerDPMPP_SDE, SamplerDPMPP_2M_SDE, SamplerDPMPP_3M_SDE, SamplerLMS,
    SamplerDPMAdaptative, SamplerER_SDE, SamplerSASolver, SamplerSEEDS2, DisableNoise, RandomNoise,
    BasicGuider, CFGGuider, DualCFGGuider, SamplerCustom, SamplerCustomAdvanced, AddNoise,
    CFGOverride, DualModelGuider,
]  # fmt: skip

NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
NODE_DISPLAY_NAME_MAPPINGS = {
    "CFGOverride": "CFG Override", "DualModelGuider": "Dual Model CFG Guider",
    "SamplerEulerAncestralCFGPP": "SamplerEulerAncestralCFG++",
}  # fmt: skip

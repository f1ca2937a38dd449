"""What a model's output means and how its noise levels run; guidance that keeps the contrast."""

from __future__ import annotations

import copy
import logging

from comfy_extras.core_inputs import float_input, pixels_input


def __getattr__(name):
    # Packs look for these here; their module loads torch, which a list of nodes must not.
    if name in ("LCM", "ModelSamplingDiscreteDistilled", "rescale_zero_terminal_snr_sigmas"):
        import comfy.model_sampling

        return getattr(comfy.model_sampling, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def with_sampling(model, schedule: str, prediction: str, set_up):
    """A clone of MODEL whose sampling is made of these two classes of `comfy.model_sampling`.

    `set_up(sampling)` sets its parameters; it may return another one to use instead.
    """
    import comfy.model_sampling

    bases = tuple(getattr(comfy.model_sampling, name) for name in (schedule, prediction))
    clone = model.clone()
    sampling = type("ModelSamplingAdvanced", bases, {})(model.model.model_config)
    set_up(sampling)
    clone.add_object_patch("model_sampling", sampling)
    return clone


class _ModelNode:
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "advanced/model"


class ModelSamplingDiscrete(_ModelNode):
    DESCRIPTION = "For models of 1,000 steps: what they predict, and whether the last step is noise alone."

    PREDICTIONS = {
        "eps": "EPS", "v_prediction": "V_PREDICTION", "lcm": "LCM", "x0": "X0", "img_to_img": "IMG_TO_IMG",
    }  # fmt: skip

    @classmethod
    def INPUT_TYPES(cls):
        sampling, zsnr = (list(cls.PREDICTIONS),), ("BOOLEAN", {"default": False})
        return {"required": {"model": ("MODEL",), "sampling": sampling, "zsnr": zsnr}}

    def patch(self, model, sampling, zsnr):
        import comfy.model_sampling

        def set_up(made):
            if zsnr:
                made.set_sigmas(comfy.model_sampling.rescale_zero_terminal_snr_sigmas(made.sigmas))

        schedule = "ModelSamplingDiscreteDistilled" if sampling == "lcm" else "ModelSamplingDiscrete"
        return (with_sampling(model, schedule, self.PREDICTIONS[sampling], set_up),)


class _Shifted(_ModelNode):
    """A schedule with a shift towards noise."""

    schedule = "ModelSamplingDiscreteFlow"
    prediction = "CONST"
    default = 3.0
    options: dict = {}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "shift": float_input(cls.default, 0.0, 100.0)}}

    def patch(self, model, shift):
        def set_up(made):
            made.set_parameters(shift=shift, **self.options)

        return (with_sampling(model, self.schedule, self.prediction, set_up),)


class ModelSamplingStableCascade(_Shifted):
    DESCRIPTION = "The shift of Stable Cascade's noise levels."

    schedule, prediction, default = "StableCascadeSampling", "EPS", 2.0


class ModelSamplingSD3(_Shifted):
    DESCRIPTION = "The shift of a rectified flow such as SD3."

    options = {"multiplier": 1000}


class ModelSamplingAuraFlow(_Shifted):
    DESCRIPTION = "The shift of a rectified flow whose network counts time from 0 to 1, such as AuraFlow."

    default, options = 1.73, {"multiplier": 1.0}

    FUNCTION = "patch_aura"

    def patch_aura(self, model, shift):
        return self.patch(model, shift)


class ModelSamplingFlux(_ModelNode):
    DESCRIPTION = "The shift of Flux, which grows with the size of the picture."

    SMALL, LARGE = 256, 4096  # tokens of 16x16 pixels at which the two shifts hold

    @classmethod
    def INPUT_TYPES(cls):
        shifts = {"max_shift": float_input(1.15, 0.0, 100.0), "base_shift": float_input(0.5, 0.0, 100.0)}
        return {
            "required": {
                "model": ("MODEL",),
                **shifts,
                "width": pixels_input(1024, 16),
                "height": pixels_input(1024, 16),
            }
        }

    def patch(self, model, max_shift, base_shift, width, height):
        slope = (max_shift - base_shift) / (self.LARGE - self.SMALL)
        shift = base_shift + (width * height / 256 - self.SMALL) * slope
        return (with_sampling(model, "ModelSamplingFlux", "CONST", lambda made: made.set_parameters(shift)),)


def _sigma_inputs(high: float, low: float) -> dict:
    return {
        "sigma_max": float_input(high, 0.0, 1000.0, 0.001, round=False),
        "sigma_min": float_input(low, 0.0, 1000.0, 0.001, round=False),
    }


class ModelSamplingContinuousEDM(_ModelNode):
    DESCRIPTION = "For models with any noise level between two bounds, as those of Karras et al. (2022)."

    # sampling: (prediction, schedule, standard deviation of the data, latent format)
    KINDS = {
        "v_prediction": ("V_PREDICTION", "ModelSamplingContinuousEDM", 1.0, None),
        "edm": ("EDM", "ModelSamplingContinuousEDM", 0.5, None),
        "edm_playground_v2.5": ("EDM", "ModelSamplingContinuousEDM", 0.5, "SDXL_Playground_2_5"),
        "eps": ("EPS", "ModelSamplingContinuousEDM", 1.0, None),
        "cosmos_rflow": ("COSMOS_RFLOW", "ModelSamplingCosmosRFlow", 1.0, None),
    }

    @classmethod
    def INPUT_TYPES(cls):
        sampling = (list(cls.KINDS),)
        return {"required": {"model": ("MODEL",), "sampling": sampling, **_sigma_inputs(120.0, 0.002)}}

    def patch(self, model, sampling, sigma_max, sigma_min):
        prediction, schedule, deviation, latent_format = self.KINDS[sampling]
        clone = with_sampling(
            model, schedule, prediction, lambda made: made.set_parameters(sigma_min, sigma_max, deviation)
        )
        if latent_format is not None:
            import comfy.latent_formats

            clone.add_object_patch("latent_format", getattr(comfy.latent_formats, latent_format)())
        return (clone,)


class ModelSamplingContinuousV(_ModelNode):
    DESCRIPTION = "For velocity models with any noise level between two bounds."

    @classmethod
    def INPUT_TYPES(cls):
        sampling = (["v_prediction"],)
        return {"required": {"model": ("MODEL",), "sampling": sampling, **_sigma_inputs(500.0, 0.03)}}

    def patch(self, model, sampling, sigma_max, sigma_min):
        return (
            with_sampling(
                model,
                "ModelSamplingContinuousV",
                "V_PREDICTION",
                lambda made: made.set_parameters(sigma_min, sigma_max, 1.0),
            ),
        )


class RescaleCFG(_ModelNode):
    DESCRIPTION = "Guidance that keeps the contrast of the positive side: for models that predict velocity."

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "multiplier": float_input(0.7, 0.0, 1.0)}}

    def patch(self, model, multiplier):
        import comfy.guidance

        def guide(args):
            x, sides = args["input"], (args["cond_denoised"], args["uncond_denoised"])
            return x - comfy.guidance.rescaled(*sides, x, args["sigma"], args["cond_scale"], multiplier)

        clone = model.clone()
        clone.set_model_sampler_cfg_function(guide)
        return (clone,)


class ModelComputeDtype(_ModelNode):
    DESCRIPTION = "The number type that the model computes in, whatever its weights are kept in."
    CATEGORY = "advanced/debug/model"

    DTYPES = {"default": None, "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "dtype": (list(cls.DTYPES),)}}

    def patch(self, model, dtype):
        import torch

        name = self.DTYPES[dtype]
        clone = model.clone()
        clone.set_model_compute_dtype(None if name is None else getattr(torch, name))
        return (clone,)


class ModelNoiseScale:
    DESCRIPTION = "The strength of the noise that a flow model was trained with, where it is not 1."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model/patch"

    @classmethod
    def INPUT_TYPES(cls):
        scale = "The deviation of the noise: 8.0 for HiDream-O1 base, 7.5 for dev."
        return {
            "required": {"model": ("MODEL",), "noise_scale": float_input(1.0, 0.0, 64.0, tooltip=scale)},
        }

    def patch(self, model, noise_scale):
        import comfy.model_sampling

        sampling = model.get_model_object("model_sampling")
        if not isinstance(sampling, comfy.model_sampling.CONST):
            raise ValueError(
                f"{type(model.model).__name__} is no rectified flow, and its noise has the strength of its "
                "schedule. Leave Model Noise Scale out."
            )
        scaled = copy.copy(sampling)
        scaled.noise_scale = float(noise_scale)
        model = model.clone()
        model.add_object_patch("model_sampling", scaled)
        return (model,)


class ModelAttentionBackend:
    DESCRIPTION = "Which implementation computes attention. PyTorch's own is the only one here."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model/patch"
    BACKENDS = ["pytorch attention"]

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "attention": (cls.BACKENDS,)}}

    @classmethod
    def VALIDATE_INPUTS(cls, attention):
        return True  # a workflow made where there are more runs with this one

    def patch(self, model, attention):
        if attention not in self.BACKENDS:
            logging.warning("There is no attention '%s' here; PyTorch's own is used.", attention)
        return (model.clone(),)


NODE_CLASS_MAPPINGS = {
    kind.__name__: kind
    for kind in (
        ModelSamplingDiscrete, ModelSamplingContinuousEDM, ModelSamplingContinuousV,
        ModelSamplingStableCascade, ModelSamplingSD3, ModelSamplingAuraFlow, ModelSamplingFlux, RescaleCFG,
        ModelComputeDtype, ModelNoiseScale, ModelAttentionBackend,
    )
}  # fmt: skip

"""The predicted noise, a little less or more of it."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class EpsilonScaling:
    DESCRIPTION = "Divides the predicted noise, against errors that add up over the steps (Ning et al. 2023)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model_patches/unet"

    @classmethod
    def INPUT_TYPES(cls):
        factor = float_input(1.005, 0.5, 1.5, 0.001, display="number")
        return {"required": {"model": ("MODEL",), "scaling_factor": factor}}

    def patch(self, model, scaling_factor):
        divisor = scaling_factor or 1e-9

        def after_guidance(args):
            return args["input"] - (args["input"] - args["denoised"]) / divisor

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance)
        return (clone,)


class TemporalScoreRescaling:
    DESCRIPTION = "More detail or smoother pictures: rescales the score as the noise falls (Xu et al. 2025)."
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("patched_model",)
    FUNCTION = "patch"
    CATEGORY = "model_patches/unet"

    @classmethod
    def INPUT_TYPES(cls):
        k = "Below 1 gives more detail, above 1 smoother pictures; 1 is off."
        deviation = "The larger, the earlier it begins."
        return {
            "required": {
                "model": ("MODEL",),
                "tsr_k": float_input(0.95, 0.01, 100.0, 0.001, k, display="number"),
                "tsr_sigma": float_input(1.0, 0.01, 100.0, 0.001, deviation, display="number"),
            }
        }

    def patch(self, model, tsr_k, tsr_sigma):
        import comfy.guidance
        from comfy.k_diffusion.sampling import sigma_to_half_log_snr

        def after_guidance(args):
            if tsr_k == 1:
                return args["denoised"]
            sampling = args["model"].current_patcher.get_model_object("model_sampling")
            sigma = args["sigma"]
            levels = (sigma, sigma_to_half_log_snr(sigma, sampling))
            return comfy.guidance.rescale_score(args["denoised"], args["input"], *levels, tsr_k, tsr_sigma)

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance)
        return (clone,)


NODE_CLASS_MAPPINGS = {"Epsilon Scaling": EpsilonScaling, "TemporalScoreRescaling": TemporalScoreRescaling}
NODE_DISPLAY_NAME_MAPPINGS = {"TemporalScoreRescaling": "TSR - Temporal Score Rescaling"}

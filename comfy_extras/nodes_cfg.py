"""Guidance that fits the negative side to the positive one, or keeps the positive side's length."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class CFGZeroStar:
    DESCRIPTION = "Scales the negative side to fit the positive one, for flow models (Fan et al. 2025)."
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("patched_model",)
    FUNCTION = "patch"
    CATEGORY = "advanced/guidance"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        import comfy.guidance

        def after_guidance(args):
            sides = (args["cond_denoised"], args["uncond_denoised"])
            return comfy.guidance.zero_star(args["denoised"], *sides, args["input"], args["cond_scale"])

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance)
        return (clone,)


class CFGNorm:
    DESCRIPTION = "Guidance that makes no place stronger than the positive side has it."
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("patched_model",)
    FUNCTION = "patch"
    CATEGORY = "advanced/guidance"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "strength": float_input(1.0, 0.0, 100.0)}}

    def patch(self, model, strength):
        import comfy.guidance

        def after_guidance(args):
            return comfy.guidance.no_longer_than(args["denoised"], args["cond_denoised"], strength)

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance)
        return (clone,)


NODE_CLASS_MAPPINGS = {"CFGZeroStar": CFGZeroStar, "CFGNorm": CFGNorm}

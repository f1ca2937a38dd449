"""Guidance that follows the positive prompt the more, the more alike both sides are."""

from __future__ import annotations


class Mahiro:
    DESCRIPTION = "Follows where the positive prompt leads rather than how it differs from the negative one."
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("patched_model",)
    FUNCTION = "patch"
    CATEGORY = "_for_testing"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        import comfy.guidance

        def after_guidance(args):
            sides = (args["cond_denoised"], args["uncond_denoised"])
            return comfy.guidance.towards_positive(args["denoised"], *sides, args["cond_scale"])

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance)
        return (clone,)


NODE_CLASS_MAPPINGS = {"Mahiro": Mahiro}
NODE_DISPLAY_NAME_MAPPINGS = {"Mahiro": "Mahiro CFG"}

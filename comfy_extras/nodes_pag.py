"""Perturbed attention guidance."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


def _values_only(q, k, v, extra_options, mask=None):
    """Attention of every token to itself alone."""
    return v


class PerturbedAttentionGuidance:
    DESCRIPTION = "Away from what the model makes without self-attention in its middle (Ahn et al. 2024)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model_patches/unet"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "scale": float_input(3.0, 0.0, 100.0, round=0.01)}}

    def patch(self, model, scale):
        import comfy.model_patcher
        import comfy.samplers

        def after_guidance(args):
            if scale == 0:
                return args["denoised"]
            options = comfy.model_patcher.set_model_options_patch_replace(
                args["model_options"].copy(), _values_only, "attn1", "middle", 0
            )
            (perturbed,) = comfy.samplers.calc_cond_batch(
                args["model"], [args["cond"]], args["input"], args["sigma"], options
            )
            return args["denoised"] + (args["cond_denoised"] - perturbed) * scale

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance)
        return (clone,)


NODE_CLASS_MAPPINGS = {"PerturbedAttentionGuidance": PerturbedAttentionGuidance}

"""Guidance by frequency."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input, int_input


class FreSca:
    DESCRIPTION = "Scales coarse and fine parts of the guidance apart (Huang et al. 2025)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "_for_testing"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        cutoff = "Up to which frequency, in waves per picture, it counts as coarse."
        return {
            "required": {
                "model": ("MODEL",),
                "scale_low": float_input(1.0, 0, 10, tooltip="The factor of coarse parts."),
                "scale_high": float_input(1.25, 0, 10, tooltip="The factor of fine parts."),
                "freq_cutoff": int_input(20, 1, 10000, 1, cutoff),
            }
        }

    def patch(self, model, scale_low, scale_high, freq_cutoff):
        import comfy.guidance

        def before_guidance(args):
            sides = args["conds_out"]
            if len(sides) < 2 or any(side is None for side in args["conds"][:2]):
                return sides
            cond, uncond, *others = sides
            scaled = comfy.guidance.scale_frequencies(cond - uncond, freq_cutoff, scale_low, scale_high)
            return [scaled + uncond, uncond, *others]

        clone = model.clone()
        clone.set_model_sampler_pre_cfg_function(before_guidance)
        return (clone,)


NODE_CLASS_MAPPINGS = {"FreSca": FreSca}

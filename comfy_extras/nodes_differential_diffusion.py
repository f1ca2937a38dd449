"""Differential diffusion: a gray noise mask says from which step on each place may change."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class DifferentialDiffusion:
    DESCRIPTION = "With a gray noise mask: the brighter a place, the earlier it may change."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply"
    CATEGORY = "_for_testing"

    @classmethod
    def INPUT_TYPES(cls):
        strength = float_input(1.0, 0.0, 1.0, tooltip="Below 1 the gray mask shares in as it is.")
        return {"required": {"model": ("MODEL",)}, "optional": {"strength": strength}}

    def apply(self, model, strength=1.0):
        import comfy.guidance

        def mask_of_step(sigma, mask, extra_options):
            sampling = extra_options["model"].inner_model.model_sampling
            return comfy.guidance.differential_mask(mask, sigma, extra_options["sigmas"], sampling, strength)

        clone = model.clone()
        clone.set_model_denoise_mask_function(mask_of_step)
        return (clone,)


NODE_CLASS_MAPPINGS = {"DifferentialDiffusion": DifferentialDiffusion}
NODE_DISPLAY_NAME_MAPPINGS = {"DifferentialDiffusion": "Differential Diffusion"}

"""Where a transformer thinks that its tokens stand."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class ScaleROPE:
    DESCRIPTION = "Scales and moves the positions of the picture's tokens (rotary embedding)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "advanced/model_patches"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        inputs = {}
        for axis in "xyt":
            inputs[f"scale_{axis}"] = float_input(1.0, 0.0, 100.0, 0.1)
            inputs[f"shift_{axis}"] = float_input(0.0, -256.0, 256.0, 0.1)
        return {"required": {"model": ("MODEL",), **inputs}}

    def patch(self, model, scale_x, shift_x, scale_y, shift_y, scale_t, shift_t):
        clone = model.clone()
        clone.set_model_rope_options(scale_x, shift_x, scale_y, shift_y, scale_t, shift_t)
        return (clone,)


NODE_CLASS_MAPPINGS = {"ScaleROPE": ScaleROPE}

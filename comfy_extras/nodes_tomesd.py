"""Self-attention with fewer tokens: those that are alike are merged."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class TomePatchModel:
    DESCRIPTION = "Faster large pictures: this share of tokens is merged for self-attention."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model_patches/unet"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "ratio": float_input(0.3, 0.0, 1.0)}}

    def patch(self, model, ratio):
        import comfy.token_patches

        merging = comfy.token_patches.TokenMerging(ratio)
        clone = model.clone()
        clone.set_model_attn1_patch(merging.before)
        clone.set_model_attn1_output_patch(merging.after)
        return (clone,)


NODE_CLASS_MAPPINGS = {"TomePatchModel": TomePatchModel}

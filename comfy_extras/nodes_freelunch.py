"""FreeU: more of a UNet's backbone and less of its skip connections, in its two deepest levels."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class FreeU:
    DESCRIPTION = "Amplifies what the UNet's depth says and damps its skips (Si et al. 2023)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model_patches/unet"

    defaults = {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}
    amplify = "amplify_backbone"

    @classmethod
    def INPUT_TYPES(cls):
        factors = {name: float_input(value, 0.0, 10.0) for name, value in cls.defaults.items()}
        return {"required": {"model": ("MODEL",), **factors}}

    def patch(self, model, b1, b2, s1, s2):
        import comfy.guidance

        width = model.model.model_config.unet_config["model_channels"]
        factors = {width * 4: (b1, s1), width * 2: (b2, s2)}
        amplify = getattr(comfy.guidance, self.amplify)

        def on_output_block(h, skip, transformer_options):
            if h.shape[1] not in factors:
                return h, skip
            backbone, low = factors[h.shape[1]]
            return amplify(h, backbone), comfy.guidance.scale_low_frequencies(skip, threshold=1, scale=low)

        clone = model.clone()
        clone.set_model_output_block_patch(on_output_block)
        return (clone,)


class FreeU_V2(FreeU):  # noqa: N801 - the name in workflows
    DESCRIPTION = "FreeU with a factor that follows how active each place is."

    defaults = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
    amplify = "amplify_backbone_where_active"


NODE_CLASS_MAPPINGS = {"FreeU": FreeU, "FreeU_V2": FreeU_V2}

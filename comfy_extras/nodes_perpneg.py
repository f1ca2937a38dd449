"""Perp-Neg: away from what the negative prompt does not share with the positive one."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


def __getattr__(name):
    # Packs look for it here; its module loads torch, which a list of nodes must not.
    if name == "Guider_PerpNeg":
        import comfy.guiders

        return comfy.guiders.Guider_PerpNeg
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


class PerpNeg:
    DESCRIPTION = "Guidance away from what the negative side does not share with the positive one."
    DEPRECATED = True
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "_for_testing"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "empty_conditioning": ("CONDITIONING",),
                             "neg_scale": float_input(1.0, 0.0, 100.0)}}

    def patch(self, model, empty_conditioning, neg_scale):
        import comfy.guidance
        import comfy.sampler_helpers
        import comfy.samplers

        clone = model.clone()
        empty = comfy.sampler_helpers.convert_cond(empty_conditioning)

        def guide(args):
            x, sigma, inner = args["input"], args["sigma"], args["model"]
            side = comfy.samplers.encode_model_conds(inner.extra_conds, empty, x, x.device, "negative")
            (without,) = comfy.samplers.calc_cond_batch(inner, [side], x, sigma, args["model_options"])
            return x - comfy.guidance.perp_neg(
                args["cond_denoised"], args["uncond_denoised"], without, neg_scale, args["cond_scale"]
            )

        clone.set_model_sampler_cfg_function(guide)
        return (clone,)


class PerpNegGuider:
    DESCRIPTION = "Follows a positive conditioning, away from what a negative one does not share with it."
    RETURN_TYPES = ("GUIDER",)
    FUNCTION = "get_guider"
    CATEGORY = "_for_testing"

    @classmethod
    def INPUT_TYPES(cls):
        sides = dict.fromkeys(("positive", "negative", "empty_conditioning"), ("CONDITIONING",))
        cfg, neg_scale = float_input(8.0, 0.0, 100.0, 0.1, round=0.01), float_input(1.0, 0.0, 100.0)
        return {"required": {"model": ("MODEL",), **sides, "cfg": cfg, "neg_scale": neg_scale}}

    def get_guider(self, model, positive, negative, empty_conditioning, cfg, neg_scale):
        import comfy.guiders

        guider = comfy.guiders.Guider_PerpNeg(model)
        guider.set_conds(positive, negative, empty_conditioning)
        guider.set_cfg(cfg, neg_scale)
        return (guider,)


NODE_CLASS_MAPPINGS = {"PerpNeg": PerpNeg, "PerpNegGuider": PerpNegGuider}
NODE_DISPLAY_NAME_MAPPINGS = {"PerpNeg": "Perp-Neg (DEPRECATED by PerpNegGuider)"}

"""Tangential damping guidance."""

from __future__ import annotations


def score_tangential_damping(cond_score, uncond_score):
    """The negative side along the main direction that both sides have."""
    import comfy.guidance

    return comfy.guidance.damp_tangent(cond_score, uncond_score)


class TCFG:
    DESCRIPTION = "Leaves out of the negative side what leads across to both sides (Kwon et al. 2025)."
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("patched_model",)
    FUNCTION = "patch"
    CATEGORY = "advanced/guidance"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    def patch(self, model):
        def before_guidance(args):
            sides, x = args["conds_out"], args["input"]
            if len(sides) < 2 or any(side is None for side in args["conds"][:2]):
                return sides
            cond, uncond, *others = sides
            return [cond, x - score_tangential_damping(x - cond, x - uncond), *others]

        clone = model.clone()
        clone.set_model_sampler_pre_cfg_function(before_guidance)
        return (clone,)


NODE_CLASS_MAPPINGS = {"TCFG": TCFG}
NODE_DISPLAY_NAME_MAPPINGS = {"TCFG": "Tangential Damping CFG"}

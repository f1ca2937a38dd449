"""Adaptive projected guidance."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class APG:
    DESCRIPTION = "High guidance without too much contrast and colour (Sadat et al. 2024)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "sampling/custom_sampling"

    @classmethod
    def INPUT_TYPES(cls):
        eta = "How much of the guidance goes along the positive side; 1 is plain guidance."
        longest = "The guidance is made no longer than this; 0 sets no limit."
        momentum = "How much of the guidance of earlier steps is kept; negative moves away from it, 0 is off."
        return {
            "required": {
                "model": ("MODEL",),
                "eta": float_input(1.0, -10.0, 10.0, tooltip=eta),
                "norm_threshold": float_input(5.0, 0.0, 50.0, 0.1, longest),
                "momentum": float_input(0.0, -5.0, 1.0, tooltip=momentum),
            }
        }

    def patch(self, model, eta, norm_threshold, momentum):
        import comfy.guidance

        state = {"sigma": None, "guidance": None}  # of the step before

        def before_guidance(args):
            sides, sigma = args["conds_out"], args["sigma"][0]
            if len(sides) == 1:
                return sides
            cond, uncond, *others = sides
            if state["sigma"] is not None and sigma > state["sigma"]:
                state["guidance"] = None  # another run begins
            state["sigma"], guidance = sigma, cond - uncond
            if momentum != 0:
                if state["guidance"] is not None:
                    guidance = momentum * state["guidance"] + guidance
                state["guidance"] = guidance
            changed = comfy.guidance.projected(guidance, cond, eta, norm_threshold)
            # What plain guidance makes of this is cond + scale * changed.
            return [uncond + changed + (cond - uncond) / args["cond_scale"], uncond, *others]

        clone = model.clone()
        clone.set_model_sampler_pre_cfg_function(before_guidance)
        return (clone,)


NODE_CLASS_MAPPINGS = {"APG": APG}
NODE_DISPLAY_NAME_MAPPINGS = {"APG": "Adaptive Projected Guidance"}

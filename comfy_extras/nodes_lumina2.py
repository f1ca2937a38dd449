"""Guidance that is cut off and limited in length."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class RenormCFG:
    DESCRIPTION = "Guidance only below a noise level, and no longer than a multiple of the positive side."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "advanced/model"

    @classmethod
    def INPUT_TYPES(cls):
        truncated = "The noise level (sigma) from which down there is guidance."
        longest = "How much longer than the positive side the result may be; 0 sets no limit."
        return {
            "required": {
                "model": ("MODEL",),
                "cfg_trunc": float_input(100, 0.0, 100.0, tooltip=truncated),
                "renorm_cfg": float_input(1.0, 0.0, 100.0, tooltip=longest),
            }
        }

    def patch(self, model, cfg_trunc, renorm_cfg):
        import torch

        import comfy.guidance

        guided_channels = model.model.model_config.unet_config["in_channels"]

        def guide(args):
            cond, uncond = args["cond_denoised"], args["uncond_denoised"]
            if args["timestep"][0] >= cfg_trunc:
                return args["input"] - cond
            sides = (cond[:, :guided_channels], uncond[:, :guided_channels])
            guided = comfy.guidance.renormalised(*sides, args["cond_scale"], float(renorm_cfg))
            return args["input"] - torch.cat([guided, cond[:, guided_channels:]], dim=1)

        clone = model.clone()
        clone.set_model_sampler_cfg_function(guide)
        return (clone,)


NODE_CLASS_MAPPINGS = {"RenormCFG": RenormCFG}

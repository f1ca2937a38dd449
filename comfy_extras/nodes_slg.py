"""Guidance away from what a transformer makes with some of its layers skipped."""

from __future__ import annotations

import re

from comfy_extras.core_inputs import float_input

_LAYERS = ("STRING", {"default": "7, 8, 9", "multiline": False})


def _percent(default: float):
    return float_input(default, 0.0, 1.0, 0.001)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


class _Skipping:
    """Which layers are skipped, and between which noise levels."""

    def __init__(self, model, double_layers: str, single_layers: str, start: float, end: float):
        sampling = model.get_model_object("model_sampling")
        self.blocks = [("double_block", number) for number in _numbers(double_layers)]
        self.blocks += [("single_block", number) for number in _numbers(single_layers)]
        self.highest, self.lowest = sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)

    def is_on(self, sigma) -> bool:
        return self.lowest <= sigma[0].item() <= self.highest

    def options(self, model_options: dict) -> dict:
        """Options of a model under which the blocks give what they get."""
        import comfy.model_patcher

        options = model_options.copy()
        for block in self.blocks:
            options = comfy.model_patcher.set_model_options_patch_replace(
                options, lambda told, _extra: told, "dit", *block
            )
        return options


class SkipLayerGuidanceDiT:
    DESCRIPTION = (
        "Finer detail from transformers such as SD3 and Flux: away from what they make with skipped layers."
    )
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "skip_guidance"
    CATEGORY = "advanced/guidance"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        rescaling = "How much of the positive side's contrast is kept."
        return {
            "required": {
                "model": ("MODEL",),
                "double_layers": _LAYERS,
                "single_layers": _LAYERS,
                "scale": float_input(3.0, 0.0, 10.0, 0.1),
                "start_percent": _percent(0.01),
                "end_percent": _percent(0.15),
                "rescaling_scale": float_input(0.0, 0.0, 10.0, tooltip=rescaling),
            }
        }

    def skip_guidance(
        self, model, scale, start_percent, end_percent, double_layers="", single_layers="", rescaling_scale=0
    ):
        import comfy.samplers

        skipping = _Skipping(model, double_layers, single_layers, start_percent, end_percent)
        if not skipping.blocks:
            return (model,)

        def after_guidance(args):
            denoised, cond = args["denoised"], args["cond_denoised"]
            if scale <= 0 or not skipping.is_on(args["sigma"]):
                return denoised
            options = skipping.options(args["model_options"])
            (skipped,) = comfy.samplers.calc_cond_batch(
                args["model"], [args["cond"]], args["input"], args["sigma"], options
            )
            denoised = denoised + (cond - skipped) * scale
            if rescaling_scale == 0:
                return denoised
            return denoised * (rescaling_scale * cond.std() / denoised.std() + (1 - rescaling_scale))

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(after_guidance)
        return (clone,)


class SkipLayerGuidanceDiTSimple:
    DESCRIPTION = "Skips layers of a transformer on the negative side alone: as fast as without."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "skip_guidance"
    CATEGORY = "advanced/guidance"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "double_layers": _LAYERS,
                "single_layers": _LAYERS,
                "start_percent": _percent(0.0),
                "end_percent": _percent(1.0),
            }
        }

    def skip_guidance(self, model, start_percent, end_percent, double_layers="", single_layers=""):
        import comfy.samplers

        skipping = _Skipping(model, double_layers, single_layers, start_percent, end_percent)
        if not skipping.blocks:
            return (model,)

        def predict(args):
            (cond, uncond), options = args["conds"], args["model_options"]

            def sides(conds, options):
                return comfy.samplers.calc_cond_batch(
                    args["model"], conds, args["input"], args["sigma"], options
                )

            if uncond is None or not skipping.is_on(args["sigma"]):
                return sides(args["conds"], options)
            positive, _ = sides([cond, None], options)
            _, negative = sides([None, uncond], skipping.options(options))
            return [positive, negative]

        clone = model.clone()
        clone.set_model_sampler_calc_cond_batch_function(predict)
        return (clone,)


_NODES = (SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}

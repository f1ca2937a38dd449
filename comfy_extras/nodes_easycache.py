"""Faster sampling by reusing steps that would change little."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input


class EasyCache:
    DESCRIPTION = "Leaves out steps in which the network would do nearly the same as in the one before."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "advanced/debug/model"
    EXPERIMENTAL = True

    settings = "EasyReuse"

    @classmethod
    def INPUT_TYPES(cls):
        threshold = "How much the steps that are left out in a row may change; the larger, the faster."
        return {
            "required": {
                "model": ("MODEL",),
                "reuse_threshold": float_input(0.2, 0.0, 3.0, tooltip=threshold),
                "start_percent": float_input(0.15, 0.0, 1.0, tooltip="From this share of the steps on."),
                "end_percent": float_input(0.95, 0.0, 1.0, tooltip="Up to this share of the steps."),
                "verbose": ("BOOLEAN", {"default": False, "tooltip": "Log each decision."}),
            }
        }

    def patch(self, model, reuse_threshold, start_percent, end_percent, verbose):
        import comfy.easy_cache

        make = getattr(comfy.easy_cache, self.settings)
        channels = model.get_model_object("latent_format").latent_channels
        clone = model.clone()
        comfy.easy_cache.add_to(clone, make(reuse_threshold, start_percent, end_percent, channels, verbose))
        return (clone,)


class LazyCache(EasyCache):
    DESCRIPTION = "EasyCache around whole guided steps: coarser, and for every model and guider."

    settings = "LazyReuse"


NODE_CLASS_MAPPINGS = {"EasyCache": EasyCache, "LazyCache": LazyCache}

"""Deep shrink: a UNet that sees a smaller picture in its depth while the noise is high."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input, int_input

METHODS = ["bicubic", "nearest-exact", "bilinear", "area", "bislerp"]


class PatchModelAddDownscale:
    DESCRIPTION = "Larger pictures than a UNet was trained for, without doubled content (Kohya deep shrink)."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model_patches/unet"

    @classmethod
    def INPUT_TYPES(cls):
        after = ("BOOLEAN", {"default": True, "tooltip": "Whether the skip connection keeps the full size."})
        return {
            "required": {
                "model": ("MODEL",),
                "block_number": int_input(3, 1, 32, 1, "The input block after which it is smaller."),
                "downscale_factor": float_input(2.0, 0.1, 9.0, 0.001),
                "start_percent": float_input(0.0, 0.0, 1.0, 0.001),
                "end_percent": float_input(0.35, 0.0, 1.0, 0.001),
                "downscale_after_skip": after,
                "downscale_method": (METHODS,),
                "upscale_method": (METHODS,),
            }
        }

    def patch(
        self, model, block_number, downscale_factor, start_percent, end_percent, downscale_after_skip,
        downscale_method, upscale_method,
    ):  # fmt: skip
        import comfy.utils

        sampling = model.get_model_object("model_sampling")
        highest, lowest = (sampling.percent_to_sigma(percent) for percent in (start_percent, end_percent))

        def shrink(h, transformer_options):
            sigma = transformer_options["sigmas"][0].item()
            if transformer_options["block"][1] != block_number or not lowest <= sigma <= highest:
                return h
            width, height = (round(side * (1.0 / downscale_factor)) for side in (h.shape[-1], h.shape[-2]))
            return comfy.utils.common_upscale(h, width, height, downscale_method, "disabled")

        def grow(h, skip, transformer_options):
            if h.shape[2] != skip.shape[2]:
                size = (skip.shape[-1], skip.shape[-2])
                h = comfy.utils.common_upscale(h, *size, upscale_method, "disabled")
            return h, skip

        clone = model.clone()
        if downscale_after_skip:
            clone.set_model_input_block_patch_after_skip(shrink)
        else:
            clone.set_model_input_block_patch(shrink)
        clone.set_model_output_block_patch(grow)
        return (clone,)


NODE_CLASS_MAPPINGS = {"PatchModelAddDownscale": PatchModelAddDownscale}
NODE_DISPLAY_NAME_MAPPINGS = {"PatchModelAddDownscale": "PatchModelAddDownscale (Kohya Deep Shrink)"}

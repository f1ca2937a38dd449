"""Self-attention in tiles, for large pictures."""

from __future__ import annotations

from comfy_extras.core_inputs import int_input


class HyperTile:
    DESCRIPTION = "Faster large pictures: self-attention sees tiles of this many pixels per side."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "model_patches/unet"

    @classmethod
    def INPUT_TYPES(cls):
        swap = "From how many tile sizes one is drawn by lot."
        depth = "How many levels of the UNet, besides the first."
        return {
            "required": {
                "model": ("MODEL",),
                "tile_size": int_input(256, 1, 2048),
                "swap_size": int_input(2, 1, 128, tooltip=swap),
                "max_depth": int_input(0, 0, 10, tooltip=depth),
                "scale_depth": ("BOOLEAN", {"default": False}),
            }
        }

    def patch(self, model, tile_size, swap_size, max_depth, scale_depth):
        import comfy.token_patches

        tiling = comfy.token_patches.HyperTile(tile_size, swap_size, max_depth, scale_depth)
        clone = model.clone()
        clone.set_model_attn1_patch(tiling.before)
        clone.set_model_attn1_output_patch(tiling.after)
        return (clone,)


NODE_CLASS_MAPPINGS = {"HyperTile": HyperTile}

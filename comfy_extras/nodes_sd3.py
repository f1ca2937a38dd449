"""Nodes for SD3, and empty latents of 16 channels, which Flux.1 takes too."""

from __future__ import annotations

from comfy_extras.core_inputs import PIXELS_PER_LATENT, float_input, int_input, pixels_input
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT


class EmptySD3LatentImage:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {name: pixels_input(1024, 16, step=16) for name in ("width", "height")}
        return {"required": {**sides, "batch_size": int_input(1, 1, 4096)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "generate"
    CATEGORY = "latent/sd3"
    DESCRIPTION = "Empty latents of 16 channels, to make pictures of this size."

    def generate(self, width, height, batch_size=1):
        import torch

        import comfy.model_management

        shape = (batch_size, 16, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
        return ({"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device())},)


class SkipLayerGuidanceSD3:
    DESCRIPTION = "Finer detail from SD3: away from what it makes with these layers skipped."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "skip_guidance_sd3"
    CATEGORY = "advanced/guidance"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "layers": ("STRING", {"default": "7, 8, 9", "multiline": False}),
                "scale": float_input(3.0, 0.0, 10.0, 0.1),
                "start_percent": float_input(0.01, 0.0, 1.0, 0.001),
                "end_percent": float_input(0.15, 0.0, 1.0, 0.001),
            }
        }

    def skip_guidance_sd3(self, model, layers, scale, start_percent, end_percent):
        node = SkipLayerGuidanceDiT()
        return node.skip_guidance(model, scale, start_percent, end_percent, double_layers=layers)


_NODES = (EmptySD3LatentImage, SkipLayerGuidanceSD3)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}

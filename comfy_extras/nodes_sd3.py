"""Nodes for models with latents of 16 channels: SD3 and Flux.1."""

from __future__ import annotations

from comfy_extras.core_inputs import PIXELS_PER_LATENT, int_input, pixels_input


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


NODE_CLASS_MAPPINGS = {"EmptySD3LatentImage": EmptySD3LatentImage}

"""Nodes for models that edit pictures: what they look at besides the prompt."""

from __future__ import annotations

import node_helpers


class ReferenceLatent:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}, "optional": {"latent": ("LATENT",)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "advanced/conditioning/edit_models"
    DESCRIPTION = "Shows a picture to a model that edits; several in a row show several."

    def append(self, conditioning, latent=None):
        if latent is None:
            return (conditioning,)
        values = {"reference_latents": [latent["samples"]]}
        return (node_helpers.conditioning_set_values(conditioning, values, append=True),)


NODE_CLASS_MAPPINGS = {"ReferenceLatent": ReferenceLatent}

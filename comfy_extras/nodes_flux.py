"""Nodes for Flux: prompts for its two text encoders, and the guidance that is an input of the model."""

from __future__ import annotations

import node_helpers
from comfy_extras.core_inputs import float_input


def _guidance_input():
    tooltip = "How strongly the prompt is followed; the model was taught what this number means."
    return float_input(3.5, 0.0, 100.0, 0.1, tooltip)


class CLIPTextEncodeFlux:
    @classmethod
    def INPUT_TYPES(cls):
        text = ("STRING", {"multiline": True, "dynamicPrompts": True})
        return {"required": {"clip": ("CLIP",), "clip_l": text, "t5xxl": text, "guidance": _guidance_input()}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "Encodes a prompt for each of Flux's text encoders."

    def encode(self, clip, clip_l, t5xxl, guidance):
        tokens = {**clip.tokenize(clip_l), "t5xxl": clip.tokenize(t5xxl)["t5xxl"]}
        return (clip.encode_from_tokens_scheduled(tokens, add_dict={"guidance": guidance}),)


class FluxGuidance:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "guidance": _guidance_input()}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "Sets how strongly Flux follows this prompt."

    def append(self, conditioning, guidance):
        return (node_helpers.conditioning_set_values(conditioning, {"guidance": guidance}),)


class FluxDisableGuidance:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "advanced/conditioning/flux"
    DESCRIPTION = "Leaves the guidance out of Flux and models like it."

    def append(self, conditioning):
        return (node_helpers.conditioning_set_values(conditioning, {"guidance": None}),)


_NODES = (CLIPTextEncodeFlux, FluxGuidance, FluxDisableGuidance)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}

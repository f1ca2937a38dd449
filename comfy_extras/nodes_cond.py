"""Prompts: one of its own for ControlNets, and how T5's are filled up."""

from __future__ import annotations

import node_helpers
from comfy_extras.core_inputs import int_input

T5_NAMES = ("t5xxl", "pile_t5xl", "t5base", "mt5xl", "umt5xxl")


class CLIPTextEncodeControlnet:
    DESCRIPTION = "Gives the ControlNets of a conditioning a prompt of their own."
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "_for_testing/conditioning"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        text = ("STRING", {"multiline": True, "dynamicPrompts": True})
        return {"required": {"clip": ("CLIP",), "conditioning": ("CONDITIONING",), "text": text}}

    def encode(self, clip, conditioning, text):
        cond, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        values = {"cross_attn_controlnet": cond, "pooled_output_controlnet": pooled}
        return (node_helpers.conditioning_set_values(conditioning, values),)


class T5TokenizerOptions:
    DESCRIPTION = "How many padding tokens follow a prompt for T5, and how long it is at least."
    RETURN_TYPES = ("CLIP",)
    FUNCTION = "set_options"
    CATEGORY = "_for_testing/conditioning"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        numbers = {name: int_input(0, 0, 10000, 1) for name in ("min_padding", "min_length")}
        return {"required": {"clip": ("CLIP",), **numbers}}

    def set_options(self, clip, min_padding, min_length):
        clip = clip.clone()
        for name in T5_NAMES:
            clip.set_tokenizer_option(f"{name}_min_padding", min_padding)
            clip.set_tokenizer_option(f"{name}_min_length", min_length)
        return (clip,)


NODE_CLASS_MAPPINGS = {
    "CLIPTextEncodeControlnet": CLIPTextEncodeControlnet,
    "T5TokenizerOptions": T5TokenizerOptions,
}

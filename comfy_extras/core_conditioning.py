"""Core nodes that make and change conditioning."""

from __future__ import annotations

import logging

import node_helpers
from comfy_extras.core_inputs import PIXELS_PER_LATENT, float_input, pixels_input, strength_input


class CLIPTextEncode:
    @classmethod
    def INPUT_TYPES(cls):
        text = {"multiline": True, "dynamicPrompts": True, "tooltip": "What should (or should not) be seen."}
        return {"required": {"text": ("STRING", text), "clip": ("CLIP", {"tooltip": "The text encoder."})}}

    RETURN_TYPES = ("CONDITIONING",)
    OUTPUT_TOOLTIPS = ("The prompt as the diffusion model understands it.",)
    FUNCTION = "encode"
    CATEGORY = "conditioning"
    DESCRIPTION = "Turns a prompt into the conditioning that guides the diffusion model."

    def encode(self, clip, text):
        if clip is None:
            raise RuntimeError(
                "The clip input is empty: this checkpoint has no text encoder. "
                "Load one with a CLIP loader node and connect that."
            )
        return (clip.encode_from_tokens_scheduled(clip.tokenize(text)),)


class ConditioningCombine:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning_1": ("CONDITIONING",), "conditioning_2": ("CONDITIONING",)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "combine"
    CATEGORY = "conditioning"
    DESCRIPTION = "Applies both: the model's predictions for each are averaged."

    def combine(self, conditioning_1, conditioning_2):
        return (conditioning_1 + conditioning_2,)


def _first_of(conditioning, node):
    if len(conditioning) > 1:
        logging.warning("%s uses only the first of the %d in conditioning_from.", node, len(conditioning))
    return conditioning[0]


class ConditioningAverage:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {"conditioning_to": ("CONDITIONING",), "conditioning_from": ("CONDITIONING",)}
        return {"required": {**sides, "conditioning_to_strength": float_input(1.0, 0.0, 1.0)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "addWeighted"
    CATEGORY = "conditioning"
    DESCRIPTION = "Mixes two encoded prompts token by token."

    def addWeighted(self, conditioning_to, conditioning_from, conditioning_to_strength):
        import torch

        tokens_from, extras_from = _first_of(conditioning_from, "ConditioningAverage")
        pooled_from = extras_from.get("pooled_output")
        w = conditioning_to_strength
        out = []
        for tokens, extras in conditioning_to:
            other = tokens_from[:, : tokens.shape[1]]
            other = torch.nn.functional.pad(other, (0, 0, 0, tokens.shape[1] - other.shape[1]))
            extras = dict(extras)
            if pooled_from is not None:
                pooled_to = extras.get("pooled_output", pooled_from)
                mixed = pooled_from if pooled_to is None else pooled_to * w + pooled_from * (1.0 - w)
                extras["pooled_output"] = mixed
            out.append([tokens * w + other * (1.0 - w), extras])
        return (out,)


class ConditioningMultiply:
    @classmethod
    def INPUT_TYPES(cls):
        factor = float_input(1.0, -100.0, 100.0)
        return {"required": {"conditioning": ("CONDITIONING",), "multiplier": factor}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "multiply"
    CATEGORY = "model/conditioning/transform"
    DESCRIPTION = "Scales an encoded prompt."
    SEARCH_ALIASES = ["scale conditioning", "scale prompt", "multiply conditioning", "multiply prompt"]

    def multiply(self, conditioning, multiplier):
        changed = []
        for tokens, extras in conditioning:
            extras = dict(extras)
            if extras.get("pooled_output") is not None:
                extras["pooled_output"] = extras["pooled_output"] * multiplier
            changed.append([tokens * multiplier, extras])
        return (changed,)


class ConditioningConcat:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning_to": ("CONDITIONING",), "conditioning_from": ("CONDITIONING",)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "concat"
    CATEGORY = "conditioning"
    DESCRIPTION = "Appends the tokens of one prompt to those of another."

    def concat(self, conditioning_to, conditioning_from):
        import torch

        tail, _ = _first_of(conditioning_from, "ConditioningConcat")
        return ([[torch.cat((tokens, tail), 1), dict(extras)] for tokens, extras in conditioning_to],)


class ConditioningSetArea:
    @classmethod
    def INPUT_TYPES(cls):
        place = {
            "width": pixels_input(64, 64),
            "height": pixels_input(64, 64),
            "x": pixels_input(),
            "y": pixels_input(),
        }
        return {"required": {"conditioning": ("CONDITIONING",), **place, "strength": strength_input()}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"
    DESCRIPTION = "Applies the conditioning to a rectangle, given in pixels."

    def append(self, conditioning, width, height, x, y, strength):
        area = tuple(value // PIXELS_PER_LATENT for value in (height, width, y, x))
        values = {"area": area, "strength": strength, "set_area_to_bounds": False}
        return (node_helpers.conditioning_set_values(conditioning, values),)


class ConditioningSetAreaPercentage:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {"width": float_input(1.0, 0, 1.0), "height": float_input(1.0, 0, 1.0)}
        place = {**sides, "x": float_input(0, 0, 1.0), "y": float_input(0, 0, 1.0)}
        return {"required": {"conditioning": ("CONDITIONING",), **place, "strength": strength_input()}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"
    DESCRIPTION = "Applies the conditioning to a rectangle, given in shares of the picture."

    def append(self, conditioning, width, height, x, y, strength):
        area = ("percentage", height, width, y, x)
        values = {"area": area, "strength": strength, "set_area_to_bounds": False}
        return (node_helpers.conditioning_set_values(conditioning, values),)


class ConditioningSetAreaStrength:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",), "strength": strength_input()}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"
    DESCRIPTION = "Changes how much the conditioning weighs where it applies."

    def append(self, conditioning, strength):
        return (node_helpers.conditioning_set_values(conditioning, {"strength": strength}),)


class ConditioningSetMask:
    @classmethod
    def INPUT_TYPES(cls):
        where = {"strength": strength_input(), "set_cond_area": (["default", "mask bounds"],)}
        return {"required": {"conditioning": ("CONDITIONING",), "mask": ("MASK",), **where}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "conditioning"
    DESCRIPTION = "Applies the conditioning where the mask is set; within the mask's bounds only, if asked."

    def append(self, conditioning, mask, set_cond_area, strength):
        mask = mask.unsqueeze(0) if mask.ndim < 3 else mask
        bounds = set_cond_area != "default"
        values = {"mask": mask, "set_area_to_bounds": bounds, "mask_strength": strength}
        return (node_helpers.conditioning_set_values(conditioning, values),)


class ConditioningZeroOut:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"conditioning": ("CONDITIONING",)}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "zero_out"
    CATEGORY = "advanced/conditioning"
    DESCRIPTION = "Replaces the encoded prompt by zeros."

    def zero_out(self, conditioning):
        import torch

        out = []
        for tokens, extras in conditioning:
            zeros = {
                name: torch.zeros_like(extras[name])
                for name in ("pooled_output", "conditioning_lyrics")
                if extras.get(name) is not None
            }
            out.append([torch.zeros_like(tokens), {**extras, **zeros}])
        return (out,)


class ConditioningSetTimestepRange:
    @classmethod
    def INPUT_TYPES(cls):
        span = {"start": float_input(0.0, 0.0, 1.0, 0.001), "end": float_input(1.0, 0.0, 1.0, 0.001)}
        return {"required": {"conditioning": ("CONDITIONING",), **span}}

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "set_range"
    CATEGORY = "advanced/conditioning"
    DESCRIPTION = "Applies the conditioning during a part of the sampling, in shares of the noise schedule."

    def set_range(self, conditioning, start, end):
        values = {"start_percent": start, "end_percent": end}
        return (node_helpers.conditioning_set_values(conditioning, values),)


class InpaintModelConditioning:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {"positive": ("CONDITIONING",), "negative": ("CONDITIONING",)}
        tooltip = "Keep everything outside the mask as it is. Some models do better without."
        picture = {"vae": ("VAE",), "pixels": ("IMAGE",), "mask": ("MASK",)}
        return {
            "required": {**sides, **picture, "noise_mask": ("BOOLEAN", {"default": True, "tooltip": tooltip})}
        }

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("positive", "negative", "latent")
    FUNCTION = "encode"
    CATEGORY = "conditioning/inpaint"
    DESCRIPTION = "Gives an inpainting model the masked picture besides the prompt."

    def encode(self, positive, negative, pixels, vae, mask, noise_mask=True):
        import comfy.canvas

        mask = comfy.canvas.mask_like(mask, pixels)
        cut, mask = comfy.canvas.cut_to_multiple(pixels, mask, PIXELS_PER_LATENT)
        concat_latent = vae.encode(comfy.canvas.gray_under_mask(cut, mask))
        latent = {"samples": vae.encode(pixels)}
        if noise_mask:
            latent["noise_mask"] = mask
        values = {"concat_latent_image": concat_latent, "concat_mask": mask}
        sides = (node_helpers.conditioning_set_values(side, values) for side in (positive, negative))
        return (*sides, latent)

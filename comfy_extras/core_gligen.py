"""Core nodes for GLIGEN: texts in boxes."""

from __future__ import annotations

import folder_paths
from comfy_extras.core_inputs import PIXELS_PER_LATENT, pixels_input


class GLIGENLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"gligen_name": (folder_paths.get_filename_list("gligen"),)}}

    RETURN_TYPES = ("GLIGEN",)
    FUNCTION = "load_gligen"
    CATEGORY = "model/loaders"
    DESCRIPTION = "Loads a GLIGEN model, which puts things where a box says."

    def load_gligen(self, gligen_name):
        path = folder_paths.get_full_path_or_raise("gligen", gligen_name)
        import comfy.sd

        return (comfy.sd.load_gligen(path),)


class GLIGENTextBoxApply:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {"width": pixels_input(64, 8), "height": pixels_input(64, 8)}
        return {
            "required": {
                "conditioning_to": ("CONDITIONING",),
                "clip": ("CLIP",),
                "gligen_textbox_model": ("GLIGEN",),
                "text": ("STRING", {"multiline": True, "dynamicPrompts": True}),
                **sides,
                "x": pixels_input(),
                "y": pixels_input(),
            }
        }

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "append"
    CATEGORY = "model/conditioning/gligen"
    DESCRIPTION = "Says what should be in a rectangle, given in pixels. Several can follow each other."

    def append(self, conditioning_to, clip, gligen_textbox_model, text, width, height, x, y):
        _, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled="unprojected")
        box = (pooled, *(pixels // PIXELS_PER_LATENT for pixels in (height, width, y, x)))
        changed = []
        for tokens, extras in conditioning_to:
            before = extras["gligen"][2] if "gligen" in extras else []
            gligen = ("position", gligen_textbox_model, [*before, box])
            changed.append([tokens, {**extras, "gligen": gligen}])
        return (changed,)

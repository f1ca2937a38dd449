"""LoRAs beside the layers instead of in the weights, to compare the two."""

from __future__ import annotations

import folder_paths
from comfy_extras.core_inputs import float_input


def _strength(of: str):
    return float_input(1.0, -100.0, 100.0, 0.01, f"How much the LoRA changes the {of}; may be negative.")


class LoraLoaderBypass:
    DESCRIPTION = "Applies a LoRA beside the layers and leaves the weights as they are; slower."
    RETURN_TYPES = ("MODEL", "CLIP")
    FUNCTION = "load_lora"
    CATEGORY = "model/loaders"
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The diffusion model that is changed."}),
                "clip": ("CLIP", {"tooltip": "The text encoder that is changed."}),
                "lora_name": (folder_paths.get_filename_list("loras"), {"tooltip": "The LoRA file."}),
                "strength_model": _strength("diffusion model"),
                "strength_clip": _strength("text encoder"),
            }
        }

    def load_lora(self, model, clip, lora_name, strength_model, strength_clip):
        if strength_model == 0 and strength_clip == 0:
            return (model, clip)
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        import comfy.lora_file
        import comfy.sd

        tensors = comfy.lora_file.read_lora(path).tensors
        return comfy.sd.load_bypass_lora_for_models(model, clip, tensors, strength_model, strength_clip)


class LoraLoaderBypassModelOnly(LoraLoaderBypass):
    DESCRIPTION = "Applies a LoRA beside the layers of a diffusion model alone."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load_lora_model_only"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "lora_name": (folder_paths.get_filename_list("loras"),),
                "strength_model": _strength("diffusion model"),
            }
        }

    def load_lora_model_only(self, model, lora_name, strength_model):
        return (self.load_lora(model, None, lora_name, strength_model, 0)[0],)


NODE_CLASS_MAPPINGS = {
    "LoraLoaderBypass": LoraLoaderBypass,
    "LoraLoaderBypassModelOnly": LoraLoaderBypassModelOnly,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "LoraLoaderBypass": "Load LoRA (Bypass) (For debugging)",
    "LoraLoaderBypassModelOnly": "Load LoRA (Bypass, Model Only) (for debugging)",
}

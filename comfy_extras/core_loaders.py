"""Core nodes that load the parts of a model from files of their own."""

from __future__ import annotations

import folder_paths

# Types of text encoders that are two files; what each is made of is known to the model families.
DUAL_CLIP_TYPES = {"sdxl": "CLIP-L and CLIP-G", "flux": "CLIP-L and T5-XXL"}

# Name in the menu -> (dtype of the weights, further options for the loader).
WEIGHT_DTYPES: dict[str, tuple[str | None, dict]] = {
    "default": (None, {}),
    "fp8_e4m3fn": ("float8_e4m3fn", {}),
    "fp8_e4m3fn_fast": ("float8_e4m3fn", {"fp8_optimizations": True}),
    "fp8_e5m2": ("float8_e5m2", {}),
}


class UNETLoader:
    @classmethod
    def INPUT_TYPES(cls):
        tooltip = "fp8 halves the memory of the weights; default keeps them as the file has them."
        return {
            "required": {
                "unet_name": (folder_paths.get_filename_list("diffusion_models"),),
                "weight_dtype": (list(WEIGHT_DTYPES), {"tooltip": tooltip}),
            }
        }

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load_unet"
    CATEGORY = "advanced/loaders"
    DESCRIPTION = "Loads a diffusion model from its own file."

    def load_unet(self, unet_name, weight_dtype):
        path = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        import torch

        import comfy.sd

        dtype, options = WEIGHT_DTYPES[weight_dtype]
        if dtype is not None:
            options = {**options, "dtype": getattr(torch, dtype)}
        return (comfy.sd.load_diffusion_model(path, model_options=options),)


class DualCLIPLoader:
    @classmethod
    def INPUT_TYPES(cls):
        files = folder_paths.get_filename_list("text_encoders")
        return {
            "required": {"clip_name1": (files,), "clip_name2": (files,), "type": (list(DUAL_CLIP_TYPES),)},
            "optional": {"device": (["default", "cpu"], {"advanced": True})},
        }

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "advanced/loaders"
    DESCRIPTION = "Loads the two text encoders of a model ({}), in any order.".format(
        "; ".join(f"{name}: {parts}" for name, parts in DUAL_CLIP_TYPES.items())
    )

    def load_clip(self, clip_name1, clip_name2, type, device="default"):
        paths = [
            folder_paths.get_full_path_or_raise("text_encoders", name) for name in (clip_name1, clip_name2)
        ]
        import torch

        import comfy.sd

        options = {}
        if device == "cpu":
            options = dict.fromkeys(("load_device", "offload_device"), torch.device("cpu"))
        kind = getattr(comfy.sd.CLIPType, type.upper(), comfy.sd.CLIPType.STABLE_DIFFUSION)
        embeddings = folder_paths.get_folder_paths("embeddings")
        return (comfy.sd.load_clip(paths, embeddings, clip_type=kind, model_options=options),)

"""Core nodes that load diffusion models and text encoders from files of their own."""

from __future__ import annotations

import os

import folder_paths

# Types of text encoders in one file and in two, as workflows name them. A type whose family is not here yet
# is refused by `comfy.families.text_target`, which names those that are.
CLIP_TYPES = [
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart", "cosmos",
    "lumina2", "wan", "hidream", "chroma", "ace", "omnigen2", "qwen_image", "hunyuan_image", "flux2", "ovis",
    "longcat_image", "cogvideox", "lens", "pixeldit", "ideogram4", "boogu", "krea2", "joyimage", "mage", "minimax",
    "flux3", "moss_image", "fibo2",
]  # fmt: skip
DUAL_CLIP_TYPES = [
    "sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image", "hunyuan_video_15", "kandinsky5",
    "kandinsky5_image", "ltxv", "newbie", "ace",
]  # fmt: skip
WEIGHT_DTYPES = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]


class UNETLoader:
    @classmethod
    def INPUT_TYPES(cls):
        tooltip = "How the weights are kept in memory; fp8 takes half of fp16 and loses detail."
        return {
            "required": {
                "unet_name": (folder_paths.get_filename_list("diffusion_models"),),
                "weight_dtype": (WEIGHT_DTYPES, {"tooltip": tooltip}),
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

        options = {}
        if weight_dtype != "default":
            options["dtype"] = getattr(torch, "float8_" + weight_dtype.split("_")[1])
            options["fp8_optimizations"] = weight_dtype.endswith("_fast")
        return (comfy.sd.load_diffusion_model(path, model_options=options),)


def _device_input():
    tooltip = "cpu keeps the text encoder out of GPU memory."
    return {"device": (["default", "cpu"], {"advanced": True, "tooltip": tooltip})}


def _load_clip(names, clip_type, device):
    paths = [folder_paths.get_full_path_or_raise("text_encoders", name) for name in names]
    import torch

    import comfy.sd

    types = comfy.sd.CLIPType
    options = {}
    if device == "cpu":
        options = {"load_device": torch.device("cpu"), "offload_device": torch.device("cpu")}
    clip = comfy.sd.load_clip(
        ckpt_paths=paths,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=types.STABLE_DIFFUSION if clip_type == "sdxl" else types[clip_type.upper()],
        model_options=options,
    )
    return (clip,)


class CLIPLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "clip_name": (folder_paths.get_filename_list("text_encoders"),),
                "type": (CLIP_TYPES,),
            },
            "optional": _device_input(),
        }

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "advanced/loaders"
    DESCRIPTION = (
        "Loads one text encoder (stable_diffusion: CLIP-L for SD1, CLIP-H for SD2, CLIP-bigG for the SDXL "
        "refiner)."
    )

    def load_clip(self, clip_name, type="stable_diffusion", device="default"):  # noqa: A002 (the input's name)
        return _load_clip([clip_name], type, device)


class DualCLIPLoader:
    @classmethod
    def INPUT_TYPES(cls):
        names = (folder_paths.get_filename_list("text_encoders"),)
        return {
            "required": {"clip_name1": names, "clip_name2": names, "type": (DUAL_CLIP_TYPES,)},
            "optional": _device_input(),
        }

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = "advanced/loaders"
    DESCRIPTION = (
        "Loads the two text encoders of a model, in any order (sdxl: CLIP-L and CLIP-bigG; flux: CLIP-L and "
        "T5-XXL)."
    )

    def load_clip(self, clip_name1, clip_name2, type, device="default"):  # noqa: A002 (the input's name)
        return _load_clip([clip_name1, clip_name2], type, device)


class CheckpointLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "config_name": (folder_paths.get_filename_list("configs"),),
                "ckpt_name": (folder_paths.get_filename_list("checkpoints"),),
            }
        }

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = "model/loaders"
    DEPRECATED = True
    DESCRIPTION = "Load Checkpoint does the same: what a model is, is read off its weights, not off the file."
    SEARCH_ALIASES = ["load model", "model loader"]

    def load_checkpoint(self, config_name, ckpt_name):
        config = folder_paths.get_full_path("configs", config_name)
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        import comfy.sd

        embeddings = folder_paths.get_folder_paths("embeddings")
        return comfy.sd.load_checkpoint(config, path, embedding_directory=embeddings)


def _diffusers_folders() -> dict[str, str]:
    """{name: path} of the folders in models/diffusers that hold a model."""
    found: dict[str, str] = {}
    for top in folder_paths.get_folder_paths("diffusers"):
        for folder, _, files in os.walk(top, followlinks=True):
            if "model_index.json" in files:
                found.setdefault(os.path.relpath(folder, start=top), folder)
    return found


class DiffusersLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model_path": (list(_diffusers_folders()),)}}

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = "model/loaders"
    DEPRECATED = True
    DESCRIPTION = "Loads a model in diffusers' layout: a folder in models/diffusers with a model_index.json."
    SEARCH_ALIASES = ["load diffusers model"]

    def load_checkpoint(self, model_path, output_vae=True, output_clip=True):
        folders = _diffusers_folders()
        if model_path not in folders:
            raise ValueError(
                f"'{model_path}' is no model in models/diffusers. There are: {', '.join(folders) or 'none'}."
            )
        import comfy.diffusers_load

        embeddings = folder_paths.get_folder_paths("embeddings")
        return comfy.diffusers_load.load_diffusers(
            folders[model_path], output_vae=output_vae, output_clip=output_clip,
            embedding_directory=embeddings,
        )  # fmt: skip

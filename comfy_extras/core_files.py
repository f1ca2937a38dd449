"""Core nodes that read and write pictures and latents."""

from __future__ import annotations

import json
import os
import random

import folder_paths
from comfy.cli_args import args


class SaveImage:
    def __init__(self):
        self.output_dir = folder_paths.get_output_directory()
        self.type = "output"
        self.prefix_append = ""
        self.compress_level = 4

    @classmethod
    def INPUT_TYPES(cls):
        tooltip = (
            "The start of the file name, with folders if wanted. %date:yyyy-MM-dd%, %width%, or the value of "
            "another node such as %Empty Latent Image.width% may stand in it."
        )
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to save."}),
                "filename_prefix": ("STRING", {"default": "ComfyUI", "tooltip": tooltip}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"
    DESCRIPTION = "Saves pictures as PNG files that carry their workflow."

    def save_images(self, images, filename_prefix="ComfyUI", prompt=None, extra_pnginfo=None):
        import comfy.picture_files

        height, width = images[0].shape[:2]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix + self.prefix_append, self.output_dir, width, height
        )
        metadata = comfy.picture_files.png_metadata(prompt, extra_pnginfo)
        results = []
        for number, image in enumerate(images):
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            path = os.path.join(folder, file)
            comfy.picture_files.save_png(image, path, metadata, self.compress_level)
            results.append({"filename": file, "subfolder": subfolder, "type": self.type})
        return {"ui": {"images": results}, "result": (images,)}


class PreviewImage(SaveImage):
    def __init__(self):
        self.output_dir = folder_paths.get_temp_directory()
        self.type = "temp"
        self.prefix_append = "_temp_" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=5))
        self.compress_level = 1

    @classmethod
    def INPUT_TYPES(cls):
        hidden = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        return {"required": {"images": ("IMAGE",)}, "hidden": hidden}

    DESCRIPTION = "Shows pictures without keeping them."


def _input_files(*, only_pictures):
    directory = folder_paths.get_input_directory()
    if not os.path.isdir(directory):
        return []
    files = [entry.name for entry in os.scandir(directory) if entry.is_file()]
    return sorted(folder_paths.filter_files_content_types(files, ["image"]) if only_pictures else files)


def _content_of(name):
    from comfy.picture_files import content_hash

    return content_hash(folder_paths.get_annotated_filepath(name))


def _problem_with(name, kind):
    """True for a file that is there, else what to say about it."""
    if folder_paths.exists_annotated_filepath(name):
        return True
    return f"Invalid {kind} file: {name}. It is not there any more; upload it again or choose another."


class LoadImage:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": (_input_files(only_pictures=True), {"image_upload": True})}}

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"
    DESCRIPTION = "Loads a picture; its transparency becomes the mask, its frames a batch."

    def load_image(self, image):
        import comfy.picture_files

        return comfy.picture_files.load_picture(folder_paths.get_annotated_filepath(image))

    @classmethod
    def IS_CHANGED(cls, image):
        return _content_of(image)

    @classmethod
    def VALIDATE_INPUTS(cls, image):
        return _problem_with(image, "image")


class LoadImageMask:
    _color_channels = ["alpha", "red", "green", "blue"]

    @classmethod
    def INPUT_TYPES(cls):
        files = (_input_files(only_pictures=False), {"image_upload": True})
        return {"required": {"image": files, "channel": (cls._color_channels,)}}

    RETURN_TYPES = ("MASK",)
    FUNCTION = "load_image"
    CATEGORY = "mask"
    DESCRIPTION = "Loads one channel of a picture as a mask."

    def load_image(self, image, channel):
        import comfy.picture_files

        return (comfy.picture_files.load_channel(folder_paths.get_annotated_filepath(image), channel),)

    @classmethod
    def IS_CHANGED(cls, image, channel):
        return _content_of(image)

    @classmethod
    def VALIDATE_INPUTS(cls, image):
        return _problem_with(image, "image")


class LoadImageOutput(LoadImage):
    @classmethod
    def INPUT_TYPES(cls):
        remote = {"route": "/internal/files/output", "refresh_button": True, "control_after_refresh": "first"}
        return {
            "required": {
                "image": ("COMBO", {"image_upload": True, "image_folder": "output", "remote": remote})
            }
        }

    DESCRIPTION = "Loads a picture from the output folder. Refreshing the list selects the newest."
    EXPERIMENTAL = True


class SaveLatent:
    def __init__(self):
        self.output_dir = folder_paths.get_output_directory()

    @classmethod
    def INPUT_TYPES(cls):
        prefix = ("STRING", {"default": "latents/ComfyUI"})
        hidden = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
        return {"required": {"samples": ("LATENT",), "filename_prefix": prefix}, "hidden": hidden}

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "_for_testing"
    DESCRIPTION = "Saves latents to a file that carries its workflow."

    def save(self, samples, filename_prefix="ComfyUI", prompt=None, extra_pnginfo=None):
        import torch

        import comfy.utils

        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, self.output_dir
        )
        metadata = None
        if not args.disable_metadata:
            metadata = {"prompt": "" if prompt is None else json.dumps(prompt)}
            metadata |= {key: json.dumps(value) for key, value in (extra_pnginfo or {}).items()}
        file = f"{name}_{counter:05}_.latent"
        # The empty tensor marks latents that are not scaled by the model's factor.
        content = {
            "latent_tensor": samples["samples"].contiguous(),
            "latent_format_version_0": torch.tensor([]),
        }
        comfy.utils.save_torch_file(content, os.path.join(folder, file), metadata=metadata)
        return {"ui": {"latents": [{"filename": file, "subfolder": subfolder, "type": "output"}]}}


class LoadLatent:
    @classmethod
    def INPUT_TYPES(cls):
        files = [name for name in _input_files(only_pictures=False) if name.endswith(".latent")]
        return {"required": {"latent": [files]}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "load"
    CATEGORY = "_for_testing"
    DESCRIPTION = "Loads latents that SaveLatent has saved."

    def load(self, latent):
        import safetensors.torch

        content = safetensors.torch.load_file(folder_paths.get_annotated_filepath(latent), device="cpu")
        # Files from before the marker hold latents scaled for SD1.
        scale = 1.0 if "latent_format_version_0" in content else 1.0 / 0.18215
        return ({"samples": content["latent_tensor"].float() * scale},)

    @classmethod
    def IS_CHANGED(cls, latent):
        return _content_of(latent)

    @classmethod
    def VALIDATE_INPUTS(cls, latent):
        return _problem_with(latent, "latent")

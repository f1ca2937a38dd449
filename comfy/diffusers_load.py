"""A pipeline in diffusers' layout: a folder with a folder per part."""

from __future__ import annotations

import os

import comfy.sd
import comfy.utils

_NETWORK = [
    f"diffusion_pytorch_model.{end}" for end in ("fp16.safetensors", "safetensors", "fp16.bin", "bin")
]
_TEXT = ["model.fp16.safetensors", "model.safetensors", "pytorch_model.fp16.bin", "pytorch_model.bin"]


def first_file(path, filenames):
    """The first of these names that there is in a folder, with the folder; None where there is none."""
    found = (os.path.join(path, name) for name in filenames)
    return next((name for name in found if os.path.exists(name)), None)


def _needed(model_path: str, part: str, filenames: list[str]) -> str:
    found = first_file(os.path.join(model_path, part), filenames)
    if found is None:
        raise FileNotFoundError(
            f"{os.path.join(model_path, part)} has none of {', '.join(filenames)}. A pipeline in diffusers' "
            "layout has a folder unet, one vae and one text_encoder."
        )
    return found


def load_diffusers(model_path, output_vae=True, output_clip=True, embedding_directory=None):
    """(MODEL, CLIP or None, VAE or None) of a folder.

    Raises:
        FileNotFoundError: a part that is asked for is not there.
    """
    model = comfy.sd.load_diffusion_model(_needed(model_path, "unet", _NETWORK))
    clip = vae = None
    if output_clip:
        paths = [_needed(model_path, "text_encoder", _TEXT)]
        second = first_file(os.path.join(model_path, "text_encoder_2"), _TEXT)
        paths += [second] if second else []
        clip = comfy.sd.load_clip(paths, embedding_directory=embedding_directory)
    if output_vae:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(_needed(model_path, "vae", _NETWORK)))
    return model, clip, vae

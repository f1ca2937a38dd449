"""Models in the folders of diffusers: a folder for each part, with its weights in a file."""

from __future__ import annotations

import os

import comfy.sd
import comfy.utils
from comfy.families import ldm_vae

_ENDINGS = (".fp16.safetensors", ".safetensors", ".fp16.bin", ".bin")
_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")


def first_file(folder: str, names: list[str] | tuple[str, ...]) -> str | None:
    """The path of the first of these files that is there."""
    return next((path for name in names if os.path.isfile(path := os.path.join(folder, name))), None)


def _weights_in(root: str, part: str) -> str | None:
    return first_file(os.path.join(root, part), [name + end for end in _ENDINGS for name in _NAMES])


def load_diffusers(model_path, output_vae=True, output_clip=True, embedding_directory=None):
    """(MODEL, CLIP, VAE) of a folder; what was not asked for is None.

    Raises:
        FileNotFoundError: a part has no weights in one file.
    """

    def path_of(part):
        path = _weights_in(model_path, part)
        if path is None:
            raise FileNotFoundError(
                f"'{os.path.join(model_path, part)}' has no file of weights. Known names are "
                f"{', '.join(name + '.safetensors' for name in _NAMES)}; files in several parts are not read."
            )
        return path

    model = comfy.sd.load_diffusion_model(path_of("unet"))
    clip = vae = None
    if output_clip:
        second = _weights_in(model_path, "text_encoder_2")
        paths = [path_of("text_encoder"), *([] if second is None else [second])]
        clip = comfy.sd.load_clip(paths, embedding_directory=embedding_directory)
    if output_vae:
        weights = comfy.utils.load_torch_file(path_of("vae"))
        if any(".down_blocks." in key for key in weights):
            weights = ldm_vae.checkpoint_weights(weights)
        vae = comfy.sd.VAE(sd=weights)
        vae.throw_exception_if_invalid()
    return model, clip, vae

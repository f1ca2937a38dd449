"""Small helpers of latent diffusion's code."""

from __future__ import annotations

import importlib
import logging
from inspect import isfunction

import torch


def exists(x) -> bool:
    return x is not None


def default(val, d):
    """`val`, or where there is none the default; a function is called for it."""
    if val is not None:
        return val
    return d() if isfunction(d) else d


def ismap(x) -> bool:
    """Is x a batch of feature maps: four sides, more than three channels?"""
    return isinstance(x, torch.Tensor) and x.ndim == 4 and x.shape[1] > 3


def isimage(x) -> bool:
    """Is x a batch of pictures (B, 1 or 3, H, W)?"""
    return isinstance(x, torch.Tensor) and x.ndim == 4 and x.shape[1] in (1, 3)


def mean_flat(tensor):
    """The mean of each entry of a batch."""
    return tensor.flatten(1).mean(dim=1)


def count_params(model, verbose=False) -> int:
    total = sum(weight.numel() for weight in model.parameters())
    if verbose:
        logging.info("%s has %.2f million parameters.", type(model).__name__, total / 1e6)
    return total


def get_obj_from_str(string, reload=False):
    """The object that "package.module.name" names."""
    module, _, name = string.rpartition(".")
    found = importlib.import_module(module)
    return getattr(importlib.reload(found) if reload else found, name)


def instantiate_from_config(config):
    """{"target": "package.module.Class", "params": {...}} -> the object; None for LDM's two marks.

    Raises:
        KeyError: there is no "target".
    """
    if config in ("__is_first_stage__", "__is_unconditional__"):
        return None
    if "target" not in config:
        raise KeyError(f"The configuration names no class to build (no 'target'); it has {sorted(config)}.")
    return get_obj_from_str(config["target"])(**config.get("params", {}))


def log_txt_as_img(wh, xc, size=10):
    """Texts as white pictures (B, 3, H, W) in -1..1; `wh` is (width, height) in pixels."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font, columns = ImageFont.load_default(size), int(40 * wh[0] / 256)
    pictures = []
    for text in xc:
        picture = Image.new("RGB", wh, color="white")
        lines = [text[start : start + columns] for start in range(0, len(text), columns)]
        ImageDraw.Draw(picture).text((0, 0), "\n".join(lines), fill="black", font=font)
        pictures.append(np.asarray(picture).transpose(2, 0, 1) / 127.5 - 1.0)
    return torch.tensor(np.stack(pictures))

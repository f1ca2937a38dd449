"""Small helpers that nodes and node packs share. Nothing heavy is imported before it is used."""

import hashlib

from comfy.cli_args import args
from comfy.tolerant_pillow import pillow

__all__ = ["conditioning_set_values", "hasher", "image_alpha_fix", "pillow", "string_to_torch_dtype"]


def conditioning_set_values(conditioning, values: dict = {}, append: bool = False) -> list:  # noqa: B006
    """A copy of the conditioning whose entries carry `values`; `append` adds to what an entry has by `+`."""
    out = []
    for tokens, extras in conditioning:
        changed = dict(extras)
        for name, value in values.items():
            before = changed.get(name) if append else None
            changed[name] = value if before is None else before + value
        out.append([tokens, changed])
    return out


def hasher():
    """The hash constructor of --default-hashing-function."""
    return getattr(hashlib, args.default_hashing_function)


def string_to_torch_dtype(string: str):
    """The torch dtype of "fp32", "fp16" or "bf16"; None for any other word."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.get(string)


def image_alpha_fix(destination, source):
    """Both images (B, H, W, C) with the destination's channels: the source's alpha is cut or added as 1."""
    import torch

    channels = destination.shape[-1]
    source = source[..., :channels]
    missing = channels - source.shape[-1]
    return destination, torch.nn.functional.pad(source, (0, missing), value=1.0)

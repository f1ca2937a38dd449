"""Keys of LoRA files in one spelling: what wrappers put around a layer's name is taken off."""

from __future__ import annotations

import torch

_MAGNITUDES = (".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def plain_key(key: str) -> str:
    """`base_model.model.unet.x.lora_A.default.weight` is `unet.x.lora_A.weight`."""
    while key.startswith("base_model.model."):
        key = key.removeprefix("base_model.model.")
    if key.startswith("model.diffusion_model."):
        key = key.removeprefix("model.")
    for part in ("lora_A", "lora_B", "lora_magnitude_vector"):
        if f".{part}.default" in key:
            key = key.replace(f".{part}.default", f".{part}")
    return key


def convert_lora(sd: dict) -> dict:
    """The same tensors under plain keys; PEFT's magnitude vectors (DoRA) become `dora_scale`, one per row."""
    converted = {}
    for original, tensor in sd.items():
        key = plain_key(original)
        ending = next((ending for ending in _MAGNITUDES if key.endswith(ending)), None)
        if ending is not None:
            key, tensor = key.removesuffix(ending) + ".dora_scale", _one_per_row(tensor)
        converted[key] = tensor
    return converted


def _one_per_row(magnitudes: torch.Tensor) -> torch.Tensor:
    """(out,) or, of a convolution, (1, out, 1, 1) becomes (out, 1, ...)."""
    return magnitudes.reshape(-1, *[1] * (3 if magnitudes.ndim == 4 else 1))

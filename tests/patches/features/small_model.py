"""A checkpoint that ours and upstream's core load: Stable Diffusion 1's layout and widths, one level deep.

It is noise and draws noise, always the same. It has no text encoder (that alone would be 250 MB), and a tiny
autoencoder in place of the large one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

CHANNELS = 320
CONTEXT = 768
TIME = 4 * CHANNELS
SIDE = 64
"""Of the pictures, in pixels."""

Shapes = Iterator[tuple[str, tuple[int, ...]]]
"""(key, shape)"""


def _layer(name: str, *shape: int) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _residual(name: str, given: int, made: int) -> Shapes:
    yield from _layer(f"{name}.in_layers.0", given)
    yield from _layer(f"{name}.in_layers.2", made, given, 3, 3)
    yield from _layer(f"{name}.emb_layers.1", made, TIME)
    yield from _layer(f"{name}.out_layers.0", made)
    yield from _layer(f"{name}.out_layers.3", made, made, 3, 3)
    if given != made:
        yield from _layer(f"{name}.skip_connection", made, given, 1, 1)


def _transformer(name: str, width: int) -> Shapes:
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, 1, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", CONTEXT)):
        yield f"{block}.{attention}.to_q.weight", (width, width)
        yield f"{block}.{attention}.to_k.weight", (width, context)
        yield f"{block}.{attention}.to_v.weight", (width, context)
        yield from _layer(f"{block}.{attention}.to_out.0", width, width)
    yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from _layer(f"{block}.ff.net.2", width, 4 * width)
    for number in (1, 2, 3):
        yield from _layer(f"{block}.norm{number}", width)
    yield from _layer(f"{name}.proj_out", width, width, 1, 1)


def _unet() -> Shapes:
    yield from _layer("time_embed.0", TIME, CHANNELS)
    yield from _layer("time_embed.2", TIME, TIME)
    yield from _layer("input_blocks.0.0", CHANNELS, 4, 3, 3)
    yield from _residual("input_blocks.1.0", CHANNELS, CHANNELS)
    yield from _transformer("input_blocks.1.1", CHANNELS)
    yield from _residual("middle_block.0", CHANNELS, CHANNELS)
    yield from _transformer("middle_block.1", CHANNELS)
    yield from _residual("middle_block.2", CHANNELS, CHANNELS)
    for number in (0, 1):
        yield from _residual(f"output_blocks.{number}.0", 2 * CHANNELS, CHANNELS)
        yield from _transformer(f"output_blocks.{number}.1", CHANNELS)
    yield from _layer("out.0", CHANNELS)
    yield from _layer("out.2", 4, CHANNELS, 3, 3)


def _tiny_half(name: str, ends: dict[int, tuple[int, int]], blocks: list[int], scaling: list[int]) -> Shapes:
    for number, (given, made) in ends.items():
        yield from _layer(f"{name}.{number}", made, given, 3, 3)
    for number in blocks:
        for part in (0, 2, 4):
            yield from _layer(f"{name}.{number}.conv.{part}", 64, 64, 3, 3)
    for number in scaling:
        yield f"{name}.{number}.weight", (64, 64, 3, 3)


def _autoencoder() -> Shapes:
    yield from _tiny_half(
        "taesd_encoder", {0: (3, 64), 14: (64, 4)}, [1, 3, 4, 5, 7, 8, 9, 11, 12, 13], [2, 6, 10]
    )
    yield from _tiny_half(
        "taesd_decoder", {1: (4, 64), 19: (64, 3)}, [3, 4, 5, 8, 9, 10, 13, 14, 15, 18], [7, 12, 17]
    )
    yield "vae_scale", ()
    yield "vae_shift", ()


def _values(chance: np.random.Generator, key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key.endswith("vae_scale"):
        return np.ones(shape, np.float16)
    if len(shape) < 2:  # of a normalisation
        return np.full(shape, 1.0 if key.endswith(".weight") else 0.0, np.float16)
    spread = 1.0 / np.sqrt(np.prod(shape[1:]))
    return (chance.standard_normal(shape, np.float32) * spread).astype(np.float16)


def _file(tensors: dict[str, np.ndarray]) -> bytes:
    header, start = {}, 0
    for key, values in tensors.items():
        end = start + values.nbytes
        header[key] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(values.tobytes() for values in tensors.values())


def checkpoint(seed: int = 1) -> bytes:
    """The file; another seed makes another model."""
    return _random(seed, ("model.diffusion_model.", _unet()), ("first_stage_model.", _autoencoder()))


def diffusion_model(seed: int = 1) -> bytes:
    """Its UNet alone."""
    return _random(seed, ("", _unet()))


def autoencoder(seed: int = 1) -> bytes:
    """Its autoencoder alone."""
    return _random(seed, ("", _autoencoder()))


def _random(seed: int, *parts: tuple[str, Shapes]) -> bytes:
    chance = np.random.default_rng(seed)
    return _file({
        prefix + key: _values(chance, key, shape) for prefix, shapes in parts for key, shape in shapes
    })  # fmt: skip


def embedding(seed: int = 1, count: int = 2) -> bytes:
    """Vectors for a text encoder of 768 values."""
    chance = np.random.default_rng(seed)
    return _file({"emb_params": _values(chance, "emb_params", (count, 768))})


def lora(seed: int = 1, rank: int = 4) -> bytes:
    """A LoRA for two weights of the checkpoint, one of them in the middle."""
    chance = np.random.default_rng(seed)
    tensors = {}
    for place in ("input_blocks_1_1", "middle_block_1"):
        name = f"lora_unet_{place}_transformer_blocks_0_attn1_to_q"
        for key, shape in (("lora_up", (CHANNELS, rank)), ("lora_down", (rank, CHANNELS))):
            tensors[f"{name}.{key}.weight"] = _values(chance, key, shape)
    return _file(tensors)


def alien_lora() -> bytes:
    """A LoRA for another family, of which nothing fits."""
    name = "lora_unet_double_blocks_0_img_mod_lin"
    shapes = {f"{name}.lora_up.weight": (18432, 1), f"{name}.lora_down.weight": (1, 3072)}
    return _file({key: np.ones(shape, np.float16) for key, shape in shapes.items()})

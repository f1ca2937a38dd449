"""Under which names the files of trainers know the layers of a model.

A table `{name of a layer in files: target}` is made by each network and text encoder that has a method
`lora_names()`; for others the functions here make one from the names of the weights. A target is

    "double_blocks.0.img_attn.qkv.weight"         the weight that the layer is
    ("...to_qkv.weight", (0, 320, 320))           a part of a weight: (axis, start, length)
    (Rows("...to_q.weight", 0, 3072, 9216), ...)  several weights, or parts, that are one layer in the file

Pure: names only, no tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Union


class Rows(NamedTuple):
    """`length` rows from `start` on, of the `total` rows of a file's layer, are the weight `key`.

    `key` may be a part of a weight: `(key, (axis, start, length))`.
    """

    key: str | tuple
    start: int
    length: int
    total: int


Target = Union[str, tuple]
Names = dict[str, Target]

WEIGHT = ".weight"
# Text encoders in the order in which trainers count them.
ENCODERS = ("clip_l", "clip_h", "clip_g", "t5xxl")
_OLD_ATTENTION = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def kohya(prefix: str, layer: str) -> str:
    """The form of kohya's scripts: lora_unet_down_blocks_0_..."""
    return prefix + layer.replace(".", "_")


def with_key(target: Target, change) -> Target:
    """The target with `change` applied to the name of each of its weights."""
    if isinstance(target, str):
        return change(target)
    if isinstance(target[0], Rows):
        return tuple(rows._replace(key=with_key(rows.key, change)) for rows in target)
    return (change(target[0]), *target[1:])


def keys_of(target: Target) -> list[str]:
    """The weights that a target names."""
    if isinstance(target, str):
        return [target]
    if isinstance(target[0], Rows):
        return [key for rows in target for key in keys_of(rows.key)]
    return [target[0]]


def names_of_layer(layer: str) -> Iterable[str]:
    """For a layer as a file of the model names it: the forms of trainers and converters."""
    yield f"diffusion_model.{layer}"
    yield kohya("lora_unet_", layer)
    yield kohya("lycoris_", layer)
    yield kohya("lycoris_unet_", layer)


def names_of_zoo_layer(layer: str, prefix: str) -> Iterable[str]:
    """For a layer of a module of diffusers; `prefix` is its name in a pipeline: unet or transformer."""
    for given in (layer, f"{prefix}.{layer}"):
        yield given
        before, found, after = given.rpartition(".to_")
        if found:  # attention processors held the LoRA once, and to_out was no list
            yield f"{before}.processor.to_{after.removesuffix('.0')}"
    yield kohya("lora_unet_", layer)
    yield kohya("lora_transformer_", layer)
    yield kohya("lycoris_", layer)


def of_network(keys: Iterable[str]) -> Names:
    """For a network whose weights are named as in its files and in diffusers alike."""
    names: Names = {}
    for key in keys:
        if key.endswith(WEIGHT):
            layer = key.removesuffix(WEIGHT)
            forms = (*names_of_layer(layer), *names_of_zoo_layer(layer, "transformer"), f"unet.{layer}")
            names.update(dict.fromkeys(forms, key))
    return names


def of_unet(in_files: Mapping[str, str]) -> Names:
    """For a UNet of diffusers; `in_files` is {its name of a weight: the name in checkpoints}."""
    names: Names = {}
    for key, original in in_files.items():
        names[f"diffusion_model.{original}"] = key
        if key.endswith(WEIGHT):
            forms = (*names_of_layer(original.removesuffix(WEIGHT)),
                     *names_of_zoo_layer(key.removesuffix(WEIGHT), "unet"))  # fmt: skip
            names.update(dict.fromkeys(forms, key))
    return names


def of_fused_layers(in_files: Mapping[str, Sequence[str]], rows: Mapping[str, int]) -> Names:
    """For a transformer of diffusers whose checkpoints keep some layers together, such as q, k and v.

    `in_files` is {layer in checkpoints: its layers in the module, one below the other}; `rows` is {weight of
    the module: its rows}.
    """
    names = of_network(rows)
    for layer, parts in in_files.items():
        keys = [part + WEIGHT for part in parts]
        if all(key in rows for key in keys):
            total = sum(rows[key] for key in keys)
            starts = [sum(rows[key] for key in keys[:i]) for i in range(len(keys))]
            fused = tuple(Rows(key, start, rows[key], total) for key, start in zip(keys, starts, strict=True))
            names.update(dict.fromkeys(names_of_layer(layer), keys[0] if len(keys) == 1 else fused))
    return names


def of_text_encoders(keys: Iterable[str]) -> Names:
    """For text encoders whose weights are named `clip_l.transformer.<layer>.weight`."""
    layers = [key for key in keys if key.endswith(WEIGHT) and ".transformer." in key]
    found = dict.fromkeys(key.partition(".transformer.")[0] for key in layers)
    ordered = sorted(found, key=lambda one: ENCODERS.index(one) if one in ENCODERS else len(ENCODERS))
    names: Names = {}
    for key in layers:
        encoder, _, rest = key.removesuffix(WEIGHT).partition(".transformer.")
        numbers = {ordered.index(encoder) + 1} | ({3} if encoder == "t5xxl" else set())
        for number in numbers:  # kohya's scripts call T5 the third one even where it is the second
            forms = _names_in_encoder(rest, number, is_alone=len(ordered) == 1)
            names.update(dict.fromkeys(forms, key))
        names[f"text_encoders.{encoder}.transformer.{rest}"] = key
    return names


def _names_in_encoder(layer: str, number: int, *, is_alone: bool) -> Iterable[str]:
    """Forms for a layer of the first, second, ... text encoder."""
    pipeline = "text_encoder" if number == 1 else f"text_encoder_{number}"
    short = layer.removeprefix("text_model.")
    yield kohya(f"lora_te{number}_", layer)
    yield f"{pipeline}.{layer}"
    yield f"{pipeline}.{short}"
    if number == 1:
        yield kohya("lora_te_", layer)
        yield kohya("lycoris_", layer)
    if is_alone:
        yield layer
    before, _, last = layer.rpartition(".")
    if last in _OLD_ATTENTION:
        yield f"{pipeline}.{before}.{_OLD_ATTENTION[last]}"

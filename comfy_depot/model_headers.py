"""What the header of a safetensors file says of the model: its tensors, its metadata, the family it is of.

The family ("base model") is what the file says itself (`modelspec.architecture`, `ss_base_model_version`),
brought to one spelling; where it says nothing, the shapes of tensors that only one family has. Files of
families that are not in the table below, and say nothing, have none.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from comfy_depot.eviction import Stamp

EXTENSIONS = (".safetensors", ".sft")
LARGEST_HEADER = 8 << 20
"""Bytes. Headers hold a few hundred KB; parsing one of this size takes a tenth of a second."""
LONGEST_VALUE = 256
LARGEST_METADATA = 8 << 10
SAID_BY = ("modelspec.architecture", "ss_base_model_version")
FROM_SHAPES = "shapes"

_SD = "(?:sd|stablediffusion)"
_FAMILIES = {  # the families by how texts without blanks and punctuation begin; the first one counts
    "sdxl-refiner": rf"{_SD}xl.*refiner",
    "sdxl": rf"{_SD}xl",
    "sd1": rf"{_SD}v?1",
    "sd2": rf"{_SD}v?2",
    "sd3": rf"{_SD}v?3",
    "flux1": "flux(?!2)",
}
_ASKED = {  # what a person may write for a whole family
    "sdxl-refiner": rf"{_SD}xl(?:v?10?)?refiner",
    "sdxl": rf"{_SD}xl(?:v?10?)?(?:base)?",
    "sd1": rf"{_SD}v?1[0-9x]?",
    "sd2": rf"{_SD}v?2[0-9x]?",
    "sd3": rf"{_SD}v?3[0-9x]?",
    "flux1": "flux1?",
}
_UNET_TEXT_KEY = re.compile(
    r"(?:input_blocks|middle_block|output_blocks|down_blocks|mid_block|up_blocks)[._].*"
    r"transformer_blocks[._]0[._]attn2[._]to_k\.(?:(?:lora_down|lora_A|lora\.down)\.)?weight$")
_TEXT_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}
_NOT_OF_A_FAMILY = ("time_stack", "temporal")  # video models on the same blocks
_MARKS = {  # the keys, without a prefix, that together only one family has
    "sd3": {"joint_blocks.0.context_block.attn.qkv.weight"},
    "flux1": {"double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight", "txt_in.weight"},
}
_PREFIX = "model.diffusion_model."


class Header(NamedTuple):
    """What is known of a file's content from its header."""

    tensors: int | None = None
    """None where the header cannot be read."""
    dtypes: str | None = None
    """How many tensors of which type: "F16 686, F32 2"."""
    base_model: str | None = None
    """"sd1", "sdxl", ... or, for families that have no name here, what the file says."""
    base_model_from: str | None = None
    """The field that says so, or "shapes"."""
    architecture: str | None = None
    """The words of the file itself."""
    metadata: str | None = None
    """JSON of `__metadata__`, long values cut."""
    problem: str | None = None
    """Why the header cannot be read."""


def read(path: str) -> tuple[Stamp, Header]:
    """A file's stamp and header, read together. OSError where the file is gone or cannot be read."""
    with open(path, "rb") as file:
        stamp = Stamp.of(os.fstat(file.fileno()))
        length = int.from_bytes(file.read(8), "little")
        if stamp.size < 8 or length > stamp.size - 8:
            return stamp, Header(problem="it is cut off, or no safetensors file")
        if length > LARGEST_HEADER:
            return stamp, Header(problem=f"its header has {length} bytes, and {LARGEST_HEADER} are read")
        text = file.read(length)
    try:
        return stamp, _describe(json.loads(text), stamp.size - 8 - length)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return stamp, Header(problem="its header cannot be read")


def _describe(header: dict[str, Any], body_size: int) -> Header:
    metadata = header.pop("__metadata__", None)
    metadata = metadata if isinstance(metadata, dict) else {}
    shapes = {key: tuple(tensor["shape"]) for key, tensor in header.items()}
    if max((tensor["data_offsets"][1] for tensor in header.values()), default=0) != body_size:
        return Header(problem="it is cut off or has something behind its end")
    counts = Counter(str(tensor["dtype"])[:16] for tensor in header.values())
    family, said_by, words = _base_model(metadata, shapes)
    return Header(
        len(shapes), ", ".join(f"{dtype} {count}" for dtype, count in counts.most_common(8)),
        family, said_by, words, json.dumps(_cut(metadata), ensure_ascii=False),
    )


def _base_model(
    metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str | None, str | None, str | None]:
    """(family, where that stands, the words of the file)"""
    for field in SAID_BY:
        words = metadata.get(field)
        if isinstance(words, str) and words.strip():
            words = words.strip()[:LONGEST_VALUE]
            return _family_of(words), field, words
    family = _family_by_shapes(shapes)
    return family, FROM_SHAPES if family else None, None


def _plain(words: str) -> str:
    return re.sub(r"[^a-z0-9]", "", words.lower())


def _family_of(words: str) -> str:
    plain = _plain(words)
    named = (family for family, beginning in _FAMILIES.items() if re.match(beginning, plain))
    return next(named, words.lower())


def family_asked_for(words: str) -> str | None:
    """The family that a person means by "SDXL" or "sd 1.5"; None for anything narrower or unknown."""
    plain = _plain(words)
    return next((family for family, whole in _ASKED.items() if re.fullmatch(whole, plain)), None)


def _family_by_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    plain = {key.removeprefix(_PREFIX) for key in shapes}
    for family, marks in _MARKS.items():
        if marks <= plain:
            return family
    if any(word in key for key in plain for word in _NOT_OF_A_FAMILY):
        return None
    for key, shape in shapes.items():
        if len(shape) == 2 and _UNET_TEXT_KEY.search(key):
            return _TEXT_WIDTHS.get(shape[1])
    return None


def _cut(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata that a list can hold: tags and pictures in it may be megabytes."""
    kept: dict[str, str] = {}
    left = LARGEST_METADATA
    for key, value in metadata.items():
        text = value if isinstance(value, str) else json.dumps(value)
        text = text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
        left -= len(key) + len(text)
        if left < 0:
            break
        kept[key] = text
    return kept

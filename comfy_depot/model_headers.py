"""What the header of a safetensors file says of the model: its tensors, its metadata, the family it is of.

The family ("base model") is what the file says itself (`modelspec.architecture`, `ss_base_model_version`),
brought to one spelling; where it says nothing, the tensors that only one family has (`base_models.py`).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from comfy_depot.base_models import SAYS_NOTHING, Model, by_tensors, by_words, plain
from comfy_depot.eviction import Stamp

EXTENSIONS = (".safetensors", ".sft")
LARGEST_HEADER = 8 << 20
"""Bytes. Headers hold a few hundred KB; parsing one of this size takes a tenth of a second."""
LONGEST_VALUE = 256
LARGEST_METADATA = 8 << 10
SAID_BY = ("modelspec.architecture", "ss_base_model_version")
FROM_SHAPES = "shapes"


class Header(NamedTuple):
    """What is known of a file's content from its header."""

    tensors: int | None = None
    """None where the header cannot be read."""
    dtypes: str | None = None
    """How many tensors of which type: "F16 686, F32 2"."""
    base_model: str | None = None
    """"sd1", "sdxl", ... or, for families that have no name here, what the file says."""
    variant: str | None = None
    """What of the family: "schnell", "2.2-i2v", "inpaint". None where nothing tells."""
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
    (family, variant), said_by, words = _base_model(metadata, shapes)
    return Header(
        len(shapes), ", ".join(f"{dtype} {count}" for dtype, count in counts.most_common(8)),
        family, variant, said_by, words, json.dumps(_cut(metadata), ensure_ascii=False),
    )


def _base_model(
    metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Model, str | None, str | None]:
    """(the model, where that stands, the words of the file)"""
    seen = by_tensors(shapes)
    for field in SAID_BY:
        words = metadata.get(field)
        if isinstance(words, str) and words.strip() and plain(words) not in SAYS_NOTHING:
            words = words.strip()[:LONGEST_VALUE]
            said = by_words(words) or Model(words.lower())
            is_same = said.family == seen.family and said.variant is None
            return seen if is_same else said, field, words
    return seen, FROM_SHAPES if seen.family else None, None


def family_of(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The family and, where it is known, the variant of a file: "flux1 schnell"; None for an unknown one."""
    (family, variant), _, _ = _base_model(metadata, shapes)
    return None if family is None else " ".join(filter(None, (family, variant)))


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

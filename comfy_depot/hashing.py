"""Is a file what it claims to be: its sha256 and the header of a safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from comfy_depot.errors import WrongContent

CHUNK_BYTES = 1 << 22
LONGEST_HEADER = 16 << 20
"""Bytes. Parsed it can take twenty times as much; 100,000 tensors need 12 MiB."""


def sha256_file(path: Path, *, check: Callable[[], None] | None = None) -> str:
    """Lower-case hexadecimal sha256 of a file; `check` is called between chunks (4 MiB) and may raise."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if check is not None:
                check()
    return digest.hexdigest()


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: where the bytes of each tensor are, and how long it all is."""

    spans: dict[str, tuple[int, int]]
    """{tensor: (start, end)} in bytes of the file."""
    size: int


def check_safetensors(path: Path, name: str) -> None:
    """Raise WrongContent unless the file has a header whose tensors fill it exactly."""
    read_header(path, name)


def header_length(path: Path, name: str) -> int:
    """The length that the first 8 bytes announce; WrongContent when the file cannot have such a header."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LONGEST_HEADER):
        raise WrongContent(
            f"'{name}' is no safetensors file: it has {size} bytes and announces a header of {length}. "
            "The source serves something else under this name or cuts it off: "
            "check the url in the manifest."
        )
    return length


def read_header(path: Path, name: str) -> Header:
    """The header of a safetensors file; WrongContent unless it describes a file of exactly this size."""
    length, size = header_length(path, name), os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        tensors = {key: value["data_offsets"] for key, value in json.loads(text).items()
                   if key != "__metadata__"}
        spans = {key: (8 + length + start, 8 + length + end) for key, (start, end) in tensors.items()}
        described = max((end for _, end in spans.values()), default=8 + length)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise WrongContent(
            f"'{name}' is no safetensors file: its header cannot be read. "
            "The source serves something else under this name: check the url in the manifest."
        ) from None
    if described != size:
        raise WrongContent(
            f"'{name}' is cut off or has something behind its end: its header describes "
            f"{described} bytes, and it has {size}. "
            "The source's copy is damaged: choose another url in the manifest."
        )
    return Header(spans, size)


def digest_of(text: str) -> str:
    """A short name for a text that must not be written down, such as a URL with a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

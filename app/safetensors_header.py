"""The JSON header of a safetensors file, read without loading the file or torch."""

from __future__ import annotations

import json
import struct
from typing import Any


def read_header(path: str, *, bytes_limit: int) -> dict[str, Any] | None:
    """The header, or None when the file is no safetensors file or its header is larger than the limit."""
    try:
        with open(path, "rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                return None
            (length,) = struct.unpack("<Q", prefix)
            if length > bytes_limit:
                return None
            header = json.loads(file.read(length))
    except (OSError, ValueError):
        return None
    return header if isinstance(header, dict) else None

"""Numbers and layouts of the binary websocket messages.

Every binary message is a 4-byte big-endian event number, then:

    1 PREVIEW_IMAGE                4-byte image format (1 JPEG, 2 PNG), the file's bytes
    3 TEXT                         4-byte length, node id, text in UTF-8
    4 PREVIEW_IMAGE_WITH_METADATA  4-byte length, JSON object, the file's bytes

Event 2 never leaves the server: it names a picture that still has to be encoded, and goes out as 1.
"""

from __future__ import annotations

import io
import json
import math
import numbers
import struct
from collections.abc import Mapping
from typing import Any

import orjson

IMAGE_FORMAT_NUMBER = {"JPEG": 1, "PNG": 2}
DEEPEST = 200
LONGEST_TEXT = 1000


class BinaryEventTypes:
    """Event numbers, as clients know them."""

    PREVIEW_IMAGE = 1
    UNENCODED_PREVIEW_IMAGE = 2
    TEXT = 3
    PREVIEW_IMAGE_WITH_METADATA = 4


PLAIN_ONLY = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def to_json(value: Any) -> str:
    """JSON that every client can read, of any value: nodes and packs show what they like, and one bad element
    must not make a whole history unreadable. NaN and infinities are null.
    """
    try:
        return orjson.dumps(value, option=PLAIN_ONLY).decode()
    except TypeError:  # it also takes no keys but texts, no half characters and no integers over 64 bits
        pass
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(plain(value))


def plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """A copy that JSON can say: None for NaN and infinities, numbers for those of other libraries, and the
    text of what else it does not know. `above` holds the ids of the containers around the value.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (Mapping, list, tuple)):
        if id(value) in above or len(above) >= DEEPEST:
            return "..."
        inside = (*above, id(value))
        if isinstance(value, Mapping):
            return {str(key): plain(content, inside) for key, content in value.items()}
        return [plain(content, inside) for content in value]
    try:
        return str(value)[:LONGEST_TEXT]
    except Exception as error:  # any class may come along here, and its text is only a stand-in
        return f"<{type(value).__name__}: {error}>"


def encode_json(event: str, data: Any) -> str:
    """One JSON message."""
    return to_json({"type": event, "data": data})


def with_length(data: bytes) -> bytes:
    """`data` behind its length, four bytes big-endian."""
    return struct.pack(">I", len(data)) + data


def encode_event(event: int, data: bytes | bytearray) -> bytes:
    """One binary message. Names are for JSON messages, so anything but a number is refused."""
    if not isinstance(event, int):
        raise RuntimeError(
            f"A binary message needs an event number, not {event!r}. Send a JSON message for named events."
        )
    return struct.pack(">I", event) + bytes(data)


def encode_text(text: str | bytes | bytearray, node_id: str) -> bytes:
    """Body of a TEXT message: what a node says below itself."""
    body = text.encode("utf-8") if isinstance(text, str) else bytes(text)
    return with_length(str(node_id).encode("utf-8")) + body


def compress_picture(kind: str, picture: Any, longest_side: int | None) -> bytes:
    """The bytes of a JPEG or PNG file of a PIL picture, shrunk (or grown) to fit `longest_side`."""
    if longest_side is not None:
        from PIL import Image, ImageOps

        picture = ImageOps.contain(picture, (longest_side, longest_side), Image.Resampling.BILINEAR)
    if kind == "JPEG" and picture.mode not in ("RGB", "L"):
        picture = picture.convert("RGB")
    file = io.BytesIO()
    picture.save(file, format=kind, quality=95, compress_level=1)
    return file.getvalue()


def encode_preview(preview: tuple[str, Any, int | None]) -> bytes:
    """Body of a PREVIEW_IMAGE message from (format, PIL picture, longest side)."""
    kind, picture, longest_side = preview
    return struct.pack(">I", IMAGE_FORMAT_NUMBER.get(kind, 1)) + compress_picture(kind, picture, longest_side)


def encode_preview_with_metadata(
    preview: tuple[str, Any, int | None], metadata: Mapping[str, Any] | None
) -> bytes:
    """Body of a PREVIEW_IMAGE_WITH_METADATA message; the picture's MIME type joins the metadata."""
    kind, picture, longest_side = preview
    header = {**(metadata or {}), "image_type": "image/png" if kind == "PNG" else "image/jpeg"}
    return with_length(json.dumps(header).encode("utf-8")) + compress_picture(kind, picture, longest_side)

"""Pictures (H, W, C) as the bytes of PNG files of 8 or 16 bits and of OpenEXR files, with texts in them."""

import struct
import zlib

import numpy as np
import torch

from comfy.color_spaces import hlg_to_linear, srgb_to_linear

# (format, depth, channels) -> (the format of the frame given to FFmpeg, the one of the file)
_FRAMES = {
    ("png", "8-bit", 1): ("gray", "gray"),
    ("png", "8-bit", 3): ("rgb24", "rgb24"),
    ("png", "8-bit", 4): ("rgba", "rgba"),
    ("png", "16-bit", 1): ("gray16le", "gray16be"),
    ("png", "16-bit", 3): ("rgb48le", "rgb48be"),
    ("png", "16-bit", 4): ("rgba64le", "rgba64be"),
    ("exr", "32-bit float", 1): ("grayf32le", "grayf32le"),
    ("exr", "32-bit float", 3): ("gbrpf32le", "gbrpf32le"),
    ("exr", "32-bit float", 4): ("gbrapf32le", "gbrapf32le"),
}
_INTEGERS = {"8-bit": np.uint8, "16-bit": np.uint16}
_TO_LINEAR = {"sRGB": srgb_to_linear, "HDR": hlg_to_linear, "linear": lambda pixels: pixels}
# Chromaticities of red, green, blue and white (D65) as x, y pairs: BT.709, and BT.2020 for HDR.
_BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
_BT2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)

_PNG_HEADER_END = 8 + 8 + 13 + 4  # signature; then IHDR: length and type, data, checksum
_EXR_ATTRIBUTES = 8  # where they begin: after the magic number and the version
# How many rows a block has, by the number of the compression (OpenEXR file layout).
_EXR_ROWS = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}


class UnsupportedPicture(ValueError):
    """This number of channels cannot be written in this format."""

    def __init__(self, file_format: str, depth: str, channels: int):
        super().__init__(
            f"A picture with {channels} channels cannot be saved as {file_format} ({depth}). "
            "One (gray), three (RGB) and four (RGBA) channels can be: cut or join channels before saving."
        )


def encoded(picture: torch.Tensor, file_format: str, depth: str, color_space: str) -> bytes:
    """One picture (H, W, C) or (H, W) as a file. EXR holds linear light, PNG the values as they are."""
    if picture.ndim == 2:
        picture = picture.unsqueeze(-1)
    key = (file_format, depth, picture.shape[-1])
    if key not in _FRAMES:
        raise UnsupportedPicture(*key)
    given, stored = _FRAMES[key]
    if file_format == "exr":
        pixels = _TO_LINEAR[color_space](picture.float()).cpu().numpy().astype(np.float32)
    else:
        kind = _INTEGERS[depth]
        top = np.iinfo(kind).max
        pixels = (picture.float().cpu() * top).clamp(0, top).numpy().astype(kind)
    return _encoded_by_ffmpeg(pixels, file_format, given, stored)


def _encoded_by_ffmpeg(pixels: np.ndarray, file_format: str, given: str, stored: str) -> bytes:
    import av

    pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    codec = av.CodecContext.create(file_format, "w")
    codec.height, codec.width = pixels.shape[:2]
    codec.pix_fmt = stored
    codec.framerate = 1
    frame = av.VideoFrame.from_ndarray(pixels, format=given)
    frame = frame if given == stored else frame.reformat(format=stored)
    frame.pts = 0
    # For one picture, what the codec gives is the whole file.
    return b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))


def png_with_texts(png: bytes, texts: dict[str, str]) -> bytes:
    """The file with tEXt chunks right after its header."""
    chunks = b""
    for key, text in texts.items():
        body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("latin-1", "replace")
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_PNG_HEADER_END] + chunks + png[_PNG_HEADER_END:]


def _exr_attribute(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def _exr_attributes(exr: bytes) -> tuple[dict[str, bytes], int]:
    """(values by name, where the list of attributes ends)."""
    found, place = {}, _EXR_ATTRIBUTES
    while exr[place]:
        name_end = exr.index(b"\0", place)
        kind_end = exr.index(b"\0", name_end + 1)
        (size,) = struct.unpack_from("<i", exr, kind_end + 1)
        start = kind_end + 5
        found[exr[place:name_end].decode("latin-1")] = exr[start : start + size]
        place = start + size
    return found, place


def exr_with_texts(exr: bytes, texts: dict[str, str], color_space: str) -> bytes:
    """The file with texts as attributes, and with the chromaticities of its colour space.

    The table of blocks holds positions in the file: each is moved by what is put before the blocks.
    """
    primaries = _BT2020 if color_space == "HDR" else _BT709
    added = b"".join(_exr_attribute(key, "string", text.encode()) for key, text in texts.items())
    added += _exr_attribute("chromaticities", "chromaticities", struct.pack("<8f", *primaries))
    attributes, end = _exr_attributes(exr)
    _, top, _, bottom = struct.unpack("<4i", attributes["dataWindow"])
    rows = _EXR_ROWS[attributes["compression"][0]]
    blocks = -(-(bottom - top + 1) // rows)
    table = struct.unpack_from(f"<{blocks}Q", exr, end + 1)
    moved = struct.pack(f"<{blocks}Q", *(place + len(added) for place in table))
    return exr[:end] + added + b"\0" + moved + exr[end + 1 + len(moved) :]

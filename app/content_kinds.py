"""What a file is, by its first bytes: pictures, videos, sounds. The claims of names and headers count little.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """`family` is "image", "video", "audio", "model" or "page"."""

    family: str
    extension: str
    mime: str


_STARTS = (
    (b"\x89PNG\r\n\x1a\n", Kind("image", ".png", "image/png")),
    (b"\xff\xd8\xff", Kind("image", ".jpg", "image/jpeg")),
    (b"GIF87a", Kind("image", ".gif", "image/gif")),
    (b"GIF89a", Kind("image", ".gif", "image/gif")),
    (b"II*\x00", Kind("image", ".tiff", "image/tiff")),
    (b"MM\x00*", Kind("image", ".tiff", "image/tiff")),
    (b"\x76\x2f\x31\x01", Kind("image", ".exr", "image/x-exr")),
    (b"fLaC", Kind("audio", ".flac", "audio/flac")),
    (b"OggS", Kind("audio", ".ogg", "audio/ogg")),
    (b"ID3", Kind("audio", ".mp3", "audio/mpeg")),
    (b"glTF", Kind("model", ".glb", "model/gltf-binary")),
)
_RIFF = {
    b"WEBP": Kind("image", ".webp", "image/webp"),
    b"WAVE": Kind("audio", ".wav", "audio/wav"),
    b"AVI ": Kind("video", ".avi", "video/x-msvideo"),
}
_BRANDS = {
    b"M4A ": Kind("audio", ".m4a", "audio/mp4"),
    b"avif": Kind("image", ".avif", "image/avif"),
    b"avis": Kind("image", ".avif", "image/avif"),
    b"heic": Kind("image", ".heic", "image/heic"),
    b"qt  ": Kind("video", ".mov", "video/quicktime"),
}
MP4 = Kind("video", ".mp4", "video/mp4")
WEBM = Kind("video", ".webm", "video/webm")
MKV = Kind("video", ".mkv", "video/x-matroska")
BMP = Kind("image", ".bmp", "image/bmp")
MP3 = Kind("audio", ".mp3", "audio/mpeg")
PAGE = Kind("page", ".html", "text/html")


def kind_of(head: bytes) -> Kind | None:
    """The kind of the file that begins so (a few hundred bytes are enough), or None."""
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], MP4)
    if head.startswith(b"\x1aE\xdf\xa3"):
        return WEBM if b"webm" in head[:64] else MKV
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return BMP
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] & 0xF0 != 0xF0:
        return MP3  # a frame without tags before it: layer III
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower()
    return PAGE if text.startswith((b"<!doctype html", b"<html")) else None

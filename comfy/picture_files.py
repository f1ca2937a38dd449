"""Pictures on disk: reading them as tensors, and writing PNG files that are never seen half written.

Images are (B, H, W, C) in 0..1; masks are (B, H, W), 1 where the picture is transparent.
"""

import hashlib
import json
import os
import uuid

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from comfy.cli_args import args
from comfy.tolerant_pillow import pillow

# What a picture without transparency gives as its mask.
NO_MASK_SHAPE = (64, 64)


# What Pillow raises for files that it cannot or will not decode.
_NO_PICTURE = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)


class UnreadablePicture(ValueError):
    """The file is there, but it is no picture that can be decoded."""

    def __init__(self, path: str, reason: Exception):
        super().__init__(
            f"'{os.path.basename(path)}' cannot be read as a picture ({reason}). "
            "Open it elsewhere to see whether it is damaged, save it as PNG or JPEG, and upload it again."
        )


def content_hash(path: str) -> str:
    """SHA-256 of a file, which tells the executor whether it has changed."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def load_picture(path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(images, masks) of a picture; the frames of an animation become a batch."""
    try:
        with pillow(Image.open, path) as picture:
            frames = [_with_alpha(_upright(frame)) for frame in _frames(picture)]
    except _NO_PICTURE as error:
        raise UnreadablePicture(path, error) from error
    # Frames of another size than the first (multi-size icons) cannot share a batch.
    frames = [frame for frame in frames if frame.size == frames[0].size]
    images = torch.cat([_image_tensor(frame) for frame in frames])
    return images, torch.cat([_transparency(frame) for frame in frames])


def load_channel(path: str, channel: str) -> torch.Tensor:
    """One of "red", "green", "blue", "alpha" as a mask (1, H, W); alpha is inverted."""
    try:
        with pillow(Image.open, path) as picture:
            frame = _upright(picture)
    except _NO_PICTURE as error:
        raise UnreadablePicture(path, error) from error
    if frame.mode != "RGBA":
        frame = _eight_bits(frame).convert("RGBA")
    mask = _unit(frame.getchannel(channel[0].upper()))
    return (1.0 - mask if channel == "alpha" else mask).unsqueeze(0)


def _frames(picture):
    if picture.format == "MPO":
        return [picture]  # the other frames of a stereo or burst photo are views, not an animation
    return ImageSequence.Iterator(picture)


def _upright(frame):
    # This copies, as it must: the frames of an animation are one object that moves on.
    return pillow(ImageOps.exif_transpose, frame)


def _with_alpha(frame):
    # A palette says which of its colours are transparent; the others have a channel or none.
    return frame.convert("RGBA") if frame.mode == "P" and "transparency" in frame.info else frame


def _eight_bits(frame):
    if frame.mode.startswith("I"):
        # 16 bits per pixel, which convert() would cut off instead of scale.
        return frame.convert("I").point(lambda value: value * (1 / 255))
    return frame


def _unit(frame) -> torch.Tensor:
    return torch.from_numpy(np.array(frame).astype(np.float32) / 255.0)


def _image_tensor(frame) -> torch.Tensor:
    return _unit(_eight_bits(frame).convert("RGB"))[None]


def _transparency(frame) -> torch.Tensor:
    if "A" not in frame.getbands():
        return torch.zeros((1, *NO_MASK_SHAPE), dtype=torch.float32)
    return 1.0 - _unit(frame.getchannel("A"))[None]


def png_metadata(prompt=None, extra_pnginfo=None) -> PngInfo | None:
    """The text chunks from which the UI restores a workflow; None under --disable-metadata."""
    if args.disable_metadata:
        return None
    metadata = PngInfo()
    if prompt is not None:
        metadata.add_text("prompt", json.dumps(prompt))
    for name, value in (extra_pnginfo or {}).items():
        metadata.add_text(name, json.dumps(value))
    return metadata


def save_png(image: torch.Tensor, path: str, metadata: PngInfo | None, compress_level: int) -> None:
    """Write one image (H, W, C) beside its place, then rename it: nobody sees half a picture."""
    pixels = np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8)
    partial = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.partial")
    try:
        Image.fromarray(pixels).save(partial, format="PNG", pnginfo=metadata, compress_level=compress_level)
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)

"""Objects followed through videos: what SAM3_TRACK_DATA holds, and pictures of it.

A track is a dict: `packed_masks` (T, objects, H, W / 8), uint8, eight pixels in each byte, the left one in
the lowest bit, or None without objects; `orig_size` (height, width) of the video; `n_frames`; `scores`.
"""

from __future__ import annotations

from typing import Any

# Colours of objects in previews, well apart from each other; more objects begin again.
COLORS = (
    (0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17), (0.84, 0.15, 0.16), (0.58, 0.4, 0.74),
    (0.55, 0.34, 0.29), (0.89, 0.47, 0.76), (0.5, 0.5, 0.5), (0.74, 0.74, 0.13), (0.09, 0.75, 0.81),
    (0.94, 0.76, 0.06), (0.42, 0.68, 0.84),
)  # fmt: skip


def unpacked(packed: Any) -> Any:
    """(..., H, W / 8) of bytes -> (..., H, W) of bool."""
    import torch

    bits = torch.arange(8, device=packed.device, dtype=torch.uint8)
    return (packed.unsqueeze(-1) >> bits & 1).bool().flatten(-2)


def count_of(track: dict[str, Any]) -> tuple[int, int]:
    """How many (frames, objects) a track has."""
    packed = track["packed_masks"]
    return (track.get("n_frames", 1), 0) if packed is None else tuple(packed.shape[:2])


def chosen(indices: str, count: int) -> list[int]:
    """Numbers of objects that a text such as "0, 2" names; all of them for an empty text."""
    if not indices.strip():
        return list(range(count))
    numbers = [int(part) for part in indices.split(",") if part.strip().isdigit()]
    return [number for number in numbers if number < count]


def full_masks(packed: Any, size: tuple[int, int]) -> Any:
    """(T, objects, H / n, W / 8n) of bytes -> (T, objects, H, W) of bool in this (height, width)."""
    import torch

    return torch.nn.functional.interpolate(unpacked(packed).float(), size=tuple(size), mode="nearest") > 0.5


def overlaid(picture: Any, masks: Any, opacity: float) -> Any:
    """A picture (H, W, 3) with objects (N, H, W) in their colours; where two meet, the first is seen."""
    import torch

    colors = picture.new_tensor([COLORS[number % len(COLORS)] for number in range(len(masks))])
    seen = colors[masks.to(torch.uint8).argmax(dim=0)]
    mixed = picture * (1 - opacity) + seen * opacity
    return torch.where(masks.any(dim=0).unsqueeze(-1), mixed, picture)


def numbered(picture: Any, masks: Any, scores: list[float]) -> Any:
    """uint8 (H, W, 3) of a picture with each object's number, and its score in percent, at its middle."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray((picture.clamp(0, 1) * 255).byte().cpu().numpy())
    draw = ImageDraw.Draw(image)
    for number, mask in enumerate(masks):
        points = mask.nonzero().float()
        if len(points) < 2:
            continue
        y, x = points.mean(dim=0).tolist()
        size = max(8, round(min(max(18, image.height / 40), len(points) ** 0.5 / 2)))
        color = tuple(int(255 * value) for value in COLORS[number % len(COLORS)])
        certain = number >= len(scores) or scores[number] >= 1
        text = str(number) if certain else f"{number}\n{int(100 * scores[number])}"
        font = ImageFont.load_default(size=size)
        draw.multiline_text(
            (x, y),
            text,
            fill=color,
            font=font,
            anchor="mm",
            align="center",
            stroke_width=1,
            stroke_fill="black",
        )
    return np.asarray(image)

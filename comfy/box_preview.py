"""A picture of boxes with what is written in them."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from comfy.boxes import palette_of
from comfy.color_spaces import parse_hex

_LONGEST = 1024  # pixels of the longer side
_DIM = 0.25  # how much of the background's light is left
_GRAY = (140, 140, 140)  # of boxes without colours
_READABLE = 130  # luma of text on a dark ground
_SWATCHES = 5


def _bytes(color: str) -> tuple[int, int, int]:
    found = parse_hex(color)
    return (255, 255, 255) if found is None else tuple(round(part * 255) for part in found)


def _luma(color: tuple[int, int, int]) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def _lightened(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour, mixed with white until it can be read."""
    luma = _luma(color)
    share = max(0.0, (_READABLE - luma) / (255 - luma)) if luma < 255 else 0.0
    return tuple(round(part + (255 - part) * share) for part in color)


def _ground(width: int, height: int, background) -> Image.Image:
    """What is behind the boxes: the first picture (B, H, W, C), dimmed, or gray."""
    if background is not None:
        height, width = background.shape[1:3]
    scale = min(1.0, _LONGEST / max(width, height, 1))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if background is None:
        return Image.new("RGBA", size, (round(_DIM * 128),) * 3 + (255,))
    pixels = (background[0, ..., :3].detach().cpu().float().numpy() * 255).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    return ImageEnhance.Brightness(picture).enhance(_DIM).convert("RGBA")


def _lines(draw, text: str, font, width: float) -> list[str]:
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and draw.textlength(longer, font=font) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _corners(region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) inside of the picture."""

    def inside(value, length):
        return max(0, min(length, round(value * length)))

    columns = sorted(inside(region["x"] + more, size[0]) for more in (0, region["w"]))
    rows = sorted(inside(region["y"] + more, size[1]) for more in (0, region["h"]))
    return columns[0], rows[0], columns[1], rows[1]


def _caption(region) -> str:
    text, description = region["text"], region["desc"] or ""
    if region["type"] != "text" or not text:
        return description
    return f'"{text}" — {description}' if description else f'"{text}"'


def _draw_box(draw, region, number: int, size: tuple[int, int], letters: int) -> None:
    colors = palette_of(region)
    color = _bytes(colors[0]) if colors else _GRAY
    left, top, right, bottom = _corners(region, size)
    draw.rectangle((left, top, right, bottom), outline=color, width=2)
    swatches = colors[:_SWATCHES] if right - left > 2 else []
    for index, one in enumerate(swatches):
        start, end = (left + round(place * (right - left) / len(swatches)) for place in (index, index + 1))
        draw.rectangle((start, top, end, top + max(5, letters // 2)), fill=_bytes(one))
    tag, font = f"{number:02}", ImageFont.load_default(max(9, letters - 2))
    tag_width = draw.textlength(tag, font=font)
    draw.rectangle((left, top, left + tag_width + 6, top + letters + 2), fill=color)
    draw.text((left + 3, top + 1), tag, fill="black" if _luma(color) > 140 else "white", font=font)
    if right - left <= 8:
        return
    font, y = ImageFont.load_default(letters), top + letters + 5
    for line in _lines(draw, _caption(region), font, right - left - 8):
        if y > bottom:
            break
        draw.text((left + 4, y), line, fill=_lightened(color), font=font)
        y += letters + 2


def drawn(regions, width: int, height: int, background=None) -> torch.Tensor:
    """A preview (1, H, W, 3), at most 1024 pixels wide and high, of the regions of a canvas."""
    ground = _ground(width, height, background)
    layer = Image.new("RGBA", ground.size)
    draw = ImageDraw.Draw(layer)
    for number, region in enumerate(regions, start=1):
        _draw_box(draw, region, number, ground.size, max(10, round(ground.height / 64)))
    picture = Image.alpha_composite(ground, layer).convert("RGB")
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None]

"""Text drawn with the font that Pillow brings: wrapped into a width, and made smaller until it fits."""

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

_MARGIN = 0.01  # of the shorter side
_LEADING = 1.2  # from line to line, of the size of the font
_OUTLINE = 0.04  # of the size of the font
_SMALLEST = 0.02  # of the height; never less than the pixels below
_SMALLEST_PIXELS = 10
_SHRINK = 0.9


def _pieces(word: str, font, width: float) -> list[str]:
    """A word, cut where it is wider than a line. Every piece has a letter at least."""
    pieces = []
    while len(word) > 1 and font.getlength(word) > width:
        cut = 1
        while font.getlength(word[: cut + 1]) <= width:
            cut += 1
        pieces.append(word[:cut])
        word = word[cut:]
    return [*pieces, word]


def wrapped(text: str, font, width: float) -> list[str]:
    """The lines of a text that is at most so many pixels wide."""
    lines = []
    for paragraph in text.split("\n"):
        current = ""
        for word in paragraph.split():
            *whole_lines, last = _pieces(word, font, width)
            if whole_lines:
                lines += [current, *whole_lines] if current else whole_lines
                current = last
            elif current and font.getlength(f"{current} {last}") > width:
                lines.append(current)
                current = last
            else:
                current = f"{current} {last}".strip()
        if current or not paragraph.split():
            lines.append(current)
    return lines


def _fitted(draw, text: str, width: int, height: int, sizes: tuple[int, int], outline: bool):
    """(how the text is drawn, the box it takes) in the largest size (from, to) that is not too high."""
    smallest, size = sizes
    while True:
        font = ImageFont.load_default(size=size)
        stroke = max(1, round(size * _OUTLINE)) if outline else 0
        two, one = (
            draw.multiline_textbbox((0, 0), lines, font=font, spacing=0, stroke_width=stroke)
            for lines in ("Ay\nAy", "Ay")
        )
        advance = (two[3] - two[1]) - (one[3] - one[1])
        how = {
            "text": "\n".join(wrapped(text, font, width)),
            "font": font,
            "spacing": round(size * _LEADING - advance),
            "stroke_width": stroke,
        }
        box = draw.multiline_textbbox((0, 0), **how)
        if box[3] - box[1] <= height or size <= smallest:
            return how, box
        size = max(smallest, int(size * _SHRINK))


def lettered(text, width, height, *, percent, color, position, align, outline) -> torch.Tensor:
    """A transparent layer (H, W, 4) with a text at the "top" or "bottom".

    `percent` is the size of the font, of the height; align is "left", "center" or "right"; `color` is one of
    style sheets, ValueError for others.
    """
    layer = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(layer)
    margin = round(_MARGIN * min(width, height))
    size = max(1, round(percent / 100 * height))
    smallest = min(size, max(_SMALLEST_PIXELS, round(_SMALLEST * height)))
    room = [max(1, side - 2 * margin) for side in (width, height)]
    how, box = _fitted(draw, text, *room, (smallest, size), outline)
    anchor, x = {"left": ("la", margin), "center": ("ma", width / 2), "right": ("ra", width - margin)}[align]
    y = margin - box[1] if position == "top" else height - margin - box[3]
    fill = ImageColor.getcolor(color, "RGBA")
    draw.multiline_text((x, y), anchor=anchor, align=align, fill=fill, stroke_fill=(0, 0, 0, 255), **how)
    return torch.from_numpy(np.array(layer, dtype=np.float32) / 255)

"""Pictures of coloured shapes, their captions, and the check that names what a picture shows.

Everything is seeded; nothing here needs torch. A picture is an array (height, width, 3) of floats in 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

SIZE = 64  # pixels on each side
BACKGROUND = (0.94, 0.94, 0.94)
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.14, 0.14),
    "green": (0.13, 0.65, 0.25),
    "blue": (0.14, 0.30, 0.88),
    "yellow": (0.96, 0.82, 0.12),
    "purple": (0.58, 0.18, 0.74),
}
SHAPES = ("circle", "square", "triangle")
KINDS = tuple(product(COLOURS, SHAPES))

# Whole sentences dominate; the rest lets prompts of other wording work. Weights need not sum to one.
TEMPLATES: dict[str, float] = {
    "a {colour} {shape}": 0.62,
    "{colour} {shape}": 0.10,
    "the {colour} {shape}": 0.05,
    "a picture of a {colour} {shape}": 0.06,
    "a drawing of a {colour} {shape}": 0.05,
    "a photo of a {colour} {shape}": 0.04,
    "a {shape}": 0.04,
    "a {colour} shape": 0.04,
}

# Limits of `look`: how far a colour may be from the palette, how well an outline must fit its ideal.
COLOUR_DISTANCE = 0.30
FOREGROUND_DISTANCE = 0.22
OUTLINE_OVERLAP = 0.80
BORDER_SHARE = 0.25  # of the border's pixels may be in front; more is no plain background
SMALLEST_AREA = 150  # pixels: no trained shape is smaller than 450


def prompt_for(colour: str, shape: str) -> str:
    """The plain sentence for one kind of picture, e.g. `a red circle`."""
    return f"a {colour} {shape}"


def caption(rng: np.random.Generator, colour: str, shape: str) -> str:
    """One of the wordings of `TEMPLATES`, drawn by weight."""
    weights = np.array(list(TEMPLATES.values()))
    template = list(TEMPLATES)[rng.choice(len(weights), p=weights / weights.sum())]
    return template.format(colour=colour, shape=shape)


def all_captions() -> list[str]:
    """Every caption that `caption` can give, without repetition, in a fixed order."""
    texts = (t.format(colour=c, shape=s) for t in TEMPLATES for c, s in KINDS)
    return list(dict.fromkeys(texts))


def outline(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a shape that fills the box -1..1 (negative inside; y points down)."""
    if shape == "circle":
        return np.hypot(x, y) - 1.0
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 1.0
    if shape == "triangle":  # apex at (0, -1), base from (-1, 1) to (1, 1)
        side = (2 * np.abs(x) - y - 1) / np.sqrt(5)
        return np.maximum(side, y - 1)
    raise ValueError(f"Unknown shape {shape!r}. Use one of: {', '.join(SHAPES)}.")


def draw(
    shape: str,
    rgb: tuple[float, float, float],
    *,
    centre: tuple[float, float],
    radius: float,
    background: tuple[float, float, float] = BACKGROUND,
    size: int = SIZE,
) -> np.ndarray:
    """An antialiased picture of one shape; centre and radius (half the box) in pixels."""
    y, x = np.mgrid[0:size, 0:size] + 0.5
    distance = outline(shape, (x - centre[0]) / radius, (y - centre[1]) / radius) * radius
    coverage = np.clip(0.5 - distance, 0, 1)[..., None]
    return coverage * np.array(rgb) + (1 - coverage) * np.array(background)


def draw_random(rng: np.random.Generator, colour: str, shape: str) -> np.ndarray:
    """A training picture: place, size and tint vary a little, the background does not."""
    radius = rng.uniform(16, 22)
    centre = SIZE / 2 + rng.uniform(-5, 5, size=2)
    rgb = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 0.02, size=3), 0, 1)
    return draw(shape, tuple(rgb), centre=tuple(centre), radius=radius)


def random_kind(rng: np.random.Generator) -> tuple[str, str]:
    """A colour and a shape, every pair equally likely."""
    return KINDS[rng.integers(len(KINDS))]


def draw_any(rng: np.random.Generator) -> np.ndarray:
    """A picture for the autoencoder only: any colours, up to three shapes, any background."""
    picture = np.ones((SIZE, SIZE, 3)) * rng.uniform(0, 1, size=3)
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(8, 26)
        shape = SHAPES[rng.integers(len(SHAPES))]
        centre = tuple(rng.uniform(10, SIZE - 10, 2))
        mask = draw(shape, (1, 1, 1), centre=centre, radius=radius, background=(0, 0, 0))
        picture = mask * rng.uniform(0, 1, size=3) + (1 - mask) * picture
    return picture


@dataclass(frozen=True)
class Seen:
    """What `look` found. A field is None where nothing fits well enough."""

    colour: str | None
    shape: str | None
    colour_distance: float = float("inf")
    outline_overlap: float = 0.0
    area: int = 0


def look(picture: np.ndarray) -> Seen:
    """Name the colour and the shape of the largest connected thing in front of a plain background.

    The background is the median of the border. The colour is the nearest of the palette to the median colour
    of the thing; the shape is the ideal outline, fitted to the box of the thing, that overlaps it best
    (intersection over union).
    """
    in_front = front_of(picture)
    mask = largest_component(in_front)
    area = int(mask.sum())
    if area < SMALLEST_AREA or border_of(in_front).mean() > BORDER_SHARE:
        return Seen(None, None, area=area)
    rgb = np.median(picture[mask], axis=0)
    distances = {name: float(np.linalg.norm(rgb - np.array(value))) for name, value in COLOURS.items()}
    colour = min(distances, key=distances.__getitem__)
    overlaps = {shape: overlap_with(shape, mask) for shape in SHAPES}
    shape = max(overlaps, key=overlaps.__getitem__)
    return Seen(
        colour if distances[colour] <= COLOUR_DISTANCE else None,
        shape if overlaps[shape] >= OUTLINE_OVERLAP else None,
        distances[colour],
        overlaps[shape],
        area,
    )


def front_of(picture: np.ndarray) -> np.ndarray:
    """Which pixels are in front of the background, the median of the border."""
    background = np.median(border_of(picture), axis=0)
    return np.linalg.norm(picture - background, axis=-1) > FOREGROUND_DISTANCE


def border_of(picture: np.ndarray) -> np.ndarray:
    """The outermost pixels in a row."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def overlap_with(shape: str, mask: np.ndarray) -> float:
    """Intersection over union of a mask and the ideal shape in its box; 0 for a box far from square."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0], columns[0]
    height, width = rows[-1] - top + 1, columns[-1] - left + 1
    if not 0.7 <= width / height <= 1.43:
        return 0.0
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]] + 0.5
    ideal = outline(shape, (x - left) / width * 2 - 1, (y - top) / height * 2 - 1) <= 0
    return float((ideal & mask).sum() / (ideal | mask).sum())


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 4-connected part of a boolean mask, as a mask of the same size."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()

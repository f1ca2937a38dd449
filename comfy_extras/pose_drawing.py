"""People drawn as pose models were taught to read them: bodies as coloured sticks, hands, points of faces.

A person is a dict of OpenPose's lists `[x, y, score, ...]` in pixels; a canvas is (H, W, 3), uint8.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Any

# Pairs of body points; those of the head come last, so that a stick's colour is that of its place here.
_BODY = ((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13))
_HEAD = ((1, 0), (0, 14), (14, 16), (0, 15), (15, 17))
_HEAD_POINTS = (0, 14, 15, 16, 17)
_NECK = 1
_HAND = tuple(
    (0 if joint == 0 else finger + joint, finger + joint + 1)
    for finger in range(0, 20, 4)
    for joint in range(4)
)
_COLORS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0),
    (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255),
    (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
_POINT_RADIUS = 4


@dataclass(frozen=True)
class Parts:
    """Which parts of people are drawn."""

    body: bool
    head: bool
    feet: bool
    hands: bool
    face: bool


def draw_person(
    canvas: Any, person: dict[str, Any], parts: Parts, threshold: float, stick_width: int, face_point: int
) -> None:
    """Draw the points of a person with a score of at least `threshold`, and what joins them."""
    body = _points(person, "pose_keypoints_2d", 18)
    _draw_body(canvas, body, parts, threshold, stick_width)
    if parts.feet:
        for number, point in enumerate(_points(person, "foot_keypoints_2d", 6)):
            if point[2] >= threshold:
                _dot(canvas, point, _POINT_RADIUS, _COLORS[number])
    if parts.hands:
        for side in ("right", "left"):
            _draw_hand(canvas, _points(person, f"hand_{side}_keypoints_2d", 21), threshold)
    if parts.face:
        for point in _points(person, "face_keypoints_2d", 70)[:68]:
            if point[2] >= threshold and _is_given(point):
                _dot(canvas, point, face_point, (255, 255, 255))


def _points(person, name, count):
    import numpy as np

    flat = person.get(name)
    if not flat:
        return np.zeros((count, 3), np.float32)
    if len(flat) != 3 * count:
        raise ValueError(
            f"{name} of a person has {len(flat)} numbers. It has {3 * count}."
        )
    return np.asarray(flat, np.float32).reshape(count, 3)


def _is_given(point):
    return int(point[0]) > 0 and int(point[1]) > 0


def _draw_body(canvas, points, parts, threshold, stick_width):
    for number, (first, second) in enumerate(_BODY + _HEAD):
        wanted = parts.body if number < len(_BODY) else parts.head
        if wanted and min(points[first][2], points[second][2]) >= threshold:
            _stick(canvas, points[first], points[second], stick_width, _COLORS[number])
    for number, point in enumerate(points):
        wanted = parts.head if number in _HEAD_POINTS else parts.body
        if number == _NECK:
            wanted = parts.body or parts.head
        if wanted and point[2] >= threshold:
            _dot(canvas, point, _POINT_RADIUS, _COLORS[number])


def _draw_hand(canvas, points, threshold):
    for number, (first, second) in enumerate(_HAND):
        ends = points[first], points[second]
        if all(end[2] >= threshold and _is_given(end) and _is_inside(canvas, end) for end in ends):
            hue = colorsys.hsv_to_rgb(number / len(_HAND), 1.0, 1.0)
            _line(canvas, *ends, 1.5, tuple(int(255 * value) for value in hue))
    for point in points:
        if point[2] >= threshold and _is_given(point):
            _dot(canvas, point, _POINT_RADIUS, (0, 0, 255))


def _is_inside(canvas, point):
    return 0 <= int(point[0]) < canvas.shape[1] and 0 <= int(point[1]) < canvas.shape[0]


def _window(canvas, x, y, reach):
    """The pixels at most `reach` from a point, and how far right and below of it each is."""
    import numpy as np

    top, left = max(0, y - reach), max(0, x - reach)
    pixels = canvas[top : max(0, y + reach + 1), left : max(0, x + reach + 1)]
    below, right = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    return pixels, right + (left - x), below + (top - y)


def _dot(canvas, point, radius, color):
    if _is_inside(canvas, point):
        pixels, right, below = _window(canvas, int(point[0]), int(point[1]), radius)
        pixels[right**2 + below**2 <= radius**2] = color


def _stick(canvas, first, second, width, color):
    """An ellipse from point to point."""
    across, down = (float(first[axis] - second[axis]) for axis in (0, 1))
    length = math.hypot(across, down)
    if length < 1:
        return
    angle = math.radians(int(math.degrees(math.atan2(down, across))))
    middle = (int((float(first[axis]) + float(second[axis])) / 2) for axis in (0, 1))
    along, aside = int(length / 2) + 0.5, width + 0.5
    pixels, right, below = _window(canvas, *middle, int(max(along, aside)) + 1)
    on_axis = right * math.cos(angle) + below * math.sin(angle)
    off_axis = below * math.cos(angle) - right * math.sin(angle)
    pixels[(on_axis / along) ** 2 + (off_axis / aside) ** 2 <= 1] = color


def _line(canvas, first, second, radius, color):
    """All pixels at most `radius` from the line between two points."""
    x, y = int(first[0]), int(first[1])
    to_x, to_y = int(second[0]) - x, int(second[1]) - y
    pixels, right, below = _window(canvas, x, y, max(abs(to_x), abs(to_y)) + 2)
    share = (right * to_x + below * to_y) / max(1, to_x**2 + to_y**2)
    share = share.clip(0, 1)
    pixels[(right - share * to_x) ** 2 + (below - share * to_y) ** 2 <= radius**2] = color

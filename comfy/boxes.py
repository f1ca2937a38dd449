"""Rectangles with descriptions, in their three forms, and from one to the other.

box      {"x", "y", "width", "height", "metadata": {"type", "text", "desc", "palette"}} in pixels
element  {"type", "bbox": [ymin, xmin, ymax, xmax] in 0..1000, "text", "desc", "color_palette"}, as in prompts
region   {"x", "y", "w", "h"} in 0..1 of the canvas, with "type", "text", "desc", "palette"
"""

import json
from typing import Any

GRID = 1000
_COLORS_OF_AN_ELEMENT = 5
_SIDES = ("x", "y", "width", "height")


class UnusableBoxes(ValueError):
    """What came in is neither boxes nor elements."""

    def __init__(self, what: str):
        super().__init__(
            f"bboxes cannot be used: {what}. Give boxes (x, y, width, height), elements (bbox, desc), "
            "or a JSON text of either."
        )


def _is_element(box: dict[str, Any]) -> bool:
    return "bbox" in box


def _box_of_element(element: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    try:
        top, left, bottom, right = (float(side) / GRID for side in element["bbox"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableBoxes(f"an element has no 'bbox' of four numbers: {element!r}") from error
    is_text = element.get("type") == "text"
    return {
        "x": round(min(left, right) * width),
        "y": round(min(top, bottom) * height),
        "width": round(abs(right - left) * width),
        "height": round(abs(bottom - top) * height),
        "metadata": {
            "type": "text" if is_text else "obj",
            "text": element.get("text", "") if is_text else "",
            "desc": element.get("desc", ""),
            "palette": element.get("color_palette") or [],
        },
    }


def _plain(box: dict[str, Any]) -> dict[str, Any]:
    plain = {side: box.get(side, 0) for side in _SIDES}
    metadata = box.get("metadata")
    return {**plain, "metadata": metadata} if isinstance(metadata, dict) else plain


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UnusableBoxes(f"the text is no JSON ({error})") from error


def parsed(data: Any, width: int, height: int) -> list[dict[str, Any]]:
    """Boxes of boxes, elements, JSON, or of the first of several frames. UnusableBoxes for anything else.

    None and an empty text are no boxes.
    """
    if isinstance(data, str):
        data = _from_json(data) if data.strip() else None
    if data is None or data == []:
        return []
    found = [data] if isinstance(data, dict) else data
    if not isinstance(found, list):
        raise UnusableBoxes(f"it is a {type(data).__name__}")
    if isinstance(found[0], list):
        found = found[0]
    boxes = [box for box in found if isinstance(box, dict)]
    if found and not boxes:
        raise UnusableBoxes(f"it is a list of {type(found[0]).__name__}")
    if any(_is_element(box) for box in boxes):
        return [_box_of_element(box, width, height) for box in boxes]
    if any(side not in box for box in boxes[:1] for side in _SIDES):
        raise UnusableBoxes(f"a box has no {' or '.join(side for side in _SIDES if side not in boxes[0])}")
    return [_plain(box) for box in boxes]


def regions_of(boxes: Any, width: int, height: int) -> list[dict[str, Any]]:
    """Boxes as regions of a canvas; what is no box is left out."""
    regions = []
    for box in boxes if isinstance(boxes, list) else []:
        if not isinstance(box, dict):
            continue
        metadata = box["metadata"] if isinstance(box.get("metadata"), dict) else {}
        regions.append({
            "x": box.get("x", 0) / width,
            "y": box.get("y", 0) / height,
            "w": box.get("width", 0) / width,
            "h": box.get("height", 0) / height,
            "type": metadata.get("type", "obj"),
            "text": metadata.get("text", ""),
            "desc": metadata.get("desc", ""),
            "palette": metadata.get("palette", []),
        })  # fmt: skip
    return regions


def _span(start: float, length: float) -> tuple[float, float]:
    """(start, end), also of a box that was drawn backwards."""
    return min(start, start + length), max(start, start + length)


def frame_of(regions: list[dict[str, Any]], width: int, height: int) -> list[dict[str, int]]:
    """Regions as boxes without descriptions."""
    frame = []
    for region in regions:
        left, right = _span(region["x"], region["w"])
        top, bottom = _span(region["y"], region["h"])
        sides = (left * width, top * height, (right - left) * width, (bottom - top) * height)
        frame.append(dict(zip(_SIDES, map(round, sides))))
    return frame


def palette_of(region: dict[str, Any]) -> list[str]:
    """Colours of a region as "#RRGGBB"."""
    colors = region.get("palette") or []
    colors = colors.values() if isinstance(colors, dict) else colors
    return [color.upper() for color in colors if isinstance(color, str) and color]


def elements_of(regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Regions as elements."""

    def on_grid(value):
        return max(0, min(GRID, round(value * GRID)))

    elements = []
    for region in regions:
        left, right = map(on_grid, _span(region["x"], region["w"]))
        top, bottom = map(on_grid, _span(region["y"], region["h"]))
        is_text = region["type"] == "text"
        element = {"type": "text" if is_text else "obj", "bbox": [top, left, bottom, right]}
        if is_text:
            element["text"] = region["text"]
        element["desc"] = region["desc"]
        if colors := palette_of(region)[:_COLORS_OF_AN_ELEMENT]:
            element["color_palette"] = colors
        elements.append(element)
    return elements

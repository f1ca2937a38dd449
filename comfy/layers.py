"""Pictures made of layers: documents that nodes build, states that the editor saves, and what they show.

A document is {"version": 1, "layers": [item, ...], "canvas": (width, height)}; an item holds a batch of
pictures and their common place. Each picture becomes a `Layer`. The editor's state may place the same layers
anew; it counts as long as the layers are those that it was made with.
"""

import dataclasses
import hashlib
import json
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from comfy.color_spaces import parse_hex
from comfy.layer_blending import MODES, blended, to_linear, to_srgb

MAX_LAYERS = 50
LARGEST = 16384  # pixels of a side, and of a distance
VERSION = 1


class UnusableLayers(ValueError):
    """A document that cannot be shown."""


@dataclasses.dataclass
class Layer:
    """A picture and how it lies on those below; `rotation` in radians, clockwise."""

    picture: torch.Tensor  # (H, W, 3 or 4)
    mask: torch.Tensor | None  # (H, W), 1 where it is transparent
    name: str | None
    x: float
    y: float
    width: float
    height: float
    rotation: float
    opacity: float
    blend: str
    visible: bool
    flip_h: bool
    flip_v: bool

    def alpha(self) -> torch.Tensor | None:
        """Opacity (H, W) of its pixels; None if all of them are opaque."""
        own = self.picture[..., 3] if self.picture.shape[-1] == 4 else None
        if self.mask is None:
            return own
        size = tuple(self.picture.shape[:2])
        mask = self.mask.to(self.picture.device, torch.float32)
        if tuple(mask.shape) != size:
            mask = torch.nn.functional.interpolate(mask[None, None], size=size, mode="bilinear")[0, 0]
        shown = (1 - mask).clamp(0, 1)
        return shown if own is None else own * shown

    def pixels(self) -> np.ndarray:
        """8 bits per channel, (H, W, 3), or (H, W, 4) if it has transparency."""
        alpha = self.alpha()
        values = self.picture[..., :3].detach().float().cpu()
        if alpha is not None:
            values = torch.cat((values, alpha[..., None].detach().float().cpu()), dim=-1)
        return np.clip(np.rint(values.numpy() * 255), 0, 255).astype(np.uint8)

    def fingerprint(self) -> str:
        """Equal for equal pixels that the document puts at the same place. ComfyUI saves the same values."""
        place = (self.x, self.y, self.width, self.height, self.rotation, self.opacity, self.blend)
        pixels = self.pixels()
        digest = hashlib.sha256(repr((1, *self.picture.shape)).encode())
        digest.update(pixels[..., :3].tobytes())
        digest.update(pixels[..., 3:].tobytes())
        digest.update(repr((*place, self.visible, self.flip_h, self.flip_v)).encode())
        return digest.hexdigest()[:16]

    def told(self) -> dict[str, Any]:
        """What the editor begins with."""
        return {
            "x": self.x, "y": self.y, "width": int(self.width), "height": int(self.height),
            "rotation": self.rotation, "name": self.name, "visible": self.visible, "opacity": self.opacity,
            "blend": self.blend, "flipH": self.flip_h, "flipV": self.flip_v,
        }  # fmt: skip


# --- documents --------------------------------------------------------------------------------------------


def _number(value: Any, default: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else default


def whole(value: Any, default: int = 0) -> int:
    """The value as a whole number; the default for what is no number."""
    return int(_number(value, default))


def _clamped(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def items_of(document: Any) -> list[dict[str, Any]]:
    """The items of a document from the back to the front. UnusableLayers for kinds that are not known."""
    if not isinstance(document, dict):
        return []
    if document.get("version", VERSION) != VERSION:
        raise UnusableLayers(
            f"The layers have version {document['version']!r}, not {VERSION}. Make them again (Add Layer)."
        )
    items = [item for item in document.get("layers") or [] if isinstance(item, dict)]
    for item in items:
        kind, blend = item.get("type", "raster"), item.get("blend_mode") or "normal"
        if kind != "raster":
            raise UnusableLayers(
                f"There is a layer of type {kind!r}. Only pictures (raster) can be composed."
            )
        if blend not in MODES:
            raise UnusableLayers(f"There is no blend mode {blend!r}. There are: {', '.join(MODES)}.")
    items = [item for item in items if isinstance(item.get("image"), torch.Tensor)]
    return sorted(items, key=lambda item: whole(item.get("z_index")))


def canvas_of(document: Any) -> tuple[int, int] | None:
    """(width, height) that a document names."""
    canvas = document.get("canvas") if isinstance(document, dict) else None
    if not isinstance(canvas, (tuple, list)) or len(canvas) != 2:
        return None
    width, height = map(whole, canvas)
    return (width, height) if width > 0 and height > 0 else None


def mask_of(mask: Any, index: int) -> torch.Tensor | None:
    """The mask of one picture of a batch; a single mask is that of all."""
    if not isinstance(mask, torch.Tensor):
        return None
    index = 0 if mask.shape[0] == 1 else index
    return mask[index] if index < mask.shape[0] else None


def layers_of(document: Any) -> list[Layer]:
    """A layer for each picture of each item. UnusableLayers if there are too many."""
    layers = []
    for item in items_of(document):
        for index, picture in enumerate(item["image"]):
            height, width = picture.shape[:2]
            layers.append(
                Layer(
                    picture=picture,
                    mask=mask_of(item.get("mask"), index),
                    name=item["name"] if isinstance(item.get("name"), str) else None,
                    x=whole(item.get("x")),
                    y=whole(item.get("y")),
                    width=max(0, whole(item.get("w"))) or width,
                    height=max(0, whole(item.get("h"))) or height,
                    rotation=float(_number(item.get("rotation"), 0.0)),
                    opacity=_clamped(_number(item.get("opacity"), 1.0), 0.0, 1.0),
                    blend=item.get("blend_mode") or "normal",
                    visible=bool(item.get("visible", True)),
                    flip_h=bool(item.get("flip_h", False)),
                    flip_v=bool(item.get("flip_v", False)),
                )
            )
    if len(layers) > MAX_LAYERS:
        raise UnusableLayers(
            f"There are {len(layers)} layers, and {MAX_LAYERS} can be composed. Leave some out."
        )
    return layers


# --- the editor's state -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Composition:
    """Layers from the back to the front on a canvas (width, height), before a colour or nothing."""

    canvas: tuple[int, int]
    layers: list[Layer]
    background: tuple[tuple[float, float, float], float] | None = None  # colour, opacity


def _moved(layer: Layer, entry: Any) -> Layer:
    """The layer as an entry of the state places it. Clients send states: nothing in them is trusted."""
    entry = entry if isinstance(entry, dict) else {}
    place = entry.get("transform") if isinstance(entry.get("transform"), dict) else {}
    rows, columns = layer.picture.shape[:2]
    size = {}
    for side, key, natural in (("width", "w", columns), ("height", "h", rows)):
        length = float(_number(place.get(key), natural))
        size[side] = min(length, LARGEST) if length > 0 else float(natural)
    return dataclasses.replace(
        layer,
        x=_clamped(float(_number(place.get("x"), 0.0)), -LARGEST, LARGEST),
        y=_clamped(float(_number(place.get("y"), 0.0)), -LARGEST, LARGEST),
        rotation=float(_number(place.get("rotation"), 0.0)),
        opacity=_clamped(_number(entry.get("opacity"), 1.0), 0.0, 1.0),
        blend=entry["blend"] if isinstance(entry.get("blend"), str) else "normal",
        visible=bool(entry.get("visible", True)),
        flip_h=bool(entry.get("flipH", False)),
        flip_v=bool(entry.get("flipV", False)),
        **size,
    )


def _background(entry: Any):
    if not isinstance(entry, dict) or not entry.get("visible", True):
        return None
    color = entry.get("color") if isinstance(entry.get("color"), str) else ""
    digits = color.strip().lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    opacity = _clamped(_number(entry.get("opacity"), 1.0), 0.0, 1.0)
    return parse_hex(digits) or (1.0, 1.0, 1.0), opacity


def state_from(raw: Any) -> dict[str, Any] | None:
    """The editor's state, a dictionary or JSON; None for what is none."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError:
            return None
    return raw if isinstance(raw, dict) and raw else None


def composition_of(state: dict[str, Any] | None, layers: list[Layer]) -> Composition | None:
    """The composition that a state keeps of these layers; None if it is of other ones, or damaged."""
    if state is None or state.get("version", VERSION) != VERSION:
        return None
    canvas, entries = state.get("canvas"), state.get("layers")
    if not isinstance(canvas, dict) or not isinstance(entries, list):
        return None
    width, height = (round(_number(canvas.get(side), 0)) for side in ("w", "h"))
    is_same = state.get("inputs") == [layer.fingerprint() for layer in layers]
    if not is_same or len(entries) != len(layers) or width <= 0 or height <= 0:
        return None
    order, numbers = state.get("order"), list(range(len(layers)))
    is_order = isinstance(order, list) and all(type(one) is int for one in order) and sorted(order) == numbers
    moved = [_moved(layer, entry) for layer, entry in zip(layers, entries)]
    ordered = [moved[number] for number in (order if is_order else numbers)]
    return Composition((width, height), ordered, _background(state.get("background")))


def initial(document: Any, layers: list[Layer]) -> Composition:
    """The composition of a document. Without a canvas it reaches as far as its layers."""
    right, bottom = 1, 1
    for layer in layers:
        x, y, width, height = bounds(layer)
        right, bottom = max(right, x + width), max(bottom, y + height)
    return Composition(canvas_of(document) or (right, bottom), layers)


# --- what it shows ----------------------------------------------------------------------------------------


def bounds(layer: Layer) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the upright rectangle around a turned layer."""
    sine, cosine = math.sin(layer.rotation), math.cos(layer.rotation)
    sides = ((-layer.width / 2, layer.width / 2), (-layer.height / 2, layer.height / 2))
    corners = [(across, down) for across in sides[0] for down in sides[1]]
    xs = [layer.x + layer.width / 2 + across * cosine - down * sine for across, down in corners]
    ys = [layer.y + layer.height / 2 + across * sine + down * cosine for across, down in corners]
    x, y = math.floor(min(xs)), math.floor(min(ys))
    return x, y, max(1, math.ceil(max(xs)) - x), max(1, math.ceil(max(ys)) - y)


def _bitmap(layer: Layer) -> Image.Image:
    """The layer mirrored, scaled and turned."""
    picture = Image.fromarray(layer.pixels()).convert("RGBA")
    if layer.flip_h:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if layer.flip_v:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    size = max(1, round(layer.width)), max(1, round(layer.height))
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    if layer.rotation:
        degrees = -math.degrees(layer.rotation)
        picture = picture.rotate(degrees, expand=True, resample=Image.Resampling.BICUBIC, fillcolor=(0,) * 4)
    return picture


def _laid(canvas: np.ndarray, layer: Layer) -> None:
    """Blend a layer into the canvas (H, W, 4), what reaches beyond is cut."""
    bitmap = _bitmap(layer)
    x, y, width, height = bounds(layer)
    # Pillow's turned picture may be a pixel larger or smaller than the bounds: it is centred in them.
    x_of_bitmap, y_of_bitmap = x + (width - bitmap.width) // 2, y + (height - bitmap.height) // 2
    left, top = max(x, x_of_bitmap, 0), max(y, y_of_bitmap, 0)
    right = min(x + width, x_of_bitmap + bitmap.width, canvas.shape[1])
    bottom = min(y + height, y_of_bitmap + bitmap.height, canvas.shape[0])
    if left >= right or top >= bottom:
        return
    box = (left - x_of_bitmap, top - y_of_bitmap, right - x_of_bitmap, bottom - y_of_bitmap)
    pixels = np.asarray(bitmap.crop(box), dtype=np.float32) / 255
    above = np.concatenate((to_linear(pixels[..., :3]), pixels[..., 3:]), axis=-1)
    region = canvas[top:bottom, left:right]
    region[:] = blended(layer.blend, region, above, layer.opacity)


def composed(composition: Composition) -> torch.Tensor:
    """The picture (1, H, W, 4). UnusableLayers for a canvas that is too large."""
    width, height = composition.canvas
    if max(width, height) > LARGEST:
        raise UnusableLayers(f"The canvas is {width} x {height}; {LARGEST} pixels a side are the most.")
    canvas = np.zeros((height, width, 4), dtype=np.float32)
    if composition.background is not None:
        color, opacity = composition.background
        ground = np.empty_like(canvas)
        ground[..., :3], ground[..., 3] = to_linear(np.float32(color)), 1
        canvas = blended("normal", canvas, ground, opacity)
    for layer in composition.layers:
        if layer.visible:
            _laid(canvas, layer)
    canvas = np.clip(canvas, 0, 1)
    return torch.from_numpy(np.concatenate((to_srgb(canvas[..., :3]), canvas[..., 3:]), axis=-1))[None]

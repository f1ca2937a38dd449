"""The node that resizes pictures and masks in every way. `nodes_post_processing` registers it."""

from __future__ import annotations

import math
from enum import Enum

from comfy_api.latest import io
from comfy_extras.core_images import IMAGE_SCALING
from comfy_extras.core_inputs import MAX_RESOLUTION


class ResizeType(str, Enum):
    """What the new size follows from."""

    SCALE_BY = "scale by multiplier"
    SCALE_DIMENSIONS = "scale dimensions"
    SCALE_LONGER_DIMENSION = "scale longer dimension"
    SCALE_SHORTER_DIMENSION = "scale shorter dimension"
    SCALE_WIDTH = "scale width"
    SCALE_HEIGHT = "scale height"
    SCALE_TOTAL_PIXELS = "scale total pixels"
    MATCH_SIZE = "match size"
    SCALE_TO_MULTIPLE = "scale to multiple"


def scaled(pixels, width, height, method, crop="disabled"):
    """Pictures (B, H, W, C) or masks (B, H, W) in another size."""
    import comfy.utils

    is_mask = pixels.ndim == 3
    channels_first = pixels.unsqueeze(1) if is_mask else pixels.movedim(-1, 1)
    out = comfy.utils.common_upscale(channels_first, width, height, method, crop)
    return out.squeeze(1) if is_mask else out.movedim(1, -1)


def _by(width, height, factor):
    return max(1, round(width * factor)), max(1, round(height * factor))


def _given(width, height, wanted_width, wanted_height):
    """Lengths of which 0 means: keep the proportions, or the size if both are 0."""
    if not wanted_width and not wanted_height:
        return width, height
    return (
        wanted_width or max(1, round(width * wanted_height / height)),
        wanted_height or max(1, round(height * wanted_width / width)),
    )


def _side(width, height, side, wanted, name):
    """The size in which `side`, the width or the height, is as wanted."""
    if wanted < 1:
        raise ValueError(f"{name} is {wanted}. Set a length in pixels, 1 or more.")
    return tuple(wanted if one == side else max(1, round(one / side * wanted)) for one in (width, height))


def _target(how, width, height):
    """(width, height) that are asked for."""
    kind = ResizeType(how["resize_type"])
    if kind == ResizeType.SCALE_BY:
        return _by(width, height, how["multiplier"])
    if kind == ResizeType.SCALE_LONGER_DIMENSION:
        return _side(width, height, max(width, height), how["longer_size"], "longer_size")
    if kind == ResizeType.SCALE_SHORTER_DIMENSION:
        return _side(width, height, min(width, height), how["shorter_size"], "shorter_size")
    if kind == ResizeType.SCALE_TOTAL_PIXELS:
        return _by(width, height, math.sqrt(int(how["megapixels"] * 1024 * 1024) / (width * height)))
    if kind == ResizeType.MATCH_SIZE:
        return how["match"].shape[2], how["match"].shape[1]
    return _given(width, height, how.get("width", 0), how.get("height", 0))


def _divisible(pixels, multiple, method):
    """Sides that are the next lower multiples: scaled to cover that size, the rest cut off at both ends."""
    height, width = pixels.shape[1:3]
    new_width, new_height = width // multiple * multiple, height // multiple * multiple
    if 0 in (new_width, new_height) or (new_width, new_height) == (width, height):
        return pixels
    across, down = new_width / width, new_height / height
    if across >= down:
        size = new_width, max(new_height, math.ceil(height * across))
    else:
        size = max(new_width, math.ceil(width * down)), new_height
    x, y = (size[0] - new_width) // 2, (size[1] - new_height) // 2
    return scaled(pixels, *size, method)[:, y : y + new_height, x : x + new_width]


def resized(pixels, how, method):
    """Pictures or masks as a choice of the node says."""
    if how["resize_type"] == ResizeType.SCALE_TO_MULTIPLE:
        return _divisible(pixels, how["multiple"], method)
    height, width = pixels.shape[1:3]
    return scaled(pixels, *_target(how, width, height), method, how.get("crop", "disabled"))


def _length(name, default=512, low=0, tooltip=None):
    return io.Int.Input(name, default=default, min=low, max=MAX_RESOLUTION, step=1, tooltip=tooltip)


def _choices(crop_methods):
    """Each way with the inputs that it needs."""
    crop = io.Combo.Input(
        "crop", options=crop_methods, default="center",
        tooltip="When the proportions differ: cut what is over (center), or stretch (disabled).",
    )  # fmt: skip
    keep = "0 keeps the proportions."
    megapixels = io.Float.Input(
        "megapixels", default=1.0, min=0.01, max=16.0, step=0.01, tooltip="Of 1024 x 1024 pixels."
    )
    inputs = {
        ResizeType.SCALE_DIMENSIONS: [_length("width", tooltip=keep), _length("height", tooltip=keep), crop],
        ResizeType.SCALE_BY: [io.Float.Input("multiplier", default=1.0, min=0.01, max=8.0, step=0.01)],
        ResizeType.SCALE_LONGER_DIMENSION: [_length("longer_size")],
        ResizeType.SCALE_SHORTER_DIMENSION: [_length("shorter_size")],
        ResizeType.SCALE_WIDTH: [_length("width")],
        ResizeType.SCALE_HEIGHT: [_length("height")],
        ResizeType.SCALE_TOTAL_PIXELS: [megapixels],
        ResizeType.MATCH_SIZE: [io.MultiType.Input("match", [io.Image, io.Mask]), crop],
        ResizeType.SCALE_TO_MULTIPLE: [_length("multiple", 8, 1, "Sides become divisible by this.")],
    }
    return [io.DynamicCombo.Option(kind.value, list(own)) for kind, own in inputs.items()]


class ResizeImageMaskNode(io.ComfyNode):
    """Pictures and masks in another size."""

    scale_methods = IMAGE_SCALING
    crop_methods = ["disabled", "center"]

    @classmethod
    def define_schema(cls):
        template = io.MatchType.Template("input_type", [io.Image, io.Mask])
        return io.Schema(
            node_id="ResizeImageMaskNode",
            display_name="Resize Image/Mask",
            category="image/transform",
            description="Resizes pictures or masks: to a size, by a factor, to an area, or like others.",
            search_aliases=[
                "resize",
                "resize image",
                "resize mask",
                "scale",
                "scale image",
                "scale mask",
                "image resize",
                "change size",
                "dimensions",
                "shrink",
                "enlarge",
            ],
            inputs=[
                io.MatchType.Input("input", template=template),
                io.DynamicCombo.Input(
                    "resize_type",
                    options=_choices(cls.crop_methods),
                    tooltip="What the new size follows from.",
                ),
                io.Combo.Input(
                    "scale_method",
                    options=cls.scale_methods,
                    default="area",
                    tooltip="area to make smaller, lanczos to make larger, nearest-exact for pixel art.",
                ),
            ],
            outputs=[io.MatchType.Output(template=template, display_name="resized")],
        )

    @classmethod
    def execute(cls, input, scale_method, resize_type):
        return io.NodeOutput(resized(input, resize_type, scale_method))

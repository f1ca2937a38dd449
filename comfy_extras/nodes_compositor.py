"""Pictures of layers: stacks that nodes build, and that an editor arranges."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io, ui
from comfy_extras.core_inputs import MAX_RESOLUTION

_NEARLY_OPAQUE = 1 - 1e-3

# In the order of the menu; comfy.layer_blending, which is imported late, computes them.
BLEND_MODES = (
    "normal", "multiply", "screen", "overlay", "darken", "lighten", "color-dodge", "color-burn", "hard-light",
    "soft-light", "difference", "exclusion", "linear-dodge", "linear-burn", "vivid-light", "pin-light",
    "linear-light", "hard-mix", "subtract", "divide", "grain-extract", "grain-merge", "hue", "saturation",
    "color", "luminosity",
)  # fmt: skip


def _with_mask(picture):
    """(picture, mask): transparency stays in the picture only where there is some."""
    import torch

    alpha = picture[..., 3]
    if bool((alpha >= _NEARLY_OPAQUE).all()):
        return picture[..., :3], torch.zeros_like(alpha)
    return picture, (1 - alpha).clamp(0, 1)


def _picture_files(layers, cls):
    """The layers as files for the editor."""
    import torch

    files = []
    for layer in layers:
        pixels = torch.from_numpy(layer.pixels()).float() / 255
        files += ui.PreviewImage(pixels[None], cls=cls).values
    return files


class ImageCompositor(io.ComfyNode):
    """The picture of a stack of layers."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageCompositor",
            display_name="Create Layered Image",
            category="image",
            description="Composes layers to a picture, as they come or as you arranged them in the editor.",
            search_aliases=["compositor", "composite", "layer", "layers", "layer editor", "psd"],
            inputs=[
                io.Layers.Input("layers", tooltip="The layers, made with Add Layer."),
                io.Compositor.Input(
                    "compositor",
                    tooltip="What the editor saved; it counts as long as the layers are the same.",
                ),
            ],
            outputs=[io.Image.Output(), io.Mask.Output()],
            is_output_node=True,
            is_experimental=True,
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, layers, compositor=None):
        import torch

        from comfy.layers import composed, composition_of, initial, layers_of, state_from

        stack, state = layers_of(layers), state_from(compositor)
        arranged = composition_of(state, stack) if stack else None
        picture, mask = torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 64)
        if stack:
            picture, mask = _with_mask(composed(arranged or initial(layers, stack)))
        shown = {
            **ui.PreviewImage(picture, cls=cls).as_dict(),
            "compositor_layers": _picture_files(stack, cls),
            "compositor_inputs": [layer.fingerprint() for layer in stack],
            "compositor_bboxes": [layer.told() for layer in stack],
        }
        if state is not None and arranged is None:
            shown["compositor_state_stale"] = [True]
        return io.NodeOutput(picture, mask, ui=shown)


def _appended(layers, items, canvas=None):
    """The document with further items, and with a canvas if it or the old one names one."""
    from comfy.layers import canvas_of

    before = layers if isinstance(layers, dict) else {}
    document = {"version": 1, "layers": [*(before.get("layers") or []), *items]}
    canvas = canvas or canvas_of(before)
    return {**document, "canvas": canvas} if canvas else document


def _place(name):
    return io.Int.Input(name, default=0, min=-MAX_RESOLUTION, max=MAX_RESOLUTION, optional=True)


def _side(name):
    tooltip = "0 is that of the picture."
    return io.Int.Input(name, default=0, min=0, max=MAX_RESOLUTION, optional=True, tooltip=tooltip)


class AddLayer(io.ComfyNode):
    """One more layer."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AddLayer",
            display_name="Add Layer",
            category="image",
            description="Puts pictures on a stack of layers.",
            inputs=[
                io.Layers.Input(
                    "layers", optional=True, tooltip="The stack to put it on; without one a new stack begins."
                ),
                io.Image.Input("image", tooltip="The pictures; each of a batch becomes a layer."),
                io.Mask.Input("mask", optional=True, tooltip="1 where the layer is transparent."),
                io.String.Input("name", default="", optional=True, tooltip="Its name in the editor."),
                _place("x"),
                _place("y"),
                io.Float.Input("opacity", default=1.0, min=0.0, max=1.0, step=0.01, optional=True),
                io.Combo.Input(
                    "blend_mode",
                    options=list(BLEND_MODES),
                    default="normal",
                    optional=True,
                    tooltip="How it is mixed with the layers below.",
                ),
                io.Float.Input(
                    "rotation",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=1.0,
                    optional=True,
                    tooltip="In degrees, clockwise.",
                ),
                _side("width"),
                _side("height"),
                io.Int.Input(
                    "z_index",
                    default=0,
                    min=-1000,
                    max=1000,
                    optional=True,
                    tooltip="Layers with higher numbers lie above the others.",
                ),
                io.Boolean.Input("flip_h", default=False, optional=True),
                io.Boolean.Input("flip_v", default=False, optional=True),
            ],
            outputs=[io.Layers.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls, image, layers=None, mask=None, name="", x=0, y=0, opacity=1.0, blend_mode="normal", rotation=0.0,
        width=0, height=0, z_index=0, flip_h=False, flip_v=False,
    ):  # fmt: skip
        optional = {
            "mask": mask,
            "name": name or None,
            "opacity": None if opacity == 1.0 else float(opacity),
            "blend_mode": None if blend_mode == "normal" else blend_mode,
            "rotation": math.radians(rotation) or None,
            "w": width or None,
            "h": height or None,
            "flip_h": flip_h or None,
            "flip_v": flip_v or None,
        }
        item = {"image": image, "type": "raster", "x": int(x), "y": int(y), "z_index": int(z_index)}
        item |= {key: value for key, value in optional.items() if value is not None}
        return io.NodeOutput(_appended(layers, [item]))


def _content_rect(metadata, height, width):
    """(left, top, right, bottom) of what is more than padding; None if the box does not say."""
    from comfy.layers import whole

    rect = metadata.get("content_rect")
    if not isinstance(rect, (list, tuple)) or len(rect) != 4:
        return None
    left, top, columns, rows = map(whole, rect)
    left, top = min(max(left, 0), width), min(max(top, 0), height)
    right, bottom = min(left + max(columns, 0), width), min(top + max(rows, 0), height)
    return (left, top, right, bottom) if right > left and bottom > top else None


def _placed(picture, mask, box, z_index, crop):
    """One picture (1, H, W, C) as an item at its box."""
    from comfy.layers import whole

    metadata = box["metadata"] if isinstance(box.get("metadata"), dict) else {}
    x, y = whole(box.get("x")), whole(box.get("y"))
    rect = _content_rect(metadata, *picture.shape[1:3]) if crop else None
    size = {} if rect else {"w": whole(box.get("width")), "h": whole(box.get("height"))}
    if rect is not None:
        left, top, right, bottom = rect
        picture = picture[:, top:bottom, left:right]
        mask = None if mask is None else mask[:, top:bottom, left:right]
        x, y = x + left, y + top
    item = {
        "image": picture,
        "type": "raster",
        "x": x,
        "y": y,
        "z_index": whole(metadata.get("z_index"), z_index),
    }
    item |= {key: length for key, length in size.items() if length > 0}
    names = [metadata.get(key) for key in ("name", "desc")]
    named = [name for name in names if isinstance(name, str) and name]
    item |= {"name": named[0]} if named else {}
    return item if mask is None else {**item, "mask": mask}


def _boxes(bboxes, width, height):
    """Boxes in pixels. ValueError for elements, whose places are parts of a canvas, without a canvas."""
    from comfy.boxes import parsed

    boxes = parsed(bboxes, width, height)
    if 0 in (width, height) and boxes != parsed(bboxes, 1000, 1000):
        raise ValueError(
            "The boxes are parts of a canvas (elements), and its size is not known. "
            "Set canvas_width and canvas_height."
        )
    return boxes


class LayersFromBoundingBoxes(io.ComfyNode):
    """The pictures of a batch, each at its own box."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LayersFromBoundingBoxes",
            display_name="Layers From Bounding Boxes",
            category="image",
            description="Makes a layer of each picture of a batch, and puts it where its box is.",
            inputs=[
                io.Image.Input("image", tooltip="A layer for each picture."),
                io.MultiType.Input(
                    "bboxes",
                    [io.BoundingBox, io.Array, io.String],
                    tooltip="Boxes in pixels, elements or JSON, in the order of the pictures.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="1 where a layer is transparent; one for each picture."
                ),
                io.Layers.Input(
                    "layers",
                    optional=True,
                    tooltip="The stack to put them on; without one a new stack begins.",
                ),
                io.Boolean.Input(
                    "crop_to_content",
                    default=True,
                    optional=True,
                    tooltip="Cut off the padding, where a box says what is content (content_rect).",
                ),
                io.Int.Input(
                    "canvas_width",
                    default=0,
                    min=0,
                    max=MAX_RESOLUTION,
                    optional=True,
                    tooltip="0 reaches as far as the layers.",
                ),
                io.Int.Input(
                    "canvas_height",
                    default=0,
                    min=0,
                    max=MAX_RESOLUTION,
                    optional=True,
                    tooltip="0 reaches as far as the layers.",
                ),
            ],
            outputs=[io.Layers.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls, image, bboxes, mask=None, layers=None, crop_to_content=True, canvas_width=0, canvas_height=0
    ):
        from comfy.layers import mask_of, whole

        boxes = _boxes(bboxes, canvas_width, canvas_height)
        before = (layers.get("layers") or []) if isinstance(layers, dict) else []
        highest = max((whole(item.get("z_index")) for item in before), default=-1)
        items = []
        for index in range(len(image)):
            own_mask = mask_of(mask, index)
            own_mask = None if own_mask is None else own_mask[None]
            box = boxes[index] if index < len(boxes) else {}
            picture = image[index : index + 1]
            items.append(_placed(picture, own_mask, box, highest + 1 + index, crop_to_content))
        canvas = (canvas_width, canvas_height) if canvas_width > 0 and canvas_height > 0 else None
        return io.NodeOutput(_appended(layers, items, canvas))


class CompositorExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [ImageCompositor, AddLayer, LayersFromBoundingBoxes]


def comfy_entrypoint():
    return CompositorExtension()

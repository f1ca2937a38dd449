"""Masks made, changed and joined, and pictures and latents pasted through them."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io, ui
from comfy_extras.core_inputs import MAX_RESOLUTION, PIXELS_PER_LATENT

CHANNELS = ["red", "green", "blue", "alpha"]


def _pixels(name, tooltip=None):
    return io.Int.Input(name, default=0, min=0, max=MAX_RESOLUTION, step=1, tooltip=tooltip)


def _batched(mask):
    """A mask (..., H, W) as (B, H, W)."""
    return mask.reshape(-1, *mask.shape[-2:])


def composite(destination, source, x, y, mask=None, multiplier=8, resize_source=False):
    """`destination` (B, C, ..., H, W), changed in place: `source` is laid on it with its corner at (x, y).

    x and y count `multiplier` units per element and may be negative; what lies outside is cut. `mask`
    (..., H, W) says where the source is seen, in any size.
    """
    import torch

    import comfy.utils

    source = source.to(destination.device)
    if resize_source:
        height, width = destination.shape[-2:]
        source = comfy.utils.common_upscale(source, width, height, "bilinear", "disabled")
    source = comfy.utils.repeat_to_batch_size(source, destination.shape[0])
    rows, columns = source.shape[-2:]
    left, top = x // multiplier, y // multiplier
    right, bottom = min(left + columns, destination.shape[-1]), min(top + rows, destination.shape[-2])
    if max(left, 0) >= right or max(top, 0) >= bottom:
        return destination
    visible = (..., slice(max(top, 0) - top, bottom - top), slice(max(left, 0) - left, right - left))
    region = (..., slice(max(top, 0), bottom), slice(max(left, 0), right))
    weight = torch.ones_like(source[:, :1])
    if mask is not None:
        mask = mask.to(destination.device).reshape(-1, 1, *mask.shape[-2:])
        mask = torch.nn.functional.interpolate(mask, size=(rows, columns), mode="bilinear")
        mask = comfy.utils.repeat_to_batch_size(mask, source.shape[0])
        weight = mask.reshape(mask.shape[0], *[1] * (source.ndim - 3), rows, columns)
    weight = weight[visible]
    destination[region] = weight * source[visible] + (1 - weight) * destination[region]
    return destination


class LatentCompositeMasked(io.ComfyNode):
    """A latent pasted onto another."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LatentCompositeMasked",
            display_name="Latent Composite Masked",
            category="model/latent",
            description="Pastes a latent onto another, where a mask is set.",
            search_aliases=["overlay latent", "layer latent", "paste latent", "inpaint latent"],
            inputs=[
                io.Latent.Input("destination"),
                io.Latent.Input("source"),
                io.Int.Input(
                    "x",
                    default=0,
                    min=0,
                    max=MAX_RESOLUTION,
                    step=8,
                    tooltip="Distance from the left in pixels.",
                ),
                io.Int.Input(
                    "y",
                    default=0,
                    min=0,
                    max=MAX_RESOLUTION,
                    step=8,
                    tooltip="Distance from the top in pixels.",
                ),
                io.Boolean.Input("resize_source", default=False),
                io.Mask.Input("mask", optional=True),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, destination, source, x, y, resize_source, mask=None):
        samples = destination["samples"].clone()
        pasted = composite(samples, source["samples"], x, y, mask, PIXELS_PER_LATENT, resize_source)
        return io.NodeOutput({**destination, "samples": pasted})

    composite = execute  # the name that node packs call


class ImageCompositeMasked(io.ComfyNode):
    """A picture pasted onto another."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageCompositeMasked",
            display_name="Image Composite Masked",
            category="image/compositing",
            description="Pastes pictures onto others, where a mask is set.",
            search_aliases=["overlay", "layer", "paste image", "images composition"],
            inputs=[
                io.Image.Input("destination"),
                io.Image.Input("source"),
                _pixels("x"),
                _pixels("y"),
                io.Boolean.Input(
                    "resize_source",
                    default=False,
                    tooltip="Stretch the source to the size of the destination first.",
                ),
                io.Mask.Input("mask", optional=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, destination, source, x, y, resize_source, mask=None):
        import node_helpers

        destination, source = node_helpers.image_alpha_fix(destination, source)
        canvas = destination.clone().movedim(-1, 1)
        return io.NodeOutput(
            composite(canvas, source.movedim(-1, 1), x, y, mask, 1, resize_source).movedim(1, -1)
        )

    composite = execute  # the name that node packs call


class MaskToImage(io.ComfyNode):
    """Masks in gray."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskToImage",
            display_name="Convert Mask to Image",
            category="image/mask",
            description="Turns masks into gray pictures.",
            search_aliases=["convert mask"],
            inputs=[
                io.Mask.Input("mask"),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, mask):
        return io.NodeOutput(_batched(mask).unsqueeze(-1).expand(-1, -1, -1, 3))

    mask_to_image = execute  # the name that node packs call


class ImageToMask(io.ComfyNode):
    """One channel of pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageToMask",
            display_name="Convert Image to Mask",
            category="image/mask",
            description="Takes one channel of pictures as a mask.",
            search_aliases=["extract channel", "channel to mask"],
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("channel", options=CHANNELS),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, image, channel):
        index = CHANNELS.index(channel)
        if index >= image.shape[-1]:
            raise ValueError(
                f"The picture has {image.shape[-1]} channels and no {channel} one. Choose another channel, "
                "or give it one (Join Image with Alpha)."
            )
        return io.NodeOutput(image[..., index])

    image_to_mask = execute  # the name that node packs call


class ImageColorToMask(io.ComfyNode):
    """Where pictures have one colour."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageColorToMask",
            display_name="Convert Image Color to Mask",
            category="image/mask",
            description="A mask of the pixels that have exactly this colour (8 bits per channel).",
            search_aliases=["color keying", "chroma key"],
            inputs=[
                io.Image.Input("image"),
                io.Int.Input(
                    "color",
                    default=0,
                    min=0,
                    max=0xFFFFFF,
                    step=1,
                    display_mode=io.NumberDisplay.number,
                    tooltip="red * 65536 + green * 256 + blue.",
                ),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, image, color):
        levels = (image[..., :3].clamp(0, 1) * 255).round().int()
        wanted = levels.new_tensor([color >> shift & 0xFF for shift in (16, 8, 0)])
        return io.NodeOutput((levels == wanted).all(dim=-1).float())

    image_to_mask = execute  # the name that node packs call


class SolidMask(io.ComfyNode):
    """A mask of one value."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SolidMask",
            display_name="Create Solid Mask",
            category="image/mask",
            description="A mask of one value.",
            inputs=[
                io.Float.Input("value", default=1.0, min=0.0, max=1.0, step=0.01),
                io.Int.Input("width", default=512, min=1, max=MAX_RESOLUTION, step=1),
                io.Int.Input("height", default=512, min=1, max=MAX_RESOLUTION, step=1),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, value, width, height):
        import torch

        import comfy.model_management

        device = comfy.model_management.intermediate_device()
        return io.NodeOutput(torch.full((1, height, width), float(value), device=device))

    solid = execute  # the name that node packs call


class InvertMask(io.ComfyNode):
    """Set where it was not."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="InvertMask",
            display_name="Invert Mask",
            category="image/mask",
            description="Turns masks round.",
            search_aliases=["reverse mask", "flip mask"],
            inputs=[
                io.Mask.Input("mask"),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, mask):
        return io.NodeOutput(1.0 - mask)

    invert = execute  # the name that node packs call


class CropMask(io.ComfyNode):
    """A rectangle of masks."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CropMask",
            display_name="Crop Mask",
            category="image/mask",
            description="Cuts a rectangle out of masks.",
            search_aliases=["cut mask", "extract mask region", "mask slice"],
            inputs=[
                io.Mask.Input("mask"),
                _pixels("x"),
                _pixels("y"),
                io.Int.Input("width", default=512, min=1, max=MAX_RESOLUTION, step=1),
                io.Int.Input("height", default=512, min=1, max=MAX_RESOLUTION, step=1),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, mask, x, y, width, height):
        rows, columns = mask.shape[-2:]
        if x >= columns or y >= rows:
            raise ValueError(
                f"The rectangle begins at ({x}, {y}), outside of the mask, which is {columns} x {rows}. "
                "Make x and y smaller."
            )
        return io.NodeOutput(_batched(mask)[:, y : y + height, x : x + width])

    crop = execute  # the name that node packs call


def _logical(operation):
    return lambda first, second: operation(first.round().bool(), second.round().bool()).to(first.dtype)


OPERATIONS = {
    "multiply": lambda first, second: first * second,
    "add": lambda first, second: first + second,
    "subtract": lambda first, second: first - second,
    "and": _logical(lambda first, second: first & second),
    "or": _logical(lambda first, second: first | second),
    "xor": _logical(lambda first, second: first ^ second),
}


class MaskComposite(io.ComfyNode):
    """Arithmetic with masks."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskComposite",
            display_name="Combine Masks",
            category="image/mask",
            description="Combines a mask with another that is laid on it; and, or, xor round to 0 and 1.",
            search_aliases=["combine masks", "blend masks", "layer masks", "masks composition"],
            inputs=[
                io.Mask.Input("destination"),
                io.Mask.Input("source"),
                _pixels("x"),
                _pixels("y"),
                io.Combo.Input("operation", options=list(OPERATIONS)),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, destination, source, x, y, operation):
        out = _batched(destination).clone()
        part = out[:, y : y + source.shape[-2], x : x + source.shape[-1]]
        source = _batched(source).to(out.device)[:, : part.shape[1], : part.shape[2]]
        part.copy_(OPERATIONS[operation](part, source))
        return io.NodeOutput(out.clamp(0, 1))

    combine = execute  # the name that node packs call


class FeatherMask(io.ComfyNode):
    """Masks that fade at their edges."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FeatherMask",
            display_name="Feather Mask",
            category="image/mask",
            description="Fades masks towards the edges of the picture.",
            search_aliases=["soft edge mask", "blur mask edges", "gradient mask edge"],
            inputs=[
                io.Mask.Input("mask"),
                _pixels("left", "Pixels from the left edge on which it fades."),
                _pixels("top"),
                _pixels("right"),
                _pixels("bottom"),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, mask, left, top, right, bottom):
        import torch

        out = _batched(mask).clone()
        for axis, ends in ((-1, (left, right)), (-2, (top, bottom))):
            length = out.shape[axis]
            place = torch.arange(1, length + 1, device=out.device, dtype=out.dtype)
            for ramp, feather in zip((place, place.flip(0)), ends):
                feather = min(feather, length)
                rate = (ramp / feather).clamp(max=1) if feather else torch.ones_like(ramp)
                out *= rate if axis == -1 else rate[:, None]
        return io.NodeOutput(out)

    feather = execute  # the name that node packs call


class GrowMask(io.ComfyNode):
    """Masks that are wider, or narrower."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GrowMask",
            display_name="Grow Mask",
            category="image/mask",
            description="Widens masks by some pixels.",
            search_aliases=["expand mask", "shrink mask"],
            inputs=[
                io.Mask.Input("mask"),
                io.Int.Input(
                    "expand",
                    default=0,
                    min=-MAX_RESOLUTION,
                    max=MAX_RESOLUTION,
                    step=1,
                    tooltip="Pixels; negative ones make masks narrower.",
                ),
                io.Boolean.Input(
                    "tapered_corners",
                    default=True,
                    advanced=True,
                    tooltip="Grow to a diamond, else to a square.",
                ),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, mask, expand, tapered_corners):
        from comfy.picture_filters import grown

        sign = 1 if expand >= 0 else -1  # to shrink is to grow what is not masked
        wide = grown(sign * _batched(mask).unsqueeze(1), abs(expand), tapered=tapered_corners)
        return io.NodeOutput(sign * wide.squeeze(1))

    expand_mask = execute  # the name that node packs call


class ThresholdMask(io.ComfyNode):
    """Masks of 0 and 1."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ThresholdMask",
            display_name="Threshold Mask",
            category="image/mask",
            description="Sets masks to 1 above a value, and to 0 elsewhere.",
            search_aliases=["binary mask"],
            inputs=[
                io.Mask.Input("mask"),
                io.Float.Input("value", default=0.5, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, mask, value):
        return io.NodeOutput((mask > value).float())

    image_to_mask = execute  # the name that node packs call


class MaskPreview(io.ComfyNode):
    """Shows masks."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskPreview",
            display_name="Preview Mask",
            category="image/mask",
            description="Shows masks without keeping files of them.",
            search_aliases=["show mask", "view mask", "inspect mask", "debug mask"],
            inputs=[
                io.Mask.Input("mask"),
            ],
            outputs=[io.Mask.Output(display_name="mask")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, mask, filename_prefix="ComfyUI"):
        return io.NodeOutput(mask, ui=ui.PreviewMask(mask))


class MaskExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            LatentCompositeMasked, ImageCompositeMasked, MaskToImage, ImageToMask, ImageColorToMask,
            SolidMask, InvertMask, CropMask, MaskComposite, FeatherMask, GrowMask, ThresholdMask, MaskPreview,
        ]  # fmt: skip


def comfy_entrypoint():
    return MaskExtension()

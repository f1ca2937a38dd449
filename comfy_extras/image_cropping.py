"""Nodes that cut rectangles and subjects out of pictures. `nodes_images` registers them."""

from __future__ import annotations

from comfy_api.latest import io, ui
from comfy_extras.core_inputs import MAX_RESOLUTION


def _cropped(image, x, y, width, height):
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return image[:, y : y + height, x : x + width]


class ImageCrop(io.ComfyNode):
    """A rectangle of pictures, given by numbers."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageCrop",
            display_name="Crop Image (DEPRECATED)",
            category="image/transform",
            description="Cuts a rectangle out of pictures.",
            search_aliases=["trim"],
            essentials_category="Image Tools",
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("width", default=512, min=1, max=MAX_RESOLUTION, step=1),
                io.Int.Input("height", default=512, min=1, max=MAX_RESOLUTION, step=1),
                io.Int.Input("x", default=0, min=0, max=MAX_RESOLUTION, step=1),
                io.Int.Input("y", default=0, min=0, max=MAX_RESOLUTION, step=1),
            ],
            outputs=[io.Image.Output()],
            is_deprecated=True,
        )

    @classmethod
    def execute(cls, image, width, height, x, y):
        return io.NodeOutput(_cropped(image, x, y, width, height))

    crop = execute  # the name that node packs call


class ImageCropV2(io.ComfyNode):
    """A rectangle of pictures, drawn by hand."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageCropV2",
            display_name="Crop Image",
            category="image/transform",
            description="Cuts out of pictures what lies in a rectangle that you draw.",
            search_aliases=["crop", "cut", "trim"],
            essentials_category="Image Tools",
            inputs=[
                io.Image.Input("image"),
                io.BoundingBox.Input("crop_region", component="ImageCrop"),
            ],
            outputs=[io.Image.Output()],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, image, crop_region):
        place = {"x": 0, "y": 0, "width": 512, "height": 512, **crop_region}
        part = _cropped(image, place["x"], place["y"], place["width"], place["height"])
        return io.NodeOutput(part, ui=ui.PreviewImage(part))


class ImageCropToMask(io.ComfyNode):
    """The subject that a mask shows, in the middle of a picture of a given size."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageCropToMask",
            display_name="Crop Image to Mask",
            category="image/transform",
            description="Cuts out the subject under a mask, centres it and puts a colour behind it.",
            search_aliases=[
                "crop to mask",
                "mask crop",
                "crop mask",
                "mask crop resize",
                "crop mask resize",
                "trellis2",
                "pixal3d",
            ],
            inputs=[
                io.Image.Input("images"),
                io.Mask.Input("masks"),
                io.Int.Input(
                    "width", default=1024, min=64, max=4096, step=8, tooltip="Width of the result in pixels."
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=64,
                    max=4096,
                    step=8,
                    tooltip="Height of the result in pixels.",
                ),
                io.Float.Input(
                    "pad_factor",
                    default=1.0,
                    min=1.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How much larger than the subject the cut is.",
                ),
                io.Int.Input(
                    "grow_mask",
                    default=0,
                    min=-32,
                    max=32,
                    step=1,
                    tooltip="Pixels by which the mask grows first; negative ones shrink it.",
                ),
                io.Color.Input(
                    "background", default="#000000", tooltip="What is seen where the mask is not."
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images, masks, width, height, pad_factor, grow_mask, background):
        import torch

        import comfy.model_management
        from comfy.color_spaces import parse_hex
        from comfy.subject_crop import cut_out, masks_for

        images = images[..., :3]
        color = parse_hex(background) or (0.0, 0.0, 0.0)
        subjects = [
            cut_out(image, mask, width, height, margin=pad_factor, grow=grow_mask, background=color)
            for image, mask in zip(images, masks_for(images, masks))
        ]
        return io.NodeOutput(torch.stack(subjects).to(comfy.model_management.intermediate_device()))

"""Pictures turned, joined, cut into tiles and measured. It registers those for cropping and saving too."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.image_cropping import ImageCrop, ImageCropToMask, ImageCropV2
from comfy_extras.image_saving import SaveAnimatedPNG, SaveAnimatedWEBP, SaveImageAdvanced, SaveSVGNode

SVG = io.SVG.Type  # packs import the type from here


def _scaled(image, width, height, method):
    """(B, H, W, C) in another size."""
    import comfy.utils

    return comfy.utils.common_upscale(image.movedim(-1, 1), width, height, method, "disabled").movedim(1, -1)


class BoundingBox(io.ComfyNode):
    """A rectangle of four numbers."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PrimitiveBoundingBox",
            display_name="Bounding Box",
            category="utilities/primitive",
            description="A rectangle from its corner at the top left and its size.",
            inputs=[
                io.Int.Input("x", default=0, min=0, max=MAX_RESOLUTION),
                io.Int.Input("y", default=0, min=0, max=MAX_RESOLUTION),
                io.Int.Input("width", default=512, min=1, max=MAX_RESOLUTION),
                io.Int.Input("height", default=512, min=1, max=MAX_RESOLUTION),
            ],
            outputs=[io.BoundingBox.Output()],
        )

    @classmethod
    def execute(cls, x, y, width, height):
        return io.NodeOutput({"x": x, "y": y, "width": width, "height": height})


class RepeatImageBatch(io.ComfyNode):
    """A batch several times."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RepeatImageBatch",
            display_name="Repeat Image Batch",
            category="image/batch",
            description="Repeats a batch of pictures.",
            search_aliases=["duplicate image", "clone image"],
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("amount", default=1, min=1, max=4096),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, amount):
        return io.NodeOutput(image.repeat(amount, 1, 1, 1))

    repeat = execute  # the name that node packs call


class ImageFromBatch(io.ComfyNode):
    """Some pictures of a batch."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageFromBatch",
            display_name="Get Image from Batch",
            category="image/batch",
            description="Takes pictures out of a batch.",
            search_aliases=["select image", "pick from batch", "extract image"],
            inputs=[
                io.Image.Input("image"),
                io.Int.Input(
                    "batch_index",
                    default=0,
                    min=-MAX_RESOLUTION,
                    max=MAX_RESOLUTION,
                    tooltip="The first picture, from 0; negative ones count from the end.",
                ),
                io.Int.Input("length", default=1, min=1, max=4096, tooltip="How many pictures."),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, batch_index, length):
        count = image.shape[0]
        first = batch_index + count if batch_index < 0 else batch_index
        first = max(0, min(first, count - 1))
        return io.NodeOutput(image[first : first + length].clone())

    frombatch = execute  # the name that node packs call


class ImageAddNoise(io.ComfyNode):
    """Grain."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageAddNoise",
            display_name="Add Noise to Image",
            category="image/filters",
            description="Adds Gaussian noise to pictures.",
            search_aliases=["film grain"],
            inputs=[
                io.Image.Input("image"),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Equal seeds give equal noise.",
                ),
                io.Float.Input("strength", default=0.5, min=0.0, max=1.0, step=0.01),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, seed, strength):
        import torch

        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).to(image)
        return io.NodeOutput((image + strength * noise).clamp(0, 1))

    repeat = execute  # the name that node packs call


class ImageStitch(io.ComfyNode):
    """Two pictures side by side."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageStitch",
            display_name="Stitch Images",
            category="image/transform",
            description="Puts a second picture beside the first; without one, the first stays as it is.",
            search_aliases=["combine images", "join images", "concatenate images", "side by side"],
            inputs=[
                io.Image.Input("image1"),
                io.Combo.Input(
                    "direction",
                    options=["right", "down", "left", "up"],
                    default="right",
                    tooltip="On which side of the first picture the second one goes.",
                ),
                io.Boolean.Input(
                    "match_image_size",
                    default=True,
                    tooltip="Scale the second to the side that they share; else the smaller is centred.",
                ),
                io.Int.Input("spacing_width", default=0, min=0, max=1024, step=2, advanced=True),
                io.Combo.Input(
                    "spacing_color",
                    options=["white", "black", "red", "green", "blue"],
                    default="white",
                    advanced=True,
                ),
                io.Image.Input("image2", optional=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image1, direction, match_image_size, spacing_width, spacing_color, image2=None):
        if image2 is None:
            return io.NodeOutput(image1)
        from comfy.stitching import stitched

        return io.NodeOutput(
            stitched(
                image1, image2.to(image1.device), direction,
                match_size=match_image_size, gap=spacing_width, color=spacing_color,
            )
        )  # fmt: skip

    stitch = execute  # the name that node packs call


class ResizeAndPadImage(io.ComfyNode):
    """The whole picture in a frame of another shape."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ResizeAndPadImage",
            display_name="Resize And Pad Image",
            category="image/transform",
            description="Scales pictures so that they fit into a size, and fills what is left over.",
            search_aliases=["fit to size"],
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("target_width", default=512, min=1, max=MAX_RESOLUTION, step=1),
                io.Int.Input("target_height", default=512, min=1, max=MAX_RESOLUTION, step=1),
                io.Combo.Input("padding_color", options=["white", "black"], advanced=True),
                io.Combo.Input(
                    "interpolation",
                    options=["area", "bicubic", "nearest-exact", "bilinear", "lanczos"],
                    advanced=True,
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, target_width, target_height, padding_color, interpolation):
        batch, rows, columns, channels = image.shape
        scale = min(target_width / columns, target_height / rows)
        width, height = max(1, int(columns * scale)), max(1, int(rows * scale))
        canvas = image.new_full(
            (batch, target_height, target_width, channels), 0.0 if padding_color == "black" else 1.0
        )
        x, y = (target_width - width) // 2, (target_height - height) // 2
        canvas[:, y : y + height, x : x + width] = _scaled(image, width, height, interpolation)
        return io.NodeOutput(canvas)

    resize_and_pad = execute  # the name that node packs call


def _tell_below_node(node_id, text):
    """Show a text below a node in the web pages that watch."""
    from comfy_execution.progress import get_progress_state

    for handler in get_progress_state().handlers.values():
        server = getattr(handler, "server_instance", None)
        if server is not None:
            server.send_progress_text(text, node_id)


class GetImageSize(io.ComfyNode):
    """How large pictures are, and how many."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GetImageSize",
            display_name="Get Image Size",
            category="image",
            description="Width, height and number of pictures; they are shown below the node too.",
            search_aliases=["dimensions", "resolution", "image info"],
            inputs=[
                io.Image.Input("image"),
            ],
            outputs=[
                io.Int.Output(display_name="width"),
                io.Int.Output(display_name="height"),
                io.Int.Output(display_name="batch_size"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image):
        batch_size, height, width = image.shape[:3]
        if cls.hidden is not None and cls.hidden.unique_id:
            text = f"width: {width}, height: {height}\n batch size: {batch_size}"
            _tell_below_node(cls.hidden.unique_id, text)
        return io.NodeOutput(width, height, batch_size)

    get_size = execute  # the name that node packs call


class ImageRotate(io.ComfyNode):
    """Quarter turns."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageRotate",
            display_name="Rotate Image",
            category="image/transform",
            description="Turns pictures clockwise.",
            search_aliases=["turn", "flip orientation"],
            essentials_category="Image Tools",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("rotation", options=["none", "90 degrees", "180 degrees", "270 degrees"]),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, rotation):
        import torch

        degrees = 0 if rotation == "none" else int(rotation.split()[0])
        return io.NodeOutput(torch.rot90(image, k=degrees // 90, dims=[2, 1]))

    rotate = execute  # the name that node packs call


class ImageFlip(io.ComfyNode):
    """Mirrored pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageFlip",
            display_name="Flip Image",
            category="image/transform",
            description="Mirrors pictures.",
            search_aliases=["mirror", "reflect"],
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("flip_method", options=["x-axis: vertically", "y-axis: horizontally"]),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, flip_method):
        return io.NodeOutput(image.flip(1 if flip_method.startswith("x") else 2))

    flip = execute  # the name that node packs call


class ImageScaleToMaxDimension(io.ComfyNode):
    """Pictures whose longer side has a given length."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageScaleToMaxDimension",
            display_name="Scale Image to Max Dimension",
            category="image/upscaling",
            description="Scales pictures so that the longer side has this length.",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input(
                    "upscale_method",
                    options=["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"],
                ),
                io.Int.Input("largest_size", default=512, min=0, max=MAX_RESOLUTION, step=1),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, upscale_method, largest_size):
        if largest_size < 1:
            raise ValueError("largest_size is 0. Set the length of the longer side in pixels, 1 or more.")
        rows, columns = image.shape[1:3]
        longer = max(rows, columns)
        width, height = (max(1, round(side / longer * largest_size)) for side in (columns, rows))
        return io.NodeOutput(_scaled(image, width, height, upscale_method))

    upscale = execute  # the name that node packs call


def _tile_starts(length, tile, overlap):
    """Where tiles begin along one side; the last one ends with the picture."""
    step = round(max(tile * 0.25, tile - overlap))
    count = 1 + max(0, math.ceil((length - tile) / step))
    return [max(0, min(index * step, length - tile)) for index in range(count)]


class SplitImageToTileList(io.ComfyNode):
    """Overlapping parts of pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SplitImageToTileList",
            display_name="Split Image into List of Tiles",
            category="image/batch",
            description="Cuts pictures into tiles of one size that overlap.",
            search_aliases=["split image", "tile image", "slice image"],
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("tile_width", default=1024, min=64, max=MAX_RESOLUTION),
                io.Int.Input("tile_height", default=1024, min=64, max=MAX_RESOLUTION),
                io.Int.Input(
                    "overlap",
                    default=128,
                    min=0,
                    max=4096,
                    tooltip="Pixels that neighbours share; three quarters of a tile at most.",
                ),
            ],
            outputs=[io.Image.Output(is_output_list=True)],
        )

    @staticmethod
    def get_grid_coords(width, height, tile_width, tile_height, overlap):
        """(left, top, right, bottom) of each tile, row by row."""
        return [
            (x, y, min(x + tile_width, width), min(y + tile_height, height))
            for y in _tile_starts(height, tile_height, overlap)
            for x in _tile_starts(width, tile_width, overlap)
        ]

    @classmethod
    def execute(cls, image, tile_width, tile_height, overlap):
        grid = cls.get_grid_coords(image.shape[2], image.shape[1], tile_width, tile_height, overlap)
        return io.NodeOutput([image[:, top:bottom, left:right] for left, top, right, bottom in grid])


class ImageMergeTileList(io.ComfyNode):
    """The inverse of SplitImageToTileList, with soft seams."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageMergeTileList",
            display_name="Merge List of Tiles to Image",
            category="image/batch",
            description="Joins tiles into a picture; where they overlap, they fade into each other.",
            search_aliases=["split image", "tile image", "slice image"],
            inputs=[
                io.Image.Input("image_list"),
                io.Int.Input("final_width", default=1024, min=64, max=32768),
                io.Int.Input("final_height", default=1024, min=64, max=32768),
                io.Int.Input(
                    "overlap",
                    default=128,
                    min=0,
                    max=4096,
                    tooltip="The overlap with which the picture was split.",
                ),
            ],
            outputs=[io.Image.Output()],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, image_list, final_width, final_height, overlap):
        from comfy.stitching import merged_tiles

        width, height = final_width[0], final_height[0]
        rows, columns = image_list[0].shape[1:3]
        grid = SplitImageToTileList.get_grid_coords(width, height, columns, rows, overlap[0])
        corners = [box[:2] for box in grid]
        return io.NodeOutput(merged_tiles(image_list, corners, width, height, soft=overlap[0] > 0))


class ImagesExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            ImageCrop, ImageCropV2, ImageCropToMask, BoundingBox, RepeatImageBatch, ImageFromBatch,
            ImageAddNoise, SaveAnimatedWEBP, SaveAnimatedPNG, SaveImageAdvanced, SaveSVGNode, ImageStitch,
            ResizeAndPadImage, GetImageSize, ImageRotate, ImageFlip, ImageScaleToMaxDimension,
            SplitImageToTileList, ImageMergeTileList,
        ]  # fmt: skip


def comfy_entrypoint():
    return ImagesExtension()

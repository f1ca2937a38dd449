"""Sets of pictures and texts for trainings: resized, cropped, adjusted, shuffled, cleaned, and shown."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras import dataset_files as files
from comfy_extras import dataset_texts as words
from comfy_extras import dataset_training as training
from comfy_extras import dataset_videos as videos
from comfy_extras.dataset_videos import random_state

_HASH_SIDE = 8


def _scaled(images, width, height):
    import comfy.utils

    scaled = comfy.utils.common_upscale(images.movedim(-1, 1), width, height, "lanczos", "disabled")
    return scaled.movedim(1, -1)


def _by_side(images, side, length):
    """(B, H, W, C) in the scale in which `side`, one of its sides, is `length` pixels."""
    height, width = images.shape[1:3]
    size = (length if one == side else max(1, int(one * (length / side))) for one in (width, height))
    return _scaled(images, *size)


def _singles(images):
    """Each picture of each batch for itself (1, H, W, C)."""
    return [single for batch in images for single in batch.split(1)]


class ResizeImagesByShorterEdgeNode(io.ComfyNode):
    """Pictures whose shorter side has a given length."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ResizeImagesByShorterEdge",
            display_name="Resize Images by Shorter Edge (DEPRECATED)",
            category="image/transform",
            description="Scales pictures so that the shorter side has this length.",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("shorter_edge", default=512, min=1, max=8192),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, shorter_edge):
        return io.NodeOutput(_by_side(images, min(images.shape[1:3]), shorter_edge))


class ResizeImagesByLongerEdgeNode(io.ComfyNode):
    """Pictures whose longer side has a given length."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ResizeImagesByLongerEdge",
            display_name="Resize Images by Longer Edge (DEPRECATED)",
            category="image/transform",
            description="Scales pictures so that the longer side has this length.",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("longer_edge", default=1024, min=1, max=8192),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, longer_edge):
        return io.NodeOutput(_by_side(images, max(images.shape[1:3]), longer_edge))


class CenterCropImagesNode(io.ComfyNode):
    """The middle of pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CenterCropImages",
            display_name="Crop Image (Center)",
            category="image/transform",
            description="Cuts out the middle of pictures.",
            search_aliases=["crop", "cut", "trim"],
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("width", default=512, min=1, max=8192),
                io.Int.Input("height", default=512, min=1, max=8192),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, width, height):
        top, left = (max(0, (side - wanted) // 2) for side, wanted in zip(images.shape[1:3], (height, width)))
        return io.NodeOutput(images[:, top : top + height, left : left + width])


class RandomCropImagesNode(io.ComfyNode):
    """Any part of pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RandomCropImages",
            display_name="Crop Image (Random)",
            category="image/transform",
            description="Cuts a part out of pictures, at random; the same of each picture of a batch.",
            search_aliases=["crop", "cut", "trim"],
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("width", default=512, min=1, max=8192),
                io.Int.Input("height", default=512, min=1, max=8192),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, width, height, seed):
        rows, columns = images.shape[1:3]
        random = random_state(seed)
        left, top = (
            random.randint(0, side - wanted + 1) if side > wanted else 0
            for side, wanted in ((columns, width), (rows, height))
        )
        return io.NodeOutput(images[:, top : top + height, left : left + width])


class NormalizeImagesNode(io.ComfyNode):
    """Values around zero."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="NormalizeImages",
            display_name="Normalize Image Colors",
            category="image/color",
            description="Subtracts a mean, and divides by a standard deviation.",
            search_aliases=["normalize", "normalize colors"],
            inputs=[
                io.Image.Input("images"),
                io.Float.Input("mean", default=0.5, min=0.0, max=1.0, advanced=True),
                io.Float.Input("std", default=0.5, min=0.001, max=1.0, advanced=True),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, mean, std):
        return io.NodeOutput((images - mean) / std)


class AdjustBrightnessNode(io.ComfyNode):
    """Lighter or darker."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AdjustBrightness",
            display_name="Adjust Brightness",
            category="image/adjustments",
            description="Makes pictures lighter (above 1) or darker (below 1).",
            search_aliases=["brightness"],
            inputs=[
                io.Image.Input("images"),
                io.Float.Input("factor", default=1.0, min=0.0, max=2.0),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, factor):
        return io.NodeOutput((images * factor).clamp(0, 1))


class AdjustContrastNode(io.ComfyNode):
    """More or less contrast."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AdjustContrast",
            display_name="Adjust Contrast",
            category="image/adjustments",
            description="Gives pictures more contrast (above 1) or less (below 1).",
            search_aliases=["contrast"],
            inputs=[
                io.Image.Input("images"),
                io.Float.Input("factor", default=1.0, min=0.0, max=2.0),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, factor):
        return io.NodeOutput(((images - 0.5) * factor + 0.5).clamp(0, 1))


class ShuffleDatasetNode(io.ComfyNode):
    """Pictures in another order."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ShuffleDataset",
            display_name="Shuffle Images List",
            category="image/batch",
            description="Shuffles pictures; those of batches become single.",
            search_aliases=["shuffle", "randomize", "mix"],
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
            ],
            outputs=[io.Image.Output(display_name="images", is_output_list=True)],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, seed):
        singles = _singles(images)
        return io.NodeOutput([singles[index] for index in random_state(seed[0]).permutation(len(singles))])


class ShuffleImageTextDatasetNode(io.ComfyNode):
    """Pictures and texts in another order."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ShuffleImageTextDataset",
            display_name="Shuffle Pairs of Image-Text",
            category="image/batch",
            description="Shuffles pictures and their texts together.",
            search_aliases=["shuffle", "randomize", "mix"],
            inputs=[
                io.Image.Input("images"),
                io.String.Input("texts", force_input=True),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True),
                io.String.Output(display_name="texts", is_output_list=True),
            ],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, texts, seed):
        order = random_state(seed[0]).permutation(len(images))
        return io.NodeOutput([images[index] for index in order], [texts[index] for index in order])


def _perceptual_hash(image):
    """64 bits of a picture (1, H, W, C): which parts are lighter than its mean."""
    import numpy as np
    from PIL import Image

    pixels = (image[0, ..., :3].cpu().numpy() * 255).clip(0, 255).astype(np.uint8)
    small = Image.fromarray(pixels).resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS)
    gray = np.asarray(small.convert("L"), dtype=float)
    return gray > gray.mean()


class ImageDeduplicationNode(io.ComfyNode):
    """Pictures without those that look alike."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageDeduplication",
            display_name="Deduplicate Images",
            category="image/batch",
            description="Leaves out pictures that look like an earlier one.",
            search_aliases=["deduplicate", "remove duplicates", "similarity filter"],
            inputs=[
                io.Image.Input("images"),
                io.Float.Input(
                    "similarity_threshold",
                    default=0.95,
                    min=0.0,
                    max=1.0,
                    advanced=True,
                    tooltip="From which share of equal bits on pictures look alike.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", is_output_list=True)],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, similarity_threshold):
        kept = []
        for image in _singles(images):
            own = _perceptual_hash(image)
            if all((own == other).mean() < similarity_threshold[0] for _, other in kept):
                kept.append((image, own))
        return io.NodeOutput([image for image, _ in kept])


class ImageGridNode(io.ComfyNode):
    """Pictures in rows and columns."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageGrid",
            display_name="Make Image Grid",
            category="image/batch",
            description="Puts pictures into the cells of one picture.",
            search_aliases=["grid", "collage", "combine"],
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("columns", default=4, min=1, max=20),
                io.Int.Input("cell_width", default=256, min=32, max=2048, advanced=True),
                io.Int.Input("cell_height", default=256, min=32, max=2048, advanced=True),
                io.Int.Input(
                    "padding", default=4, min=0, max=50, advanced=True, tooltip="Pixels between the cells."
                ),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_input_list=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images, columns, cell_width, cell_height, padding):
        import torch

        columns, width, height, gap = columns[0], cell_width[0], cell_height[0], padding[0]
        singles = _singles(images)
        if not singles:
            raise ValueError("There is no picture to put into a grid. Link some.")
        rows = -(-len(singles) // columns)
        grid = torch.zeros(1, rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
        for index, image in enumerate(singles):
            row, column = divmod(index, columns)
            y, x = row * (height + gap), column * (width + gap)
            grid[:, y : y + height, x : x + width] = _scaled(image[..., :3], width, height)
        return io.NodeOutput(grid)


class MergeImageListsNode(io.ComfyNode):
    """Lists as one."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MergeImageLists",
            display_name="Merge Image Lists (DEPRECATED)",
            category="image/batch",
            description="Gives all pictures that come in as one list of single pictures.",
            search_aliases=["list", "merge list", "make list"],
            inputs=[
                io.Image.Input("images"),
            ],
            outputs=[io.Image.Output(display_name="images", is_output_list=True)],
            is_input_list=True,
            is_deprecated=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, images):
        return io.NodeOutput(_singles(images))


class DatasetExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            files.LoadImageDataSetFromFolderNode, files.LoadImageTextDataSetFromFolderNode,
            files.SaveImageDataSetToFolderNode, files.SaveImageTextDataSetToFolderNode,
            files.LoadVideoDataSetFromFolderNode, files.LoadVideoTextDataSetFromFolderNode,
            ResizeImagesByShorterEdgeNode, ResizeImagesByLongerEdgeNode, CenterCropImagesNode,
            RandomCropImagesNode, NormalizeImagesNode, AdjustBrightnessNode, AdjustContrastNode,
            ShuffleDatasetNode, ShuffleImageTextDatasetNode, videos.VideoFrameSampleNode,
            videos.VideoTemporalCropNode, videos.VideoRandomTemporalCropNode, videos.ShuffleVideoDatasetNode,
            videos.ShuffleVideoTextDatasetNode, words.TextToLowercaseNode, words.TextToUppercaseNode,
            words.TruncateTextNode, words.AddTextPrefixNode, words.AddTextSuffixNode, words.ReplaceTextNode,
            words.StripWhitespaceNode, ImageDeduplicationNode, ImageGridNode, MergeImageListsNode,
            words.MergeTextListsNode, training.MakeTrainingDataset, training.SaveTrainingDataset,
            training.LoadTrainingDataset, training.ResolutionBucket,
        ]  # fmt: skip


def comfy_entrypoint():
    return DatasetExtension()

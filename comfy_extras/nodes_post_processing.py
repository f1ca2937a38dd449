"""Pictures blended, blurred, sharpened, reduced to few colours, resized and put into batches."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_images import IMAGE_SCALING
from comfy_extras.image_resizing import ResizeImageMaskNode, scaled

BLEND_MODES = {
    "normal": lambda below, above: above,
    "multiply": lambda below, above: below * above,
    "screen": lambda below, above: 1 - (1 - below) * (1 - above),
    "overlay": lambda below, above: (2 * below * above).where(
        below <= 0.5, 1 - 2 * (1 - below) * (1 - above)
    ),
    "soft_light": lambda below, above: _soft_light(below, above),
    "difference": lambda below, above: below - above,
}


def _soft_light(below, above):
    """As the W3C defines it."""
    curve = (((16 * below - 12) * below + 4) * below).where(below <= 0.25, below.clamp(min=0).sqrt())
    darker = below - (1 - 2 * above) * below * (1 - below)
    return darker.where(above <= 0.5, below + (2 * above - 1) * (curve - below))


class Blend(io.ComfyNode):
    """Two pictures mixed."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageBlend",
            display_name="Blend Images",
            category="image/filters",
            description="Mixes pictures; the second is cut and scaled to the size of the first.",
            search_aliases=["mix images"],
            essentials_category="Image Tools",
            inputs=[
                io.Image.Input("image1"),
                io.Image.Input("image2"),
                io.Float.Input(
                    "blend_factor",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the mix is seen; 0 gives the first picture.",
                ),
                io.Combo.Input("blend_mode", options=list(BLEND_MODES)),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image1, image2, blend_factor, blend_mode):
        import comfy.utils
        import node_helpers

        below, above = node_helpers.image_alpha_fix(image1, image2)
        above = above.to(below.device)
        if above.shape[1:3] != below.shape[1:3]:
            size = below.shape[2], below.shape[1]
            above = comfy.utils.common_upscale(above.movedim(-1, 1), *size, "bicubic", "center").movedim(
                1, -1
            )
        mixed = cls.blend_mode(below, above, blend_mode)
        return io.NodeOutput((below * (1 - blend_factor) + mixed * blend_factor).clamp(0, 1))

    @classmethod
    def blend_mode(cls, img1, img2, mode):
        """The mix alone. ValueError for a mode that there is not."""
        if mode not in BLEND_MODES:
            raise ValueError(f"There is no blend mode {mode!r}. There are: {', '.join(BLEND_MODES)}.")
        return BLEND_MODES[mode](img1, img2)


def gaussian_kernel(kernel_size, sigma, device=None, dtype=None):
    """A Gaussian (size, size) that sums to 1. `sigma` is in halves of the kernel's side, not in pixels."""
    import torch

    square = torch.linspace(-1, 1, kernel_size, device=device) ** 2
    kernel = torch.exp(-(square[:, None] + square[None, :]) / (2 * sigma * sigma))
    return (kernel / kernel.sum()).to(torch.float32 if dtype is None else dtype)


def _filtered(image, kernel_of):
    """(B, H, W, C) with one kernel, computed where models compute."""
    import comfy.model_management
    from comfy.picture_filters import convolved

    image = image.to(comfy.model_management.get_torch_device())
    out = convolved(image.movedim(-1, 1), kernel_of(image.device, image.dtype)).movedim(1, -1)
    return out.to(comfy.model_management.intermediate_device())


class Blur(io.ComfyNode):
    """Gaussian blur."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageBlur",
            display_name="Blur Image",
            category="image/filters",
            description="Blurs pictures with a Gaussian.",
            inputs=[
                io.Image.Input("image"),
                io.Int.Input(
                    "blur_radius",
                    default=1,
                    min=1,
                    max=31,
                    step=1,
                    tooltip="Pixels from the middle of the kernel to its edge.",
                ),
                io.Float.Input(
                    "sigma",
                    default=1.0,
                    min=0.1,
                    max=10.0,
                    step=0.1,
                    tooltip="Width of the Gaussian, as a part of the radius.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, blur_radius, sigma):
        if blur_radius == 0:
            return io.NodeOutput(image)

        def kernel(device, dtype):
            return gaussian_kernel(2 * blur_radius + 1, sigma, device, dtype)

        return io.NodeOutput(_filtered(image, kernel))

    blur = execute  # the name that node packs call


class Sharpen(io.ComfyNode):
    """Unsharp masking."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageSharpen",
            display_name="Sharpen Image",
            category="image/filters",
            description="Sharpens pictures: adds what a blur takes away.",
            inputs=[
                io.Image.Input("image"),
                io.Int.Input(
                    "sharpen_radius",
                    default=1,
                    min=1,
                    max=31,
                    step=1,
                    advanced=True,
                    tooltip="Pixels from the middle of the kernel to its edge.",
                ),
                io.Float.Input(
                    "sigma",
                    default=1.0,
                    min=0.1,
                    max=10.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Width of the Gaussian, as a part of the radius.",
                ),
                io.Float.Input(
                    "alpha",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    advanced=True,
                    tooltip="How strong; 1 adds ten times the difference to the blur.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, sharpen_radius, sigma, alpha):
        if sharpen_radius == 0:
            return io.NodeOutput(image)

        def kernel(device, dtype):
            weights = -10 * alpha * gaussian_kernel(2 * sharpen_radius + 1, sigma, device, dtype)
            weights[sharpen_radius, sharpen_radius] += 1 - weights.sum()
            return weights

        return io.NodeOutput(_filtered(image, kernel).clamp(0, 1))

    sharpen = execute  # the name that node packs call


class Quantize(io.ComfyNode):
    """Few colours."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageQuantize",
            display_name="Quantize Image",
            category="image/filters",
            description="Reduces each picture to a palette of its own.",
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("colors", default=256, min=1, max=256, step=1),
                io.Combo.Input(
                    "dither", options=["none", "floyd-steinberg", "bayer-2", "bayer-4", "bayer-8", "bayer-16"]
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, colors, dither):
        import torch

        from comfy.color_quantizing import quantized

        pictures = [quantized(picture, colors, dither) for picture in image[..., :3]]
        return io.NodeOutput(torch.cat((torch.stack(pictures).to(image), image[..., 3:]), dim=-1))

    quantize = execute  # the name that node packs call


class ImageScaleToTotalPixels(io.ComfyNode):
    """Pictures of a given area."""

    upscale_methods = IMAGE_SCALING
    crop_methods = ["disabled", "center"]

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageScaleToTotalPixels",
            display_name="Scale Image to Total Pixels",
            category="image/upscaling",
            description="Scales pictures to an area, and keeps their proportions.",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("upscale_method", options=cls.upscale_methods),
                io.Float.Input(
                    "megapixels", default=1.0, min=0.01, max=16.0, step=0.01, tooltip="Of 1024 x 1024 pixels."
                ),
                io.Int.Input(
                    "resolution_steps",
                    default=1,
                    min=1,
                    max=256,
                    advanced=True,
                    tooltip="Sides become multiples of this.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, upscale_method, megapixels, resolution_steps):
        rows, columns = image.shape[1:3]
        scale = math.sqrt(megapixels * 1024 * 1024 / (columns * rows))
        width, height = (
            max(1, round(side * scale / resolution_steps)) * resolution_steps for side in (columns, rows)
        )
        return io.NodeOutput(scaled(image, width, height, upscale_method))

    upscale = execute  # the name that node packs call


def _joined(images):
    """One batch of pictures or masks, each cut and scaled to the size of the first."""
    import torch

    first, size = images[0], (images[0].shape[2], images[0].shape[1])
    fitted = [
        image if image.shape[1:3] == first.shape[1:3] else scaled(image, *size, "bilinear", "center")
        for image in images
    ]
    return torch.cat([image.to(first.device) for image in fitted])


def batch_images(images):
    """One batch (B, H, W, C) of several; missing channels are 1. None for no picture."""
    import torch

    if not images:
        return None
    channels = max(image.shape[-1] for image in images)
    return _joined(
        [torch.nn.functional.pad(image, (0, channels - image.shape[-1]), value=1.0) for image in images]
    )


def batch_masks(masks):
    """One batch (B, H, W) of several. None for no mask."""
    return _joined(masks) if masks else None


def batch_latents(latents):
    """One batch of several latents, in the size of the first. None for no latent."""
    import torch

    from comfy_extras.nodes_latent import reshape_latent_to

    if not latents:
        return None
    shape = latents[0]["samples"].shape
    samples = [reshape_latent_to(shape, latent["samples"], repeat_batch=False) for latent in latents]
    numbers = [
        index for latent in latents for index in latent.get("batch_index", range(len(latent["samples"])))
    ]
    together = torch.cat([one.to(samples[0].device) for one in samples])
    return {**latents[0], "samples": together, "batch_index": numbers}


def _growing(kind, one, several):
    template = io.Autogrow.TemplatePrefix(kind.Input(one), prefix=one, min=1, max=50)
    return io.Autogrow.Input(several, template=template)


class BatchImagesNode(io.ComfyNode):
    """Pictures as one batch."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="BatchImagesNode",
            display_name="Batch Images",
            category="image/batch",
            description="Puts pictures into one batch, in the size of the first.",
            search_aliases=[
                "batch",
                "image batch",
                "batch images",
                "combine images",
                "merge images",
                "stack images",
            ],
            essentials_category="Image Tools",
            inputs=[
                _growing(io.Image, "image", "images"),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images):
        return io.NodeOutput(batch_images(list(images.values())))


class BatchMasksNode(io.ComfyNode):
    """Masks as one batch."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="BatchMasksNode",
            display_name="Batch Masks",
            category="image/mask",
            description="Puts masks into one batch, in the size of the first.",
            search_aliases=["combine masks", "stack masks", "merge masks"],
            inputs=[
                _growing(io.Mask, "mask", "masks"),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, masks):
        return io.NodeOutput(batch_masks(list(masks.values())))


class BatchLatentsNode(io.ComfyNode):
    """Latents as one batch."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="BatchLatentsNode",
            display_name="Batch Latents",
            category="model/latent/batch",
            description="Puts latents into one batch, in the size of the first.",
            search_aliases=["combine latents", "stack latents", "merge latents"],
            inputs=[
                _growing(io.Latent, "latent", "latents"),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, latents):
        return io.NodeOutput(batch_latents(list(latents.values())))


class ColorTransfer(io.ComfyNode):
    """The colours of one picture on another."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ColorTransfer",
            display_name="Transfer Color",
            category="image/filters",
            description="Gives pictures and videos the colours of a reference.",
            search_aliases=[
                "color match",
                "color grading",
                "color correction",
                "match colors",
                "color transform",
                "mkl",
                "reinhard",
                "histogram",
            ],
            inputs=[
                io.Image.Input("image_target", tooltip="The pictures to change."),
                io.Image.Input("image_ref", tooltip="The pictures whose colours are wanted."),
                io.Combo.Input(
                    "method",
                    options=["reinhard_lab", "mkl_lab", "histogram"],
                    tooltip="Mean and spread in Lab, means and covariances in Lab, or histograms.",
                ),
                io.DynamicCombo.Input(
                    "source_stats",
                    options=[
                        io.DynamicCombo.Option("per_frame", []),
                        io.DynamicCombo.Option("uniform", []),
                        io.DynamicCombo.Option(
                            "target_frame",
                            [
                                io.Int.Input(
                                    "target_index",
                                    default=0,
                                    min=0,
                                    max=10000,
                                    tooltip="The frame that is measured.",
                                )
                            ],
                        ),
                    ],
                    tooltip="Measure each frame for itself (may flicker), all together, or one for all.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="0 changes nothing; above 1 it goes beyond the reference.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image_target, image_ref, method, source_stats, strength=1.0):
        if strength == 0 or image_ref is None:
            return io.NodeOutput(image_target)
        import torch

        import comfy.model_management
        import comfy.utils
        from comfy.color_matching import matched

        count = len(image_target)
        index = min(source_stats.get("target_index", 0), count - 1)
        colors = image_target[..., :3]
        baselines = {"per_frame": None, "uniform": colors, "target_frame": colors[index : index + 1]}
        frames = matched(
            colors, image_ref[..., :3], method, baseline=baselines[source_stats["source_stats"]],
            strength=strength, device=comfy.model_management.get_torch_device(),
        )  # fmt: skip
        out = image_target.to(comfy.model_management.intermediate_device(), torch.float32, copy=True)
        progress = comfy.utils.ProgressBar(count)
        for number, frame in enumerate(frames):
            out[number, ..., :3] = frame
            progress.update(1)
        return io.NodeOutput(out)


class PostProcessingExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            Blend, Blur, Quantize, Sharpen, ImageScaleToTotalPixels, ResizeImageMaskNode, BatchImagesNode,
            BatchMasksNode, BatchLatentsNode, ColorTransfer,
        ]  # fmt: skip


def comfy_entrypoint():
    return PostProcessingExtension()

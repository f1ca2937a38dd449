"""Core nodes that change pictures."""

from __future__ import annotations

from comfy_extras.core_inputs import float_input, int_input, pixels_input

IMAGE_SCALING = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]


def _scaled(image, width, height, method, crop):
    import comfy.utils

    channels_first = image.movedim(-1, 1)
    return comfy.utils.common_upscale(channels_first, width, height, method, crop).movedim(1, -1)


class ImageScale:
    upscale_methods = IMAGE_SCALING
    crop_methods = ["disabled", "center"]

    @classmethod
    def INPUT_TYPES(cls):
        keep = "0 keeps the proportions."
        size = {"width": pixels_input(512, 0, keep, step=1), "height": pixels_input(512, 0, keep, step=1)}
        how = {"upscale_method": (cls.upscale_methods,), **size, "crop": (cls.crop_methods,)}
        return {"required": {"image": ("IMAGE",), **how}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"
    DESCRIPTION = "Scales pictures to a size."

    def upscale(self, image, upscale_method, width, height, crop):
        if width == 0 and height == 0:
            return (image,)
        rows, columns = image.shape[1:3]
        if width == 0:
            width = max(1, round(columns * height / rows))
        elif height == 0:
            height = max(1, round(rows * width / columns))
        return (_scaled(image, width, height, upscale_method, crop),)


class ImageScaleBy:
    upscale_methods = IMAGE_SCALING

    @classmethod
    def INPUT_TYPES(cls):
        how = {"upscale_method": (cls.upscale_methods,), "scale_by": float_input(1.0, 0.01, 8.0)}
        return {"required": {"image": ("IMAGE",), **how}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"
    DESCRIPTION = "Scales pictures by a factor."

    def upscale(self, image, upscale_method, scale_by):
        height, width = (round(side * scale_by) for side in image.shape[1:3])
        return (_scaled(image, width, height, upscale_method, "disabled"),)


class ImageInvert:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"
    CATEGORY = "image"
    DESCRIPTION = "Turns light into dark and colours into their opposites."

    def invert(self, image):
        return (1.0 - image,)


class ImageBatch:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image1": ("IMAGE",), "image2": ("IMAGE",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "batch"
    CATEGORY = "image"
    DEPRECATED = True
    DESCRIPTION = "Puts pictures into one batch; the second is scaled to the size of the first."

    def batch(self, image1, image2):
        import torch

        channels = max(image1.shape[-1], image2.shape[-1])
        image1, image2 = (
            torch.nn.functional.pad(image, (0, channels - image.shape[-1]), value=1.0)
            for image in (image1, image2)
        )
        if image1.shape[1:3] != image2.shape[1:3]:
            image2 = _scaled(image2, image1.shape[2], image1.shape[1], "bilinear", "center")
        return (torch.cat((image1, image2.to(image1.device)), dim=0),)


class EmptyImage:
    def __init__(self, device="cpu"):
        self.device = device

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "width": pixels_input(512, 1, step=1),
                "height": pixels_input(512, 1, step=1),
                "batch_size": int_input(1, 1, 4096),
                "color": int_input(0, 0, 0xFFFFFF, 1, display="color"),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"
    CATEGORY = "image"
    DESCRIPTION = "A picture of one colour."

    def generate(self, width, height, batch_size=1, color=0):
        import torch

        import comfy.model_management

        what = f"{batch_size} pictures of {width} x {height}"
        comfy.model_management.refuse_what_can_never_fit(batch_size * height * width * 3 * 4, what)
        rgb = torch.tensor([color >> shift & 0xFF for shift in (16, 8, 0)], dtype=torch.float32) / 255
        return (rgb.expand(batch_size, height, width, 3).clone(),)


class ImagePadForOutpaint:
    @classmethod
    def INPUT_TYPES(cls):
        border = {side: pixels_input() for side in ("left", "top", "right", "bottom")}
        return {"required": {"image": ("IMAGE",), **border, "feathering": pixels_input(40, step=1)}}

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "expand_image"
    CATEGORY = "image"
    DESCRIPTION = "Adds a gray border to paint on, and its mask, which fades into the picture."

    def expand_image(self, image, left, top, right, bottom, feathering):
        import comfy.canvas

        canvas, mask = comfy.canvas.pad_for_outpaint(image, left, top, right, bottom, feathering)
        return (canvas, mask.unsqueeze(0))

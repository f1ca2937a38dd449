"""Core nodes that make and change latents, and the VAE between them and pictures."""

from __future__ import annotations

import math

from comfy_extras.core_inputs import PIXELS_PER_LATENT, float_input, int_input, pixels_input


def _frames_as_batch(images):
    # Videos come as (B, T, H, W, C); images of all frames are one batch.
    return images.reshape(-1, *images.shape[-3:]) if images.ndim == 5 else images


class VAEDecode:
    @classmethod
    def INPUT_TYPES(cls):
        samples = ("LATENT", {"tooltip": "The latents to turn into pictures."})
        return {"required": {"samples": samples, "vae": ("VAE", {"tooltip": "The VAE of the model."})}}

    RETURN_TYPES = ("IMAGE",)
    OUTPUT_TOOLTIPS = ("The pictures.",)
    FUNCTION = "decode"
    CATEGORY = "latent"
    DESCRIPTION = "Turns latents into pictures."

    def decode(self, vae, samples):
        return (_frames_as_batch(vae.decode(samples["samples"])),)


def _tiles(tile_size_step):
    video = "Only for video VAEs: frames {} at a time."
    return {
        "tile_size": int_input(512, 64, 4096, tile_size_step),
        "overlap": int_input(64, 0, 4096, 32),
        "temporal_size": int_input(64, 8, 4096, 4, tooltip=video.format("handled")),
        "temporal_overlap": int_input(8, 4, 4096, 4, tooltip=video.format("shared by two parts")),
    }


class VAEDecodeTiled:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "vae": ("VAE",), **_tiles(32)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = "_for_testing"
    DESCRIPTION = "Turns latents into pictures tile by tile, which needs less memory."

    def decode(self, vae, samples, tile_size, overlap=64, temporal_size=64, temporal_overlap=8):
        overlap = min(overlap, tile_size // 4)
        if temporal_size < temporal_overlap * 2:
            temporal_overlap //= 2
        frames = vae.temporal_compression_decode()
        if frames is None:
            temporal_size = temporal_overlap = None
        else:
            temporal_size = max(2, temporal_size // frames)
            temporal_overlap = max(1, min(temporal_size // 2, temporal_overlap // frames))
        pixels = vae.spacial_compression_decode()
        images = vae.decode_tiled(
            samples["samples"],
            tile_x=tile_size // pixels,
            tile_y=tile_size // pixels,
            overlap=overlap // pixels,
            tile_t=temporal_size,
            overlap_t=temporal_overlap,
        )
        return (_frames_as_batch(images),)


class VAEEncode:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = "latent"
    DESCRIPTION = "Turns pictures into latents."

    def encode(self, vae, pixels):
        return ({"samples": vae.encode(pixels)},)


class VAEEncodeTiled:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",), **_tiles(64)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = "_for_testing"
    DESCRIPTION = "Turns pictures into latents tile by tile, which needs less memory."

    def encode(self, vae, pixels, tile_size, overlap, temporal_size=64, temporal_overlap=8):
        tiles = {"tile_x": tile_size, "tile_y": tile_size, "overlap": overlap}
        frames = {"tile_t": temporal_size, "overlap_t": temporal_overlap}
        return ({"samples": vae.encode_tiled(pixels, **tiles, **frames)},)


class VAEEncodeForInpaint:
    @classmethod
    def INPUT_TYPES(cls):
        grow = int_input(
            6, 0, 64, 1, tooltip="Pixels by which the mask grows, so that the seam is painted anew."
        )
        return {"required": {"pixels": ("IMAGE",), "vae": ("VAE",), "mask": ("MASK",), "grow_mask_by": grow}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "encode"
    CATEGORY = "latent/inpaint"
    DESCRIPTION = "Turns a picture into latents to be painted anew where the mask is set."

    def encode(self, vae, pixels, mask, grow_mask_by=6):
        import comfy.canvas

        mask = comfy.canvas.mask_like(mask, pixels)
        pixels, mask = comfy.canvas.cut_to_multiple(pixels, mask, vae.downscale_ratio)
        samples = vae.encode(comfy.canvas.gray_under_mask(pixels, mask))
        return ({"samples": samples, "noise_mask": comfy.canvas.grown(mask, grow_mask_by)},)


class EmptyLatentImage:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "width": pixels_input(512, 16, "The width of the pictures in pixels."),
                "height": pixels_input(512, 16, "The height of the pictures in pixels."),
                "batch_size": int_input(1, 1, 4096, tooltip="How many pictures are made at once."),
            }
        }

    RETURN_TYPES = ("LATENT",)
    OUTPUT_TOOLTIPS = ("Latents without content.",)
    FUNCTION = "generate"
    CATEGORY = "latent"
    DESCRIPTION = "Latents without content, to be filled by a sampler."

    def generate(self, width, height, batch_size=1):
        import torch

        import comfy.model_management

        shape = [batch_size, 4, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT]
        # In fp32, and as often as a sampler holds latents: as they are, noise, noised, denoised.
        what = f"{batch_size} latents of {width} x {height}"
        comfy.model_management.refuse_what_can_never_fit(math.prod(shape) * 4 * 4, what)
        samples = torch.zeros(shape, device=comfy.model_management.intermediate_device())
        return ({"samples": samples, "downscale_ratio_spacial": PIXELS_PER_LATENT},)


def _for_each_sample(masks, count):
    """Masks repeated so that every sample of a batch has its own."""
    if masks.shape[0] >= count:
        return masks
    repeats = (math.ceil(count / masks.shape[0]),) + (1,) * (masks.ndim - 1)
    return masks.repeat(repeats)[:count]


class LatentFromBatch:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "samples": ("LATENT",),
                "batch_index": int_input(0, 0, 63),
                "length": int_input(1, 1, 64),
            }
        }

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "frombatch"
    CATEGORY = "latent/batch"
    DESCRIPTION = "Takes some of a batch; their noise stays the one they had in it."

    def frombatch(self, samples, batch_index, length):
        out = samples.copy()
        latents = samples["samples"]
        count = latents.shape[0]
        start = min(count - 1, batch_index)
        chosen = slice(start, start + min(count - start, length))
        out["samples"] = latents[chosen].clone()
        masks = samples.get("noise_mask")
        if masks is not None:
            one_for_all = masks.shape[0] == 1
            out["noise_mask"] = (masks if one_for_all else _for_each_sample(masks, count)[chosen]).clone()
        indices = samples.get("batch_index", list(range(count)))
        out["batch_index"] = indices[chosen]
        return (out,)


class RepeatLatentBatch:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "amount": int_input(1, 1, 64)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "repeat"
    CATEGORY = "latent/batch"
    DESCRIPTION = "Repeats a batch, each time with other noise."

    def repeat(self, samples, amount):
        out = samples.copy()
        latents = samples["samples"]

        def repeated(tensor):
            return tensor.repeat((amount,) + (1,) * (tensor.ndim - 1))

        out["samples"] = repeated(latents)
        masks = samples.get("noise_mask")
        if masks is not None and masks.shape[0] > 1:
            out["noise_mask"] = repeated(_for_each_sample(masks, latents.shape[0]))
        indices = samples.get("batch_index")
        if indices is not None:
            stride = max(indices) - min(indices) + 1
            out["batch_index"] = [index + i * stride for i in range(amount) for index in indices]
        return (out,)


LATENT_SCALING = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]


class LatentUpscale:
    upscale_methods = LATENT_SCALING
    crop_methods = ["disabled", "center"]

    @classmethod
    def INPUT_TYPES(cls):
        keep = "0 keeps the proportions."
        size = {"width": pixels_input(512, 0, keep), "height": pixels_input(512, 0, keep)}
        how = {"upscale_method": (cls.upscale_methods,), **size, "crop": (cls.crop_methods,)}
        return {"required": {"samples": ("LATENT",), **how}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "upscale"
    CATEGORY = "latent"
    DESCRIPTION = "Scales latents to a size given in pixels."

    def upscale(self, samples, upscale_method, width, height, crop):
        import comfy.utils

        if width == 0 and height == 0:
            return (samples,)
        latents = samples["samples"]
        rows, columns = latents.shape[-2:]
        if width == 0:
            width = round(columns * max(64, height) / rows)
        elif height == 0:
            height = round(rows * max(64, width) / columns)
        width, height = (max(64, side) // PIXELS_PER_LATENT for side in (width, height))
        scaled = comfy.utils.common_upscale(latents, width, height, upscale_method, crop)
        return ({**samples, "samples": scaled},)


class LatentUpscaleBy:
    upscale_methods = LATENT_SCALING

    @classmethod
    def INPUT_TYPES(cls):
        how = {"upscale_method": (cls.upscale_methods,), "scale_by": float_input(1.5, 0.01, 8.0)}
        return {"required": {"samples": ("LATENT",), **how}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "upscale"
    CATEGORY = "latent"
    DESCRIPTION = "Scales latents by a factor."

    def upscale(self, samples, upscale_method, scale_by):
        import comfy.utils

        latents = samples["samples"]
        height, width = (round(side * scale_by) for side in latents.shape[-2:])
        scaled = comfy.utils.common_upscale(latents, width, height, upscale_method, "disabled")
        return ({**samples, "samples": scaled},)


class LatentRotate:
    @classmethod
    def INPUT_TYPES(cls):
        turns = ["none", "90 degrees", "180 degrees", "270 degrees"]
        return {"required": {"samples": ("LATENT",), "rotation": (turns,)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "rotate"
    CATEGORY = "latent/transform"
    DESCRIPTION = "Turns latents clockwise."

    def rotate(self, samples, rotation):
        import torch

        quarters = 0 if rotation == "none" else int(rotation.split()[0]) // 90
        return ({**samples, "samples": torch.rot90(samples["samples"], k=quarters, dims=[3, 2])},)


class LatentFlip:
    @classmethod
    def INPUT_TYPES(cls):
        methods = ["x-axis: vertically", "y-axis: horizontally"]
        return {"required": {"samples": ("LATENT",), "flip_method": (methods,)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "flip"
    CATEGORY = "latent/transform"
    DESCRIPTION = "Mirrors latents."

    def flip(self, samples, flip_method):
        import torch

        dim = 2 if flip_method.startswith("x") else 3
        return ({**samples, "samples": torch.flip(samples["samples"], dims=[dim])},)


class LatentCrop:
    @classmethod
    def INPUT_TYPES(cls):
        place = {
            "width": pixels_input(512, 64),
            "height": pixels_input(512, 64),
            "x": pixels_input(),
            "y": pixels_input(),
        }
        return {"required": {"samples": ("LATENT",), **place}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "crop"
    CATEGORY = "latent/transform"
    DESCRIPTION = "Cuts a rectangle out of latents, given in pixels; at least 64 of them."

    def crop(self, samples, width, height, x, y):
        latents = samples["samples"]
        width, height, x, y = (value // PIXELS_PER_LATENT for value in (width, height, x, y))
        x, y = min(x, latents.shape[3] - 8), min(y, latents.shape[2] - 8)
        return ({**samples, "samples": latents[:, :, y : y + height, x : x + width]},)


class LatentComposite:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {"samples_to": ("LATENT",), "samples_from": ("LATENT",)}
        return {"required": {**sides, "x": pixels_input(), "y": pixels_input(), "feather": pixels_input()}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "composite"
    CATEGORY = "latent"
    DESCRIPTION = "Pastes latents into others; feather is the width of the fading edge in pixels."

    def composite(self, samples_to, samples_from, x, y, composite_method="normal", feather=0):
        import comfy.canvas

        x, y, feather = (value // PIXELS_PER_LATENT for value in (x, y, feather))
        pasted = comfy.canvas.pasted(samples_to["samples"], samples_from["samples"], x, y, feather)
        return ({**samples_to, "samples": pasted},)


class LatentBlend:
    @classmethod
    def INPUT_TYPES(cls):
        sides = {"samples1": ("LATENT",), "samples2": ("LATENT",)}
        return {"required": {**sides, "blend_factor": float_input(0.5, 0, 1)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "blend"
    CATEGORY = "_for_testing"
    DESCRIPTION = "Mixes two latents; the factor is the share of the first."

    def blend(self, samples1, samples2, blend_factor, blend_mode="normal"):
        import comfy.utils

        if blend_mode != "normal":
            raise ValueError(f"blend_mode is '{blend_mode}'; LatentBlend knows 'normal'.")
        first = samples1["samples"]
        second = samples2["samples"].to(first.device)
        if first.shape != second.shape:
            second = comfy.utils.common_upscale(second, first.shape[3], first.shape[2], "bicubic", "center")
        return ({**samples1, "samples": first * blend_factor + second * (1 - blend_factor)},)


class SetLatentNoiseMask:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"samples": ("LATENT",), "mask": ("MASK",)}}

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "set_mask"
    CATEGORY = "latent/inpaint"
    DESCRIPTION = "Restricts sampling to where the mask is set."

    def set_mask(self, samples, mask):
        return ({**samples, "noise_mask": mask.reshape((-1, 1, *mask.shape[-2:]))},)

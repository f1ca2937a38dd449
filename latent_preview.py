"""Pictures of a latent while it is being sampled, and the progress of a sampler. Torch is imported on first
use.
"""

import functools
import logging
import os

import folder_paths
from comfy import taesd
from comfy.cli_args import LatentPreviewMethod, args

# What the command line asked for, once a prompt has asked for something else.
_method_before_override: LatentPreviewMethod | None = None

_said_no_taesd = False


def __getattr__(name: str):
    # Options are parsed after this module may have been imported, so the limit is read when asked for.
    if name == "TAESD":  # loads torch, and packs take it from here
        from comfy.taesd.taesd import TAESD

        return TAESD
    if name == "MAX_PREVIEW_RESOLUTION":
        return args.preview_size
    raise AttributeError(f"module 'latent_preview' has no attribute '{name}'")


def preview_to_image(latent_image, do_scale=True):
    """A picture from colours (H, W, 3) in -1..1, or in 0..1 when not `do_scale`."""
    import torch
    from PIL import Image

    if do_scale:
        latent_image = (latent_image + 1.0) / 2.0
    colours = latent_image.clamp(0, 1).mul(255).to(device="cpu", dtype=torch.uint8)
    return Image.fromarray(colours.numpy())


class LatentPreviewer:
    """Makes a picture from the denoised latent x0 (B, C, H, W)."""

    def decode_latent_to_preview(self, x0):
        """A PIL picture of the first sample. Overridden."""

    def decode_latent_to_preview_image(self, preview_format, x0):
        """What a progress bar takes: (format, picture, longest side)."""
        return ("JPEG", self.decode_latent_to_preview(x0), args.preview_size)


class Latent2RGBPreviewer(LatentPreviewer):
    """A linear map from latent channels to colours: rough, and nearly free."""

    def __init__(self, latent_rgb_factors, latent_rgb_factors_bias=None, latent_rgb_factors_reshape=None):
        import torch

        self.latent_rgb_factors = torch.tensor(latent_rgb_factors, device="cpu").transpose(0, 1)
        self.latent_rgb_factors_bias = None
        if latent_rgb_factors_bias is not None:
            self.latent_rgb_factors_bias = torch.tensor(latent_rgb_factors_bias, device="cpu")
        self.latent_rgb_factors_reshape = latent_rgb_factors_reshape

    def decode_latent_to_preview(self, x0):
        """See LatentPreviewer; of a video, the first frame."""
        import torch

        if self.latent_rgb_factors_reshape is not None:
            x0 = self.latent_rgb_factors_reshape(x0)
        first = x0[0, :, 0] if x0.ndim == 5 else x0[0]
        self.latent_rgb_factors = self.latent_rgb_factors.to(first)  # once: they stay on its device
        if self.latent_rgb_factors_bias is not None:
            self.latent_rgb_factors_bias = self.latent_rgb_factors_bias.to(first)
        colours = torch.nn.functional.linear(
            first.movedim(0, -1), self.latent_rgb_factors, bias=self.latent_rgb_factors_bias
        )
        return preview_to_image(colours)


class TAESDPreviewerImpl(LatentPreviewer):
    """A tiny decoder: a good picture of the full size, for a fraction of a step's time."""

    def __init__(self, taesd):
        self.taesd = taesd

    def decode_latent_to_preview(self, x0):
        """See LatentPreviewer; of a video, the first frame."""
        import torch

        first = x0[:1, :, 0] if x0.ndim == 5 else x0[:1]
        weight = next(self.taesd.taesd_decoder.parameters())
        with torch.inference_mode():
            picture = self.taesd.decode(first.to(device=weight.device, dtype=weight.dtype))
        return preview_to_image(picture[0].float().movedim(0, -1))


def _tiny_decoder_file(latent_format):
    """The file of the tiny decoder for these latents; None where there is none."""
    stem = latent_format.taesd_decoder_name
    name = stem and taesd.find_file(stem, folder_paths.get_filename_list("vae_approx"))
    return name and folder_paths.get_full_path("vae_approx", name)


@functools.lru_cache(maxsize=2)
def _load_tiny_decoder(path, modified, device):
    import comfy.taesd.taesd

    return comfy.taesd.taesd.TAESD(None, path).to(device)


def _taesd_previewer(device, latent_format):
    """A previewer with the tiny decoder; None, and once a line in the log, where it cannot be had."""
    global _said_no_taesd
    try:
        path = _tiny_decoder_file(latent_format)
        if path is not None:
            return TAESDPreviewerImpl(_load_tiny_decoder(path, os.path.getmtime(path), device))
        stem = latent_format.taesd_decoder_name
        why = f"put {stem}.safetensors into models/vae_approx" if stem else "there is none for this model"
    except (RuntimeError, OSError) as error:  # a broken file, or one that could not be fetched
        why = str(error)
    if not _said_no_taesd:
        _said_no_taesd = True
        logging.warning("TAESD previews are not available (%s); they are made with latent2rgb.", why)
    return None


def get_previewer(device, latent_format):
    """The previewer for these latents under --preview-method, or None."""
    method = args.preview_method
    if method == LatentPreviewMethod.NoPreviews:
        return None
    if method == LatentPreviewMethod.TAESD:
        previewer = _taesd_previewer(device, latent_format)
        if previewer is not None:
            return previewer
    if latent_format.latent_rgb_factors is None:
        return None
    return Latent2RGBPreviewer(
        latent_format.latent_rgb_factors,
        latent_format.latent_rgb_factors_bias,
        latent_format.latent_rgb_factors_reshape,
    )


def prepare_callback(model, steps, x0_output_dict=None):
    """A sampler callback (step, x0, x, total) that reports progress with a preview, and keeps x0 if asked."""
    import comfy.utils

    previewer = get_previewer(model.load_device, model.model.latent_format)
    bar = comfy.utils.ProgressBar(steps)

    def callback(step, x0, x, total_steps):
        if x0_output_dict is not None:
            x0_output_dict["x0"] = x0
        preview = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer else None
        bar.update_absolute(step + 1, total_steps, preview)

    return callback


def set_preview_method(override: str | None = None) -> None:
    """Use this method for previews; None, "default" or an unknown word: the command line's."""
    global _method_before_override
    if _method_before_override is None:
        _method_before_override = args.preview_method
    chosen = LatentPreviewMethod.from_string(override) if override and override != "default" else None
    args.preview_method = chosen or _method_before_override

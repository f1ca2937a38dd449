# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The VAE object of a workflow: images to latents and back, in tiles where memory runs out."""

from __future__ import annotations

import logging

import torch

import comfy.families
import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.errors import ModelFileError
from comfy.families import ldm_vae
from comfy.mapped_memory import cast_weights
from comfy.taesd.taesd import TAESD

_TINY = "taesd_decoder.1.weight"  # a key that only tiny autoencoders have


def _passes(tile_x: int, tile_y: int) -> tuple[tuple[int, int], ...]:
    """Three tilings whose mean has no visible seams: tall, wide, square."""
    return (tile_x // 2, tile_y * 2), (tile_x * 2, tile_y // 2), (tile_x, tile_y)


class VAE:
    """Images are (B, H, W, 3) in 0..1, latents (B, C, H/8, W/8) as the VAE makes them, unscaled."""

    def __init__(self, sd=None, device=None, config=None, dtype=None, metadata=None):
        management = comfy.model_management
        self.device = management.vae_device() if device is None else device
        self.output_device = management.intermediate_device()
        self.working_dtypes = [torch.bfloat16, torch.float32]
        self.vae_dtype = dtype or management.vae_dtype(self.device, self.working_dtypes)
        self.first_stage_model = None
        if sd:
            self._require_autoencoder(sd)
            cast = dict(sd)
            cast_weights(cast, [key for key in cast if not key.startswith("vae_")], self.vae_dtype)
            kind = TAESD if _TINY in cast else ldm_vae.LDMVAE
            self.first_stage_model = kind.from_weights(cast)
        shape = getattr(self.first_stage_model, "shape", None)
        self.downscale_ratio = self.upscale_ratio = shape.downscale_ratio if shape else 8
        self.latent_channels = shape.latent_channels if shape else 4
        self.output_channels = shape.image_channels if shape else 3
        self.latent_dim = 2
        self.crop_input = True
        self.not_video = False
        self.disable_offload = False
        self.extra_1d_channel = None
        self.pad_channel_value = None
        # Bytes that one picture needs, from the pixels of the input (B, C, H, W).
        self.memory_used_encode = lambda shape, dtype: 1767 * shape[2] * shape[3] * dtype.itemsize
        self.memory_used_decode = lambda shape, dtype: 2178 * shape[2] * shape[3] * 64 * dtype.itemsize
        self.process_input = lambda image: image * 2.0 - 1.0
        self.process_output = lambda image: torch.clamp((image + 1.0) / 2.0, min=0.0, max=1.0)
        self.size = None
        self.patcher = None
        if self.first_stage_model is not None:
            self.patcher = comfy.model_patcher.ModelPatcher(
                self.first_stage_model,
                load_device=self.device,
                offload_device=management.vae_offload_device(),
            )

    @staticmethod
    def _require_autoencoder(weights) -> None:
        known = (
            "encoder.down.0.block.0.norm1.weight", "encoder.down_blocks.0.resnets.0.norm1.weight", _TINY,
        )  # fmt: skip
        if not any(key in weights for key in known):
            sample = ", ".join(list(weights)[:3])
            raise ModelFileError(
                f"These weights are no VAE that is known here: {len(weights)} tensors, such as {sample}. "
                f"{comfy.families.kind_of_file(weights) or ''} Choose the file of a VAE, or take the VAE of "
                "a checkpoint."
            )

    # --- facts that nodes ask for ---

    def model_size(self) -> int:
        if self.size is None:
            self.size = comfy.model_management.module_size(self.first_stage_model)
        return self.size

    def get_ram_usage(self) -> int:
        return self.model_size()

    def get_sd(self) -> dict:
        return self.first_stage_model.state_dict()

    def state_dict_for_saving(self) -> dict:
        """The weights under the names that they have in files."""
        return self.first_stage_model.checkpoint_state_dict()

    def throw_exception_if_invalid(self) -> None:
        """Raises where the file that this VAE came from had none."""
        if self.first_stage_model is None:
            raise RuntimeError(
                "There is no VAE: the checkpoint that it was taken from does not hold one. "
                "Load a VAE file with the VAE loader and connect that."
            )

    def spacial_compression_decode(self) -> int:
        return self.upscale_ratio

    def spacial_compression_encode(self) -> int:
        return self.downscale_ratio

    def temporal_compression_decode(self):
        """Only video VAEs compress time."""
        return

    def is_dynamic(self) -> bool:
        return False

    def vae_encode_crop_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Cut the borders so that the sides are multiples of the compression; drop an alpha channel."""
        if self.crop_input:
            ratio = self.spacial_compression_encode()
            for axis, length in enumerate(pixels.shape[1:-1], start=1):
                if length < ratio:
                    raise ValueError(
                        f"A picture of {pixels.shape[-2]} x {pixels.shape[-3]} is too small for this VAE, "
                        f"which makes one latent pixel of {ratio} x {ratio}. Scale it up first."
                    )
                pixels = pixels.narrow(axis, (length % ratio) // 2, length // ratio * ratio)
        return pixels[..., : self.output_channels]

    # --- whole pictures ---

    def _prepare(self, memory_used: float) -> int:
        """Bring the VAE to its device; how many pictures fit at a time."""
        management = comfy.model_management
        management.load_models_gpu(
            [self.patcher], memory_required=memory_used, force_full_load=self.disable_offload
        )
        return max(1, int(management.get_free_memory(self.device) / max(1, memory_used)))

    def _run(self, function, samples: torch.Tensor, memory_used: float) -> torch.Tensor | None:
        """`function` on groups of samples that fit; None when memory ran out all the same.

        The caller goes on outside of the `except`: the exception holds on to the tensors of its frames, and
        must not be kept by a log either.
        """
        try:
            group = self._prepare(memory_used)
            parts = [function(part) for part in samples.split(group)]
            return torch.cat(parts)
        except (RuntimeError, MemoryError) as error:
            if not comfy.model_management.is_oom(error):
                raise
            logging.warning("Not enough memory for the VAE at this size; going on in tiles. (%s)", str(error))
            return None

    def _decode_part(self, latent: torch.Tensor) -> torch.Tensor:
        image = self.first_stage_model.decode(latent.to(device=self.device, dtype=self.vae_dtype))
        return image.to(self.output_device).float()

    def _encode_part(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = self.process_input(pixels).to(device=self.device, dtype=self.vae_dtype)
        return self.first_stage_model.encode(pixels).to(self.output_device).float()

    def decode(self, samples_in: torch.Tensor, vae_options={}) -> torch.Tensor:
        """Latents (B, C, h, w) to images (B, H, W, 3)."""
        self.throw_exception_if_invalid()
        _require_numbers(samples_in)
        if samples_in.ndim == 5:
            samples_in = samples_in[:, :, 0]
        memory_used = self.memory_used_decode(samples_in.shape, self.vae_dtype)
        images = self._run(lambda part: self.process_output(self._decode_part(part)), samples_in, memory_used)
        if images is None:
            comfy.model_management.soft_empty_cache()
            images = self.decode_tiled_(samples_in)
        return images.to(self.output_device).movedim(1, -1)

    def encode(self, pixel_samples: torch.Tensor) -> torch.Tensor:
        """Images (B, H, W, 3) to latents (B, C, h, w): the mean of the distribution."""
        self.throw_exception_if_invalid()
        pixels = self.vae_encode_crop_pixels(pixel_samples).movedim(-1, 1)
        latents = self._run(self._encode_part, pixels, self.memory_used_encode(pixels.shape, self.vae_dtype))
        if latents is None:
            comfy.model_management.soft_empty_cache()
            latents = self.encode_tiled_(pixels)
        return latents

    # --- tiles ---

    def _tiled(self, function, samples, tile_x: int, tile_y: int, overlap: int, **scale) -> torch.Tensor:
        width, height = samples.shape[3], samples.shape[2]
        shortest = min(tile_x, tile_y) // 2  # of the tall and wide tiles
        if overlap >= shortest:  # tiles would never come to the end
            overlap = shortest // 2
        tilings = _passes(tile_x, tile_y)
        steps = sum(comfy.utils.get_tiled_scale_steps(width, height, x, y, overlap) for x, y in tilings)
        progress = comfy.utils.ProgressBar(steps * samples.shape[0])
        total = sum(
            comfy.utils.tiled_scale(
                samples, function, x, y, overlap, output_device=self.output_device, pbar=progress, **scale
            )
            for x, y in tilings
        )
        return total / len(tilings)

    def decode_tiled_(self, samples, tile_x=64, tile_y=64, overlap=16) -> torch.Tensor:
        """Sizes in latent pixels; gives (B, 3, H, W)."""
        return self.process_output(
            self._tiled(
                self._decode_part, samples, tile_x, tile_y, overlap,
                upscale_amount=self.upscale_ratio, out_channels=self.output_channels,
            )
        )  # fmt: skip

    def encode_tiled_(self, pixel_samples, tile_x=512, tile_y=512, overlap=64) -> torch.Tensor:
        """Sizes in pixels; takes (B, 3, H, W)."""
        return self._tiled(
            self._encode_part, pixel_samples, tile_x, tile_y, overlap,
            upscale_amount=1 / self.downscale_ratio, out_channels=self.latent_channels,
        )  # fmt: skip

    def decode_tiled(self, samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None):
        """`decode`, in tiles of so many latent pixels. The times of video VAEs are not used here."""
        self.throw_exception_if_invalid()
        _require_numbers(samples)
        self._prepare(self.memory_used_decode((1, 1, tile_y or 64, tile_x or 64), self.vae_dtype))
        return self.decode_tiled_(samples, **_given(tile_x, tile_y, overlap)).movedim(1, -1)

    def encode_tiled(
        self, pixel_samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None
    ):
        """`encode`, in tiles of so many pixels. The times of video VAEs are not used here."""
        self.throw_exception_if_invalid()
        self._prepare(self.memory_used_encode((1, 3, tile_y or 512, tile_x or 512), self.vae_dtype))
        pixels = self.vae_encode_crop_pixels(pixel_samples).movedim(-1, 1)
        return self.encode_tiled_(pixels, **_given(tile_x, tile_y, overlap))


def _require_numbers(latents: torch.Tensor) -> None:
    """A latent that is not finite would become a black picture without a word."""
    bad = [i for i, latent in enumerate(latents) if not torch.isfinite(latent).all()]
    if bad:
        raise ValueError(
            f"These latents hold values that are no numbers (NaN or infinity; in {len(bad)} of "
            f"{len(latents)}), so there is no picture in them. Something before went out of range: try a "
            "lower cfg, another sampler, fewer LoRAs, or start with --force-fp32."
        )


def _given(tile_x, tile_y, overlap) -> dict[str, int]:
    options = {"tile_x": tile_x, "tile_y": tile_y, "overlap": overlap}
    return {name: value for name, value in options.items() if value is not None}

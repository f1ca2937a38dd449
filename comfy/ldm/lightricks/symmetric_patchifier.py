"""Latents of LTX-Video as tokens with positions, and back."""

from __future__ import annotations

import copy

import torch


def latent_to_pixel_coords(latent_coords, scale_factors: tuple[int, int, int], causal_fix: bool = False):
    """Positions (B, frame row column, tokens, ...) in frames and pixels.

    With `causal_fix` the first latent frame is one frame, and the others begin after it.
    """
    factors = latent_coords.new_tensor(scale_factors).reshape(1, -1, *([1] * (latent_coords.ndim - 2)))
    out = latent_coords * factors
    if causal_fix:
        frames = (out[:, :1] + 1 - scale_factors[0]).clamp(min=0)
        out = torch.cat([frames, out[:, 1:]], dim=1)
    return out


class Patchifier:
    """Squares of `patch_size` pixels of a frame are a token; `start_end` gives positions of both corners."""

    def __init__(self, patch_size: int, start_end: bool = False):
        self._patch_size = (1, patch_size, patch_size)
        self.start_end = start_end

    @property
    def patch_size(self) -> tuple[int, int, int]:
        return self._patch_size

    def patchify(self, latents):
        raise NotImplementedError(f"{type(self).__name__} does not say how latents become tokens.")

    def get_latent_coords(self, latent_num_frames, latent_height, latent_width, batch_size, device):
        """(B, 3, tokens), or with `start_end` (B, 3, tokens, 2): frame, row and column in latent pixels."""
        sides = zip((latent_num_frames, latent_height, latent_width), self._patch_size)
        axes = [torch.arange(0, side, step, device=device) for side, step in sides]
        start = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        if self.start_end:
            start = torch.stack((start, start + start.new_tensor(self._patch_size)[:, None]), dim=-1)
        return start.unsqueeze(0).repeat(batch_size, *([1] * start.ndim))


class SymmetricPatchifier(Patchifier):
    """Clips (B, C, frames, H, W)."""

    def patchify(self, latents):
        """(tokens (B, n, C * patch), positions)."""
        batch, _, frames, height, width = latents.shape
        _, down, across = self._patch_size
        x = latents.unflatten(4, (-1, across)).unflatten(3, (-1, down))  # (B, C, f, h, down, w, across)
        tokens = x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        return tokens, self.get_latent_coords(frames, height, width, batch, latents.device)

    def unpatchify(self, latents, output_height, output_width, output_num_frames, out_channels):
        """(B, C, frames, H, W)."""
        _, down, across = self._patch_size
        grid = (output_num_frames, output_height // down, output_width // across)
        x = latents.unflatten(2, (-1, down, across)).unflatten(1, grid)  # (B, f, h, w, C, down, across)
        return x.permute(0, 4, 1, 2, 5, 3, 6).flatten(5).flatten(3, 4)


class AudioPatchifier(Patchifier):
    """Sounds (B, C, time, frequencies): a token per time; positions are in seconds."""

    def __init__(
        self, patch_size: int, sample_rate=16000, hop_length=160, audio_latent_downsample_factor=4,
        is_causal=True, start_end=False, shift=0,
    ):  # fmt: skip
        super().__init__(patch_size, start_end)
        self.sample_rate, self.hop_length, self.shift = sample_rate, hop_length, shift
        self.audio_latent_downsample_factor, self.is_causal = audio_latent_downsample_factor, is_causal

    def copy_with_shift(self, shift):
        """The same, with positions from another time on."""
        other = copy.copy(self)
        other.shift = shift
        return other

    def _seconds(self, start: int, count: int, device):
        """When each token begins."""
        factor = self.audio_latent_downsample_factor
        frames = torch.arange(start, start + count, dtype=torch.float32, device=device) * factor
        if self.is_causal:
            frames = (frames + 1 - factor).clamp(min=0)
        return frames * self.hop_length / self.sample_rate

    def patchify(self, audio_latents):
        """(tokens (B, time, C * frequencies), seconds (B, 1, time), or with `start_end` (B, 1, time, 2))."""
        batch, _, count, _ = audio_latents.shape
        begins = self._seconds(self.shift, count, audio_latents.device)
        if self.start_end:
            begins = torch.stack((begins, self._seconds(self.shift + 1, count, begins.device)), dim=-1)
        return audio_latents.transpose(1, 2).flatten(2), begins.expand(batch, 1, *begins.shape)

    def unpatchify(self, audio_latents, channels: int, freq: int):
        """(B, C, time, frequencies)."""
        return audio_latents.unflatten(2, (channels, freq)).transpose(1, 2)

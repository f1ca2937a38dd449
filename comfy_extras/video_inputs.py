"""Inputs and outputs that many nodes of video models have in common."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_extras.core_inputs import MAX_RESOLUTION


def guided(*, vae: bool = True) -> list[Any]:
    """Both sides of the guidance, and the VAE."""
    sides = [io.Conditioning.Input("positive"), io.Conditioning.Input("negative")]
    return [*sides, io.Vae.Input("vae")] if vae else sides


def frame_size(width: int, height: int, *, low: int = 16, step: int = 16) -> list[Any]:
    """Width and height in pixels."""
    return [
        io.Int.Input(name, default=default, min=low, max=MAX_RESOLUTION, step=step)
        for name, default in (("width", width), ("height", height))
    ]


def batch_size() -> io.Int.Input:
    """How many at once."""
    return io.Int.Input("batch_size", default=1, min=1, max=4096)


def video_size(
    width: int,
    height: int,
    length: int,
    *,
    low: int = 16,
    step: int = 16,
    shortest: int = 1,
    length_step: int = 4,
) -> list[Any]:
    """Width and height in pixels, length in frames, and how many videos."""
    frames = io.Int.Input("length", default=length, min=shortest, max=MAX_RESOLUTION, step=length_step)
    return [*frame_size(width, height, low=low, step=step), frames, batch_size()]


def sides_out(*, latent: bool = True) -> list[Any]:
    """Both sides of the guidance, and the latent to sample."""
    sides = [io.Conditioning.Output(display_name=name) for name in ("positive", "negative")]
    return [*sides, io.Latent.Output(display_name="latent")] if latent else sides

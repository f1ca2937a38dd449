"""What nodes of absent families are given in tests: objects that answer as a VAE and a CLIP do.

No VAE for videos can be loaded here yet; these compute something simple that a test can compute again.
"""

from __future__ import annotations

from typing import Any

import torch


class VideoVAE:
    """Averages of blocks: the first frame alone, then `per` frames in one; each colour gives channels."""

    def __init__(self, channels: int = 16, scale: int = 8, per: int = 4) -> None:
        self.latent_channels, self.scale, self.per = channels, scale, per
        self.downscale_ratio = scale
        self.downscale_index_formula = (per, scale, scale)

    def spacial_compression_encode(self) -> int:
        return self.scale

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """(T, H, W, 3) -> (1, C, latent T, H / scale, W / scale)"""
        assert frames.shape[-1] == 3
        video = frames.movedim(-1, 0)  # (3, T, H, W)
        count = (len(frames) - 1) // self.per
        rest = video[:, 1 : 1 + count * self.per].unflatten(1, (count, self.per)).mean(2)
        blocks = torch.nn.functional.avg_pool2d(torch.cat([video[:, :1], rest], dim=1), self.scale)
        return blocks.repeat(self.latent_channels // 3 + 1, 1, 1, 1)[None, : self.latent_channels]


class ListeningCLIP:
    """Keeps what it is to encode; an embedding holds the number of characters."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def tokenize(self, text: str, **how: Any) -> dict[str, Any]:
        self.asked.append((text, how))
        return {"text": text}

    def encode_from_tokens_scheduled(self, tokens: dict[str, Any]) -> list[Any]:
        return [[torch.full((1, 2, 4), float(len(tokens["text"]))), {}]]


def conditioning(value: float = 1.0) -> list[Any]:
    return [[torch.full((1, 2, 4), value), {}]]


def pictures(count: int = 1, height: int = 48, width: int = 64, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count * 7 + height)
    return torch.rand(count, height, width, channels, generator=generator)

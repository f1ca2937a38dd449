"""Pictures from the demo model by way of the product's own nodes, with the settings of the demo workflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scripts import demo_shapes

STEPS, CFG, SAMPLER, SCHEDULER = 20, 4.0, "euler", "normal"


def tasks(count: int) -> list[tuple[int, str, str]]:
    """(seed, colour, shape) of the first `count` pictures: every kind in turn, every picture its own seed."""
    kinds = demo_shapes.KINDS
    return [(1000 + i, *kinds[i % len(kinds)]) for i in range(count)]


class Artist:
    """A loaded checkpoint that draws what a prompt says."""

    def __init__(self, checkpoint: Path) -> None:
        import comfy.sd

        self.model, self.clip, self.vae = comfy.sd.load_checkpoint_guess_config(str(checkpoint))[:3]

    def draw(self, prompt: str, *, seed: int, sampler: str = SAMPLER) -> np.ndarray:
        """One picture as an array (64, 64, 3) of floats in 0..1."""
        import nodes

        with torch.inference_mode():
            sides = [nodes.CLIPTextEncode().encode(self.clip, text)[0] for text in (prompt, "")]
            return self.draw_from(*sides, seed=seed, sampler=sampler)

    def draw_from(
        self, positive, negative, *, seed: int, latent=None, denoise=1.0, sampler=SAMPLER
    ) -> np.ndarray:
        """`draw` for conditionings, and from a LATENT where one is given."""
        import nodes

        if latent is None:
            latent = nodes.EmptyLatentImage().generate(demo_shapes.SIZE, demo_shapes.SIZE, 1)[0]
        latent = nodes.KSampler().sample(
            self.model, seed, STEPS, CFG, sampler, SCHEDULER, positive, negative, latent, denoise=denoise
        )[0]
        return nodes.VAEDecode().decode(self.vae, latent)[0][0].float().numpy()


def save_sheet(pictures: list[np.ndarray], file: Path, *, columns: int = 10) -> None:
    """All pictures side by side in one PNG."""
    side = demo_shapes.SIZE
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for i, picture in enumerate(pictures):
        tile = Image.fromarray((picture * 255).round().clip(0, 255).astype(np.uint8))
        sheet.paste(tile, (i % columns * side, i // columns * side))
    sheet.save(file)

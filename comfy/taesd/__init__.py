"""Tiny autoencoders (TAESD): previews of latents, and a VAE where quality counts less than time. What stands
here needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable

# As VAE: (scale, shift) that take the latents of a family's VAE to those that its model samples.
LATENTS = {
    "taesd": (0.18215, 0.0),
    "taesdxl": (0.13025, 0.0),
    "taesd3": (1.5305, 0.0609),
    "taef1": (0.3611, 0.1159),
}


def find_file(stem: str, names: Iterable[str]) -> str | None:
    """The file of `names` that is called `stem`, with any extension; the safetensors one of several."""
    found = [name for name in names if name.startswith(stem + ".")]
    return min(found, key=lambda name: (not name.endswith(".safetensors"), name), default=None)


def files_of(vae_name: str, names: Iterable[str]) -> tuple[str, str] | None:
    """(encoder, decoder) of one of `LATENTS` among the names of `vae_approx`; None unless both are there."""
    names = list(names)
    encoder, decoder = (find_file(f"{vae_name}_{half}", names) for half in ("encoder", "decoder"))
    return (encoder, decoder) if encoder and decoder else None


def available(names: Iterable[str]) -> list[str]:
    """Which of `LATENTS` can be used as VAE with these files."""
    names = list(names)
    return [vae_name for vae_name in LATENTS if files_of(vae_name, names)]

"""TAESD on the zoo's layers, from files in the layout of its author (`1.weight`, `3.conv.0.weight`, ...)."""

from __future__ import annotations

import torch
from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny
from torch import nn

import comfy.ops
import comfy.utils
from comfy.errors import ModelFileError
from comfy.families.base import StateDict, build_empty, load_exactly
from comfy.families.ldm_vae import VAEShape
from comfy.taesd import LATENTS

# Residual blocks of each level. In the files, the layers of a decoder are counted from the clamp on, which is
# no layer in the zoo.
ENCODER_BLOCKS, DECODER_BLOCKS = (1, 3, 3, 3), (3, 3, 3, 1)
FIRST_LAYER = {"encoder": 0, "decoder": 1}


def _layers(weights: StateDict, half: str) -> dict[str, torch.Tensor]:
    """Weights of a file under the zoo's names: `7.weight` is `layers.7.weight`, or `layers.6.weight`."""
    out = {}
    for key, tensor in weights.items():
        number, dot, rest = key.partition(".")
        if not (number.isdigit() and dot):
            raise ModelFileError(
                f"This is no file of a TAESD {half}: it has weights named '{key}', and none of its own "
                f"are named so. Download taesd_{half}.safetensors again."
            )
        out[f"layers.{int(number) - FIRST_LAYER[half]}.{rest}"] = tensor
    return out


def make_encoder(weights: StateDict) -> nn.Module:
    """(B, 3, H, W) in -1..1 -> latent (B, C, H/8, W/8) as the model samples it."""
    weights = _layers(weights, "encoder")
    sides = [tensor for name, tensor in weights.items() if name in ("layers.0.weight", "layers.14.weight")]
    features = sides[0].shape[0] if sides else 64
    latent_channels = sides[-1].shape[0] if sides else 4
    encoder = build_empty(
        lambda: EncoderTiny(3, latent_channels, ENCODER_BLOCKS, (features,) * len(ENCODER_BLOCKS), "relu")
    )
    load_exactly(encoder, weights, what="TAESD encoder")
    return encoder


def make_decoder(weights: StateDict) -> nn.Module:
    """Latent (B, C, h, w) as the model samples it -> (B, 3, 8h, 8w), about -1..1."""
    weights = _layers(weights, "decoder")
    first = weights.get("layers.0.weight", torch.empty(64, 4))
    features, latent_channels = first.shape[:2]
    decoder = build_empty(
        lambda: DecoderTiny(
            latent_channels, 3, DECODER_BLOCKS, (features,) * len(DECODER_BLOCKS), 2, "relu", "nearest"
        )
    )
    load_exactly(decoder, weights, what="TAESD decoder")
    return decoder


class TAESD(nn.Module):
    """The tiny autoencoder with a VAE's calls; a half without a file is None.

    Latents outside are those of the VAE that it stands for: `vae_scale` and `vae_shift` lead to the model's.
    """

    device = None  # set by ModelPatcher

    def __init__(self, encoder_path=None, decoder_path=None, latent_channels=4):
        super().__init__()
        self.taesd_encoder = self.taesd_decoder = None
        self.vae_scale = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.vae_shift = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        self.shape = VAEShape(channels=(64,) * 4, layers_per_block=3, latent_channels=latent_channels)
        if encoder_path is not None:
            self.taesd_encoder = make_encoder(comfy.utils.load_torch_file(encoder_path))
        if decoder_path is not None:
            self.taesd_decoder = make_decoder(comfy.utils.load_torch_file(decoder_path))

    @classmethod
    def from_weights(cls, weights: StateDict) -> TAESD:
        """Of weights as `weights_of` gives them."""
        halves: dict[str, dict] = {"taesd_encoder.": {}, "taesd_decoder.": {}}
        for key, tensor in weights.items():
            for prefix, half in halves.items():
                if key.startswith(prefix):
                    half[key[len(prefix) :]] = tensor
        vae = cls(latent_channels=halves["taesd_decoder."]["1.weight"].shape[1])
        vae.taesd_encoder = make_encoder(halves["taesd_encoder."])
        vae.taesd_decoder = make_decoder(halves["taesd_decoder."])
        for name in ("vae_scale", "vae_shift"):
            if name in weights:
                getattr(vae, name).data.fill_(float(weights[name]))
        return vae

    def checkpoint_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights under the names of `weights_of`."""
        out = {"vae_scale": self.vae_scale, "vae_shift": self.vae_shift}
        for half, module in (("encoder", self.taesd_encoder), ("decoder", self.taesd_decoder)):
            for key, tensor in module.state_dict().items():
                _, number, rest = key.split(".", 2)
                out[f"taesd_{half}.{int(number) + FIRST_LAYER[half]}.{rest}"] = tensor
        return out

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in -1..1 -> latent (B, C, H/8, W/8)."""
        return self.taesd_encoder(x) / self.vae_scale + self.vae_shift

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latent -> image (B, 3, H, W), about -1..1."""
        return self.taesd_decoder((z - self.vae_shift) * self.vae_scale)


def weights_of(vae_name: str, encoder_path, decoder_path) -> dict[str, torch.Tensor]:
    """What `comfy.sd.VAE` takes, for one of `LATENTS`."""
    scale, shift = LATENTS[vae_name]
    out = {"vae_scale": torch.tensor(scale), "vae_shift": torch.tensor(shift)}
    for prefix, path in (("taesd_encoder.", encoder_path), ("taesd_decoder.", decoder_path)):
        out |= {prefix + key: tensor for key, tensor in comfy.utils.load_torch_file(path).items()}
    return out


# --- the layers of tiny autoencoders, from which packs build theirs ---


def conv(n_in, n_out, **kwargs):
    """Three by three, of the same size."""
    return comfy.ops.disable_weight_init.Conv2d(n_in, n_out, 3, padding=1, **kwargs)


class Clamp(nn.Module):
    """Softly to -3..3."""

    def forward(self, x):
        return 3 * torch.tanh(x / 3)


class Block(nn.Module):
    """Three convolutions beside a way around them; with `use_midblock_gn` normalised channels come first."""

    def __init__(self, n_in: int, n_out: int, use_midblock_gn: bool = False):
        super().__init__()
        ops = comfy.ops.disable_weight_init
        self.conv = nn.Sequential(
            conv(n_in, n_out), nn.ReLU(), conv(n_out, n_out), nn.ReLU(), conv(n_out, n_out)
        )  # fmt: skip
        self.skip = nn.Identity() if n_in == n_out else ops.Conv2d(n_in, n_out, 1, bias=False)
        self.fuse = nn.ReLU()
        self.pool = None
        if use_midblock_gn:
            wide = 4 * n_in
            self.pool = nn.Sequential(
                ops.Conv2d(n_in, wide, 1, bias=False), ops.GroupNorm(4, wide), nn.ReLU(inplace=True),
                ops.Conv2d(wide, n_in, 1, bias=False),
            )  # fmt: skip

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return self.fuse(self.conv(x) + self.skip(x))

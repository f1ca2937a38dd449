"""The KL autoencoder of latent diffusion: from the checkpoint layout to diffusers' AutoencoderKL."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL

from comfy.families.base import StateDict, build_empty, count_indices, load_exactly


@dataclass(frozen=True)
class VAEShape:
    """Hyper-parameters of a KL autoencoder."""

    channels: tuple[int, ...]  # per level
    layers_per_block: int
    latent_channels: int
    image_channels: int = 3
    has_quant_conv: bool = True

    @property
    def downscale_ratio(self) -> int:
        return 2 ** (len(self.channels) - 1)


def shape_of(weights: StateDict) -> VAEShape:
    """Read the hyper-parameters off the shapes; names as below `first_stage_model.`."""
    levels = count_indices(weights, "encoder.down.{}.")
    channels = [weights[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)]
    return VAEShape(
        channels=tuple(channels),
        layers_per_block=count_indices(weights, "encoder.down.0.block.{}."),
        latent_channels=weights["decoder.conv_in.weight"].shape[1],
        image_channels=weights["encoder.conv_in.weight"].shape[1],
        has_quant_conv="quant_conv.weight" in weights,
    )


_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def module_names(shape: VAEShape) -> dict[str, str]:
    """Block of the checkpoint -> block of the zoo's module."""
    names = {}
    levels = len(shape.channels)
    for half in ("encoder", "decoder"):
        names[f"{half}.mid.block_1"] = f"{half}.mid_block.resnets.0"
        names[f"{half}.mid.block_2"] = f"{half}.mid_block.resnets.1"
        names[f"{half}.mid.attn_1"] = f"{half}.mid_block.attentions.0"
        names[f"{half}.norm_out"] = f"{half}.conv_norm_out"
    for level in range(levels):
        for index in range(shape.layers_per_block):
            names[f"encoder.down.{level}.block.{index}"] = f"encoder.down_blocks.{level}.resnets.{index}"
        names[f"encoder.down.{level}.downsample.conv"] = f"encoder.down_blocks.{level}.downsamplers.0.conv"
        up = levels - 1 - level  # the zoo counts from the latent up
        for index in range(shape.layers_per_block + 1):
            names[f"decoder.up.{level}.block.{index}"] = f"decoder.up_blocks.{up}.resnets.{index}"
        names[f"decoder.up.{level}.upsample.conv"] = f"decoder.up_blocks.{up}.upsamplers.0.conv"
    return names


def zoo_name(key: str, names: dict[str, str]) -> str:
    """One key of the checkpoint under the zoo's name; keys that are the same in both stay."""
    parts = key.split(".")
    for length in (5, 3, 2):
        block, rest = ".".join(parts[:length]), parts[length:]
        if block in names:
            if block.endswith("attn_1"):
                rest[0] = _ATTENTION[rest[0]]
            elif rest[0] == "nin_shortcut":
                rest[0] = "conv_shortcut"
            return ".".join([names[block], *rest])
    return key


def _is_attention_matrix(name: str, tensor: torch.Tensor) -> bool:
    return tensor.ndim == 4 and name.endswith(".weight") and ".attentions." in name


def checkpoint_weights(weights: StateDict) -> dict[str, torch.Tensor]:
    """The zoo's weights under the names, and in the shapes, of a checkpoint."""
    levels = count_indices(weights, "encoder.down_blocks.{}.")
    layers = count_indices(weights, "encoder.down_blocks.0.resnets.{}.")
    shape = VAEShape(channels=(0,) * levels, layers_per_block=layers, latent_channels=0)
    blocks = {new: old for old, new in module_names(shape).items()}
    inside = {new: old for old, new in _ATTENTION.items()} | {"conv_shortcut": "nin_shortcut"}
    out = {}
    for key, tensor in weights.items():
        parts = key.split(".")
        length = next((n for n in (6, 5, 4, 2) if ".".join(parts[:n]) in blocks), 0)
        if length:
            rest = ".".join(parts[length:]).replace("to_out.0", "to_out_0").split(".")
            rest[0] = inside.get(rest[0].replace("to_out_0", "to_out.0"), rest[0])
            name = ".".join([blocks[".".join(parts[:length])], *rest])
        else:
            name = key
        matrix = ".attn_1." in name and name.endswith(".weight") and tensor.ndim == 2
        out[name] = tensor[:, :, None, None] if matrix else tensor
    return out


class LDMVAE(AutoencoderKL):
    """diffusers' autoencoder with ComfyUI's calls: `encode` gives the mean, `decode` the image."""

    device = None  # set by ModelPatcher; diffusers' own property could not be

    def __init__(self, shape: VAEShape):
        levels = len(shape.channels)
        super().__init__(
            in_channels=shape.image_channels,
            out_channels=shape.image_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=shape.channels,
            layers_per_block=shape.layers_per_block,
            latent_channels=shape.latent_channels,
            use_quant_conv=shape.has_quant_conv,
            use_post_quant_conv=shape.has_quant_conv,
        )
        self.shape = shape

    @classmethod
    def from_weights(cls, weights: StateDict) -> LDMVAE:
        """Built for these weights and holding them: no copy is made."""
        if "encoder.down_blocks.0.resnets.0.norm1.weight" in weights:  # a file in the zoo's own layout
            weights = checkpoint_weights(weights)
        shape = shape_of(weights)
        vae = build_empty(lambda: cls(shape))
        names = module_names(shape)
        renamed = {
            zoo_name(key, names): tensor for key, tensor in weights.items() if not key.startswith("loss.")
        }
        for name, tensor in renamed.items():
            if _is_attention_matrix(name, tensor):  # a 1x1 convolution there, a matrix here
                renamed[name] = tensor.reshape(tensor.shape[:2])
        load_exactly(vae, renamed, what="VAE")
        return vae

    def checkpoint_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights under the names of a checkpoint."""
        return checkpoint_weights(self.state_dict())

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in -1..1 -> mean of the latent (B, C, H/8, W/8)."""
        moments = self.encoder(x)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments.chunk(2, dim=1)[0]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Latent -> image (B, 3, H, W), about -1..1."""
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        return self.decoder(z)

"""Union ControlNets of SDXL (xinsir's, ProMax too): one network for pictures of several types.

A ControlNet that is told the type of its picture: as a vector beside the time, and by a transformer layer
that looks at the mean of the picture's features and moves each of their channels.
"""

from __future__ import annotations

import torch
from diffusers.models.controlnets.controlnet_union import ResidualAttentionBlock
from diffusers.models.embeddings import TimestepEmbedding, Timesteps

from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy.families.ldm_controlnet import ControlNetShape, LDMControlNet, controlnet_shape, zoo_weights
from comfy.families.ldm_forward import attention

TYPES = "task_embedding"
HEADS = 8
TYPE_CHANNELS = 256  # of the sinusoids that tell whether a type is meant


def is_union(weights: StateDict) -> bool:
    """Whether a ControlNet's weights are those of a union."""
    return TYPES in weights or "control_model." + TYPES in weights


class TokenAttention(torch.nn.Module):
    """Attention among the tokens of each picture, with one layer for q, k and v."""

    def __init__(self, width: int):
        super().__init__()
        self.in_proj = torch.nn.Linear(width, 3 * width)
        self.out_proj = torch.nn.Linear(width, width)

    def forward(self, x, *_same, **_unused):
        """x is (B, tokens, width); given and giving back what torch's layer does."""
        return self.out_proj(attention(*self.in_proj(x).chunk(3, dim=-1), HEADS)), None


class UnionControlNet(LDMControlNet):
    """A ControlNet with types of pictures."""

    def __init__(self, shape: ControlNetShape, types: int, width: int, layers: int):
        super().__init__(shape)
        channels = shape.unet.model_channels
        self.types = types
        self.task_embedding = torch.nn.Parameter(torch.zeros(types, width))
        self.transformer_layes = torch.nn.ModuleList(
            ResidualAttentionBlock(width, HEADS) for _ in range(layers)
        )
        for layer in self.transformer_layes:
            layer.attn = TokenAttention(width)
        self.spatial_ch_projs = torch.nn.Linear(width, channels)
        self.control_type_proj = Timesteps(TYPE_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.control_add_embedding = TimestepEmbedding(TYPE_CHANNELS * types, channels * 4)

    @classmethod
    def from_weights(cls, weights: StateDict) -> UnionControlNet:
        """Built for these weights, of either layout, and holding them."""
        weights = {
            key.replace(".attn.in_proj_", ".attn.in_proj."): tensor
            for key, tensor in zoo_weights(weights).items()
        }
        types, width = weights[TYPES].shape
        layers = count_indices(weights, "transformer_layes.{}.")
        net = build_empty(lambda: cls(controlnet_shape(weights), types, width, layers))
        load_exactly(net, weights, what="union ControlNet")
        return net

    def steering(self, timesteps, y, dtype, control_type=(), **_unused) -> torch.Tensor:
        """The vector of every block; `control_type` lists the type of the picture, or nothing."""
        self._require_known(control_type)
        meant = torch.zeros(self.types, device=timesteps.device)
        meant[list(control_type)] = 1.0
        told = self.control_type_proj(meant).flatten().unsqueeze(0).to(dtype)
        return super().steering(timesteps, y, dtype) + self.control_add_embedding(told)

    def picture(self, hint, control_type=(), **_unused) -> torch.Tensor:
        """The picture's features; where its type is told, moved by what the network makes of both."""
        features = self.controlnet_cond_embedding(hint)
        if not control_type:
            return features
        kind = self.task_embedding[control_type[0]].to(features)
        token = (features.mean(dim=(2, 3)) + kind).unsqueeze(1)
        for layer in self.transformer_layes:
            token = layer(token)
        return features + self.spatial_ch_projs(token[:, 0])[:, :, None, None]

    def _require_known(self, control_type) -> None:
        names = {number: name for name, number in UNION_CONTROLNET_TYPES.items()}
        unknown = [names.get(number, number) for number in control_type if not 0 <= number < self.types]
        if unknown:
            known = ", ".join(str(names.get(number, number)) for number in range(self.types))
            raise ValueError(
                f"This union ControlNet knows no pictures of the type '{unknown[0]}'. It knows: {known}. "
                "Choose one of these (or auto) in SetUnionControlNetType, or a network with more types "
                "('ProMax')."
            )

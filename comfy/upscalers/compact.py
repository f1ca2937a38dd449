"""SRVGGNetCompact, the small network of RealESRGAN's video and general models: convolutions at the size of
the picture, then a pixel shuffle on top of the nearest-neighbour enlargement.
"""

from __future__ import annotations

import math

from torch import nn
from torch.nn import functional

from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy.upscalers.base import Architecture


class CompactNet(nn.Module):
    """(B, channels, H, W) in 0..1 -> (B, channels, H * scale, W * scale), about 0..1."""

    def __init__(self, channels: int, features: int, convolutions: int, scale: int):
        super().__init__()
        self.channels, self.scale = channels, scale
        layers: list[nn.Module] = []
        for number in range(convolutions - 1):
            inputs = features if number else channels
            layers += [nn.Conv2d(inputs, features, kernel_size=3, padding=1), nn.PReLU(features)]
        layers.append(nn.Conv2d(features, channels * scale**2, kernel_size=3, padding=1))
        self.body = nn.Sequential(*layers)

    @classmethod
    def from_weights(cls, weights: StateDict) -> CompactNet:
        """Built for these weights and holding them."""
        features, channels = weights["body.0.weight"].shape[:2]
        layers = count_indices(weights, "body.{}.")
        outputs = weights[f"body.{layers - 1}.weight"].shape[0]
        scale = math.isqrt(outputs // channels)
        net = build_empty(lambda: cls(channels, features, (layers + 1) // 2, scale))
        load_exactly(net, weights, what="upscale model (SRVGGNetCompact)")
        return net

    def forward(self, x):
        enlarged = functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return enlarged + functional.pixel_shuffle(self.body(x), self.scale)


def accepts(weights: StateDict) -> bool:
    """A convolution, one slope for each of its channels, and nothing but such a body."""
    first, slopes = weights["body.0.weight"], weights["body.1.weight"]
    is_pair = first.ndim == 4 and slopes.shape == first.shape[:1]
    return is_pair and all(key.startswith("body.") for key in weights)


ARCHITECTURE = Architecture(
    name="RealESRGAN compact (SRVGGNetCompact)",
    layouts=(("body.0.weight", "body.1.weight", "body.2.weight"),),
    build=CompactNet.from_weights,
    accepts=accepts,
)

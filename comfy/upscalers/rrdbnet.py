"""RRDBNet, the network of ESRGAN (arXiv:1809.00219) and RealESRGAN (arXiv:2107.10833).

Three layouts of names are read: that of the first ESRGAN files (`model.1.sub.0.RDB1.conv1.0.weight`), that of
the ESRGAN repository (`RRDB_trunk.0.RDB1.conv1.weight`) and that of BasicSR, which is the module's own. Of
blocks, features, scale and channels any number loads.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy.upscalers.base import Architecture

RESIDUAL_SCALE = 0.2  # beta of the paper
NEGATIVE_SLOPE = 0.2
SIDE_MULTIPLE = 4  # to which nets that unshuffle mirror the picture's borders, in pixels


@dataclass(frozen=True)
class RRDBShape:
    """Hyper-parameters of an RRDBNet."""

    channels: int  # of the pictures
    features: int
    growth: int  # channels that each convolution of a dense block adds
    blocks: int
    doublings: int  # how often the features are enlarged by two
    unshuffle: int = 1  # squares of so many pixels a side come in as one, with more channels

    @property
    def scale(self) -> int:
        return 2**self.doublings // self.unshuffle


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def _activated(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, NEGATIVE_SLOPE)


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and what all before it made."""

    def __init__(self, shape: RRDBShape):
        super().__init__()
        for number in range(1, 6):
            outputs = shape.growth if number < 5 else shape.features
            self.add_module(f"conv{number}", _conv(shape.features + (number - 1) * shape.growth, outputs))

    def forward(self, x):
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat([seen, _activated(conv(seen))], dim=1)
        return x + RESIDUAL_SCALE * self.conv5(seen)


class RRDB(nn.Module):
    """Three dense blocks with a residual around them."""

    def __init__(self, shape: RRDBShape):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(shape) for _ in range(3))

    def forward(self, x):
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """(B, channels, H, W) in 0..1 -> (B, channels, H * scale, W * scale), about 0..1."""

    def __init__(self, shape: RRDBShape):
        super().__init__()
        self.shape = shape
        self.scale, self.channels = shape.scale, shape.channels
        features = shape.features
        self.conv_first = _conv(shape.channels * shape.unshuffle**2, features)
        self.body = nn.Sequential(*(RRDB(shape) for _ in range(shape.blocks)))
        self.conv_body = _conv(features, features)
        for number in range(1, shape.doublings + 1):
            self.add_module(f"conv_up{number}", _conv(features, features))
        self.conv_hr = _conv(features, features)
        self.conv_last = _conv(features, shape.channels)

    @classmethod
    def from_weights(cls, weights: StateDict) -> RRDBNet:
        """Built for these weights, of any layout, and holding them."""
        weights = basicsr_names(weights)
        net = build_empty(lambda: cls(shape_of(weights)))
        load_exactly(net, weights, what="upscale model (RRDBNet)")
        return net

    def forward(self, x):
        height, width = x.shape[-2:]
        features = self.conv_first(self._unshuffled(x))
        features = features + self.conv_body(self.body(features))
        for number in range(1, self.shape.doublings + 1):
            larger = functional.interpolate(features, scale_factor=2, mode="nearest")
            features = _activated(getattr(self, f"conv_up{number}")(larger))
        out = self.conv_last(_activated(self.conv_hr(features)))
        return out[..., : height * self.scale, : width * self.scale]

    def _unshuffled(self, x: torch.Tensor) -> torch.Tensor:
        size = self.shape.unshuffle
        if size == 1:
            return x
        missing = [-length % max(size, SIDE_MULTIPLE) for length in x.shape[-2:]]
        fits = all(length > more for length, more in zip(x.shape[-2:], missing, strict=True))
        x = functional.pad(x, (0, missing[1], 0, missing[0]), mode="reflect" if fits else "replicate")
        return functional.pixel_unshuffle(x, size)


def shape_of(weights: StateDict) -> RRDBShape:
    """Read the hyper-parameters off the shapes; names as in BasicSR."""
    features, inputs = weights["conv_first.weight"].shape[:2]
    channels = weights["conv_last.weight"].shape[0]
    doublings = 0
    while f"conv_up{doublings + 1}.weight" in weights:
        doublings += 1
    return RRDBShape(
        channels=channels,
        features=features,
        growth=weights["body.0.rdb1.conv1.weight"].shape[0],
        blocks=count_indices(weights, "body.{}."),
        doublings=doublings,
        unshuffle=math.isqrt(inputs // channels),
    )


_REPOSITORY_NAMES = {
    r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)": r"body.\1.rdb\2.conv\3",
    r"trunk_conv": r"conv_body",
    r"upconv(\d)": r"conv_up\1",
    r"HRconv": r"conv_hr",
}


def _first_names(weights: StateDict) -> dict[str, str]:
    """Patterns of the first layout, where layers are counted: which layer is what depends on the scale."""
    trunk = count_indices(weights, "model.1.sub.{}.") - 1
    layers = sorted(int(found[1]) for key in weights if (found := re.fullmatch(r"model\.(\d+)\.weight", key)))
    *ups, high, last = layers[1:]
    names = {
        r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0": r"body.\1.rdb\2.conv\3",
        rf"model\.1\.sub\.{trunk}": "conv_body",
        r"model\.0": "conv_first",
        rf"model\.{high}": "conv_hr",
        rf"model\.{last}": "conv_last",
    }
    return names | {rf"model\.{layer}": f"conv_up{number}" for number, layer in enumerate(ups, start=1)}


def basicsr_names(weights: StateDict) -> dict[str, torch.Tensor]:
    """The weights under BasicSR's names; keys that no layout has stay as they are."""
    names = _first_names(weights) if "model.0.weight" in weights else _REPOSITORY_NAMES

    def renamed(key: str) -> str:
        layer, dot, kind = key.rpartition(".")
        for pattern, name in names.items():
            if found := re.fullmatch(pattern, layer):
                return found.expand(name) + dot + kind
        return key

    return {renamed(key): tensor for key, tensor in weights.items()}


def accepts(weights: StateDict) -> bool:
    """Channels that pictures have, or squares of their pixels; no further convolutions as in ESRGAN+."""
    renamed = basicsr_names(weights)
    shape = shape_of(renamed)
    is_whole = shape.unshuffle > 0 and 2**shape.doublings % shape.unshuffle == 0
    is_squares = renamed["conv_first.weight"].shape[1] == shape.channels * shape.unshuffle**2
    return is_whole and is_squares and not any(".conv1x1." in key for key in weights)


def _first_layout(doublings: int) -> tuple[str, ...]:
    """Keys of the first layout: an enlargement takes three places, of which the second has weights."""
    layers = [3 + 3 * number for number in range(doublings)] + [3 * doublings + 2, 3 * doublings + 4]
    blocks = ("model.1.sub.0.RDB1.conv1.0.weight", "model.1.sub.0.RDB3.conv5.0.weight")
    return ("model.0.weight", *blocks, *(f"model.{layer}.weight" for layer in layers))


ARCHITECTURE = Architecture(
    name="ESRGAN and RealESRGAN (RRDBNet)",
    layouts=(
        *(_first_layout(doublings) for doublings in range(4)),
        ("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight", "trunk_conv.weight", "HRconv.weight",
         "conv_last.weight"),
        ("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_body.weight", "conv_hr.weight",
         "conv_last.weight"),
    ),
    build=RRDBNet.from_weights,
    accepts=accepts,
)  # fmt: skip

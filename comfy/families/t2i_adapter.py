"""T2I-Adapter (arXiv:2302.08453), on the zoo's T2IAdapter: full and light ones of SD1.5, full ones of SDXL.

Two layouts of names are read: that of the original repository (`body.0.block1.weight`, also below a key
`adapter` of a pickle) and that of diffusers (`adapter.body.0.resnets.0.block1.weight`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import T2IAdapter

import comfy.ops
from comfy.control_fit import Fit
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly

PREFIX = "adapter."
LEVELS = 4
SD_PIXELS, XL_PIXELS = 8, 16  # per side of what the first layer sees
# How many input blocks of the UNet pass before the next result is added, counted from the one before.
SD_GAPS, XL_GAPS = (2, 2, 2, 2), (3, 1, 2)


@dataclass(frozen=True)
class AdapterShape:
    """Hyper-parameters: `kernel` is that of 1x1 layers in the zoo, `is_strided` says how sides are halved."""

    kind: str  # as the zoo names it
    in_channels: int  # of the picture
    channels: tuple[int, ...]
    layers: int  # per level
    kernel: int = 1
    is_strided: bool = False


def is_t2i_adapter(weights: StateDict) -> bool:
    """Whether these are weights of an adapter that this module builds, in one of the two layouts."""
    inside = weights.get("adapter")
    keys = inside if isinstance(inside, Mapping) else weights
    return any(
        prefix + first in keys and prefix + block in keys
        for prefix in ("", PREFIX)
        for first, block in (
            ("conv_in.weight", "body.0.block1.weight"),
            ("conv_in.weight", "body.0.resnets.0.block1.weight"),
            ("body.0.in_conv.weight", "body.0.body.0.block1.weight"),
            ("body.0.in_conv.weight", "body.0.resnets.0.block1.weight"),
        )
    )


def zoo_weights(weights: StateDict) -> dict[str, torch.Tensor]:
    """The weights of either layout under the zoo's names."""
    inside = weights.get("adapter")
    weights = inside if isinstance(inside, Mapping) else weights
    if any(key.startswith(PREFIX) for key in weights):
        return dict(weights)
    is_light = "conv_in.weight" not in weights
    layers = 0 if is_light else count_indices(weights, "body.{}.") // LEVELS
    return {PREFIX + _zoo_name(key, layers): tensor for key, tensor in weights.items()}


def _zoo_name(key: str, layers: int) -> str:
    """One key of the original; full adapters (`layers` per level) number all blocks in one row."""
    parts = key.split(".")
    if parts[0] != "body" or len(parts) < 3:
        return key
    if not layers:
        return ".".join(["resnets" if n == 2 and part == "body" else part for n, part in enumerate(parts)])
    level, layer = divmod(int(parts[1]), layers)
    rest = parts[2:]
    if rest[0] == "in_conv":
        return ".".join(["body", str(level), *rest])
    if rest[:2] == ["down_opt", "op"]:
        return ".".join(["body", str(level), "downsample", *rest[2:]])
    return ".".join(["body", str(level), "resnets", str(layer), *rest])


def shape_of(weights: StateDict) -> AdapterShape:
    """The hyper-parameters, from weights under the zoo's names."""
    layers = count_indices(weights, PREFIX + "body.0.resnets.{}.")
    first = weights.get(PREFIX + "conv_in.weight")
    if first is None:
        first = weights[PREFIX + "body.0.in_conv.weight"]
        widths = tuple(
            weights[f"{PREFIX}body.{level}.out_conv.weight"].shape[0] for level in range(LEVELS - 1)
        )
        return AdapterShape("light_adapter", first.shape[1] // SD_PIXELS**2, widths, layers)
    block = PREFIX + "body.{}.resnets.0.block"
    is_xl = first.shape[1] in (XL_PIXELS**2, 3 * XL_PIXELS**2)
    return AdapterShape(
        kind="full_adapter_xl" if is_xl else "full_adapter",
        in_channels=first.shape[1] // (XL_PIXELS if is_xl else SD_PIXELS) ** 2,
        channels=tuple(weights[block.format(level) + "1.weight"].shape[0] for level in range(LEVELS)),
        layers=layers,
        kernel=weights[block.format(0) + "2.weight"].shape[-1],
        is_strided=any(key.endswith(".downsample.weight") for key in weights),
    )


class _Halving(torch.nn.Module):
    """The mean of 2x2; an odd side begins with half a cell of nothing, as in the original repository."""

    def forward(self, x):
        odd = (x.shape[-2] % 2, x.shape[-1] % 2)
        return torch.nn.functional.avg_pool2d(x, 2, stride=2, padding=odd)


class LDMT2IAdapter(T2IAdapter):
    """Reads the picture once; its results are added to what the UNet's input blocks make."""

    device = None  # set by ModelPatcher

    def __init__(self, shape: AdapterShape):
        pixels = XL_PIXELS if shape.kind == "full_adapter_xl" else SD_PIXELS
        super().__init__(shape.in_channels, list(shape.channels), shape.layers, pixels, shape.kind)
        self.shape = shape
        self.unshuffle_amount = pixels
        self.input_channels = shape.in_channels
        for block in self.adapter.body:
            if block.downsample is not None:
                width = block.in_conv.in_channels if block.in_conv else block.resnets[0].block1.in_channels
                strided = torch.nn.Conv2d(width, width, 3, stride=2, padding=1) if shape.is_strided else None
                block.downsample = strided or _Halving()
            if shape.kernel > 1:
                self._widen(block, shape.kernel)

    @staticmethod
    def _widen(block, kernel: int) -> None:
        """Adapters of the first release have larger kernels where later ones, and the zoo, have 1x1."""

        def wider(layer):
            return torch.nn.Conv2d(layer.in_channels, layer.out_channels, kernel, padding=kernel // 2)

        block.in_conv = block.in_conv and wider(block.in_conv)
        for resnet in block.resnets:
            resnet.block2 = wider(resnet.block2)

    @classmethod
    def from_weights(cls, weights: StateDict) -> LDMT2IAdapter:
        """Built for these weights, of either layout, and holding them; computes in the dtype of its input."""
        weights = zoo_weights(weights)
        net = build_empty(lambda: cls(shape_of(weights)))
        load_exactly(net, weights, what="T2I-Adapter")
        return comfy.ops.cast_on_use(net)

    @property
    def is_xl(self) -> bool:
        return self.shape.kind == "full_adapter_xl"

    def fit(self) -> Fit:
        """Of which UNets the input blocks have the size of these results."""
        channels = self.shape.channels
        widths = (*channels, channels[-1])[:LEVELS] if len(channels) < LEVELS else channels
        levels = widths[:3] if self.is_xl else widths
        return Fit.of_unet(widths=levels, layers=(2,) * len(levels))

    def forward(self, hint) -> dict[str, list[torch.Tensor | None]]:
        """What the UNet is to add: {"input": ...}, last input block first, and of SDXL {"middle": [one]}.

        hint is (B, 1 or 3, H, W) in 0..1, its sides multiples of `unshuffle_amount`.
        """
        results = self.adapter(hint)
        blocks: list[torch.Tensor | None] = []
        for gap, result in zip(XL_GAPS if self.is_xl else SD_GAPS, results):
            blocks += [None] * gap + [result]
        control = {"input": blocks[::-1]}
        return {**control, "middle": [results[-1]]} if self.is_xl else control

"""Control-LoRA: a ControlNet of which the file holds only what differs from the UNet that it controls.

Layers that the file does not have are the UNet's own, without a copy; a layer `x` with `x.up` and `x.down`
is the UNet's plus the product of the two, made each time it is used.
"""

from __future__ import annotations

import torch

import comfy.ops
from comfy.control_fit import ControlMismatch
from comfy.errors import ModelFileError
from comfy.families.base import StateDict, build_empty, load_exactly
from comfy.families.ldm_controlnet import ControlNetShape, LDMControlNet, hint_shape, renamed
from comfy.families.ldm_unet import UNetShape, module_names

MARKER = "lora_controlnet"
_LEAVES = ("weight", "bias", "up", "down")


class _Plus:
    """Adds up @ down to a weight of any shape."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor):
        self.up, self.down = up, down

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        product = torch.mm(self.up.flatten(1), self.down.flatten(1))
        return weight + product.reshape(weight.shape).to(weight)


def is_control_lora(weights: StateDict) -> bool:
    return MARKER in weights


def no_unet(family: str, file: str | None) -> ControlMismatch:
    """The error for a model that has no UNet."""
    return ControlMismatch(
        f"The control model{f' of {file!r}' if file else ''} is a Control-LoRA, which needs a UNet, but the "
        f"model that is sampled ({family}) has none. Choose a checkpoint of SDXL or Stable Diffusion, or "
        "another control model."
    )


def network(weights: StateDict, unet: torch.nn.Module, unet_config: dict, *, dtype, device) -> LDMControlNet:
    """The ControlNet of a Control-LoRA's weights and the UNet (with its `unet_config`) that it controls.

    Raises:
        ModelFileError: weights are missing, or are for a UNet of other sizes.
    """
    shape = UNetShape(**{name: unet_config[name] for name in UNetShape.__dataclass_fields__})
    given = {key: tensor for key, tensor in weights.items()
             if key.rpartition(".")[2] in _LEAVES and "__" not in key}  # fmt: skip
    own = {key: tensor.to(device=device, dtype=dtype)
           for key, tensor in renamed(given, module_names(shape)).items()}  # fmt: skip
    net = build_empty(lambda: LDMControlNet(ControlNetShape(shape, *hint_shape(own))))
    shared = unet.state_dict()
    merged = {key: own.get(key, shared.get(key)) for key in net.state_dict()}
    whole = {key: tensor for key, tensor in merged.items() if tensor is not None}
    load_exactly(net, whole, what="Control-LoRA with this UNet's weights")
    comfy.ops.cast_on_use(net)
    for key, up in own.items():
        if key.endswith(".up"):
            _change(net, key[: -len(".up")], up, own.get(key[: -len("up")] + "down"))
    return net


def _change(net: LDMControlNet, name: str, up: torch.Tensor, down: torch.Tensor | None) -> None:
    """Let the layer of that name add the product to its weight."""
    layer = dict(net.named_modules()).get(name)
    if layer is None or down is None or not _makes(up, down, layer.weight.shape):
        raise ModelFileError(
            f"The Control-LoRA does not fit the UNet of this model at '{name}'. Use it with a checkpoint of "
            "the family that it was trained for (SDXL for most files)."
        )
    layer.weight_function = [_Plus(up, down)]


def _makes(up: torch.Tensor, down: torch.Tensor, shape: torch.Size) -> bool:
    """Whether up @ down has as many rows and values as a weight of this shape."""
    rows, columns = up.shape[0], down[0].numel()
    return rows == shape[0] and rows * columns == shape.numel() and up[0].numel() == down.shape[0]

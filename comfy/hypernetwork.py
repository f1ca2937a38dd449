"""Hypernetworks, as trained for Stable Diffusion: small networks that change keys and values of attention.

A file is a dictionary: {width of the context: [weights for keys, weights for values]} and how they were made
("activation_func", "activate_output", ...). Dropout is for training only.
"""

from __future__ import annotations

import torch

from comfy.errors import ModelFileError

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": torch.nn.functional.relu,
    "leakyrelu": torch.nn.functional.leaky_relu,
    "elu": torch.nn.functional.elu,
    "swish": torch.nn.functional.hardswish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": torch.nn.functional.softsign,
    "mish": torch.nn.functional.mish,
}


class HypernetworkPatch:
    """A patch of "attn1_patch" and "attn2_patch": x + strength * network(x) for keys and values."""

    def __init__(self, networks: dict[int, list[list[dict]]], activation: str, activate_output: bool):
        self.networks = networks
        self.activation = activation
        self.activate_output = activate_output
        self.strength = 1.0

    def with_strength(self, strength: float) -> HypernetworkPatch:
        """The same networks at another strength."""
        new = HypernetworkPatch(self.networks, self.activation, self.activate_output)
        new.strength = strength
        return new

    def __deepcopy__(self, memo):  # clones of a model share it
        return self

    def to(self, device) -> HypernetworkPatch:
        """On a device, or in a dtype."""
        moved = {
            width: [
                [{name: tensor.to(device) for name, tensor in layer.items()} for layer in network]
                for network in pair
            ]
            for width, pair in self.networks.items()
        }
        new = HypernetworkPatch(moved, self.activation, self.activate_output)
        new.strength = self.strength
        return new

    def __call__(self, q, k, v, extra_options):
        pair = self.networks.get(k.shape[-1])
        if pair is None:
            return q, k, v
        keys, values = pair
        return q, k + self._run(keys, k) * self.strength, v + self._run(values, v) * self.strength

    def _run(self, layers: list[dict], x: torch.Tensor) -> torch.Tensor:
        linear = [number for number, layer in enumerate(layers) if layer["weight"].ndim == 2]
        for number, layer in enumerate(layers):
            weight, bias = (layer[name].to(x) for name in ("weight", "bias"))
            if weight.ndim == 1:
                x = torch.nn.functional.layer_norm(x, weight.shape, weight, bias)
                continue
            x = torch.nn.functional.linear(x, weight, bias)
            if self.activate_output or number != linear[-1]:
                x = ACTIVATIONS[self.activation](x)
        return x


def _layers(weights: dict[str, torch.Tensor]) -> list[dict]:
    names = [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]
    return [{leaf: weights[f"{name}.{leaf}"] for leaf in ("weight", "bias")} for name in names]


def from_state_dict(weights: dict, name: str) -> HypernetworkPatch:
    """The patch of a file's content; `name` is for messages.

    Raises:
        ModelFileError: it is no hypernetwork, or has an unknown activation.
    """
    activation = weights.get("activation_func", "linear") or "linear"
    if activation not in ACTIVATIONS:
        raise ModelFileError(
            f"The hypernetwork '{name}' has the activation '{activation}'. "
            f"Known are: {', '.join(ACTIVATIONS)}. Choose another file."
        )
    widths = [key for key in weights if isinstance(key, int) or (isinstance(key, str) and key.isdigit())]
    try:
        networks = {int(width): [_layers(part) for part in weights[width][:2]] for width in widths}
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"The hypernetwork '{name}' is damaged: {error!r}. Download it again."
        ) from error
    if not networks:
        raise ModelFileError(
            f"'{name}' is no hypernetwork: it has no networks for widths such as 320 or 768. "
            "Choose a file made for Load Hypernetwork."
        )
    return HypernetworkPatch(networks, activation, bool(weights.get("activate_output", False)))
